//! Who may do what: whoever got in may do everything.

use bytes::Bytes;
use http::Response;
use serde_json::{Value, json};

use super::body::{self, ResponseBody};
use crate::status::ApiError;

/// Answers a review, or `None` when the path is no review's.
pub(super) fn answer(group: &str, plural: &str, body: &Bytes) -> Option<Result<Response<ResponseBody>, ApiError>> {
    let status = match (group, plural) {
        ("authorization.k8s.io", "selfsubjectaccessreviews") => {
            json!({"allowed": true, "reason": "this server has no users besides the holder of its token"})
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
    Some(match serde_json::from_slice::<Value>(body) {
        Ok(mut review) if review.is_object() => {
            review["status"] = status;
            Ok(body::json(201, &review))
        }
        Ok(_) => Err(ApiError::bad_request("the body must be an object")),
        Err(error) => Err(ApiError::bad_request(format!("the body is no valid JSON: {error}"))),
    })
}
