//! Access reviews: every authenticated client may do everything.

use bytes::Bytes;
use http::Response;
use serde_json::json;

use super::body::{self, ResponseBody};
use super::request;
use crate::status::ApiError;

/// Answers a review. Returns `None` if the path is not a review.
pub(super) fn answer(
    group: &str,
    plural: &str,
    content_type: &str,
    bytes: &Bytes,
) -> Option<Result<Response<ResponseBody>, ApiError>> {
    let status = match (group, plural) {
        ("authorization.k8s.io", "selfsubjectaccessreviews") => {
            json!({"allowed": true, "reason": "this server has one user only: the holder of its token"})
        }
        ("authorization.k8s.io", "selfsubjectrulesreviews") => json!({
            "incomplete": false,
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
        }),
        ("authentication.k8s.io", "selfsubjectreviews") => {
            json!({"userInfo": {"username": "kube-embed:admin", "groups": ["system:masters", "system:authenticated"]}})
        }
        _ => return None,
    };
    Some(request::decode(content_type, bytes).map(|mut review| {
        review["status"] = status;
        body::json(201, &review)
    }))
}
