//! API errors: `metav1.Status` with the reasons, causes and retry hints that clients use.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::resource::ResourceInfo;
use crate::schema::{FieldError, aggregate};

/// One entry of `status.details.causes`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// Machine-readable kind of the cause, for example `FieldValueInvalid`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The description for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The invalid field.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
}

impl From<&FieldError> for Cause {
    fn from(error: &FieldError) -> Self {
        // Kubernetes prints Go's nil path for an error without a single field.
        let field = if error.path.is_empty() { "<nil>" } else { &error.path };
        Self {
            reason: error.reason.code().into(),
            message: error.body(),
            field: field.into(),
        }
    }
}

/// `status.details`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// Name of the affected object.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its API group.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Its kind (or resource; Kubernetes uses both).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Its uid.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// All causes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    /// Seconds to wait before a retry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u32>,
}

/// The error of a refused request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// HTTP status code.
    pub code: u16,
    /// The machine-readable reason.
    pub reason: &'static str,
    /// The description for people.
    pub message: String,
    /// The affected object, and the causes.
    pub details: Box<Details>,
    /// Whether the answer has `details` even if they are empty. Kubernetes does this before it reads an object.
    pub general: bool,
    /// A token to continue an expired list inconsistently (`metadata.continue`).
    pub continue_token: Option<String>,
}

impl ApiError {
    /// Creates an error without details.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            details: Box::default(),
            general: false,
            continue_token: None,
        }
    }

    /// Creates an error for a request as a whole.
    fn general(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            general: true,
            ..Self::new(code, reason, message)
        }
    }

    fn about(mut self, resource: &ResourceInfo, name: &str) -> Self {
        self.details.name = name.to_owned();
        self.details.group = resource.group.clone();
        self.details.kind = resource.plural.clone();
        self
    }

    /// 400: the request is malformed.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 404 for an object.
    pub(crate) fn not_found(resource: &ResourceInfo, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{} {name:?} not found", resource.qualified())).about(resource, name)
    }

    /// 404 for an unknown path.
    pub(crate) fn no_such_path() -> Self {
        Self::general(404, "NotFound", "the server could not find the requested resource")
    }

    /// 404 in plain text, for a path outside every API group, such as an unknown group.
    pub(crate) fn page_not_found() -> Self {
        Self::new(404, "", "404 page not found")
    }

    /// Returns whether this is a plain page instead of a `Status`.
    pub(crate) fn is_page(&self) -> bool {
        self.code == 404 && self.reason.is_empty()
    }

    /// 409: an object with this name exists.
    pub(crate) fn already_exists(resource: &ResourceInfo, name: &str) -> Self {
        Self::new(
            409,
            "AlreadyExists",
            format!("{} {name:?} already exists", resource.qualified()),
        )
        .about(resource, name)
    }

    /// 409: a precondition does not hold.
    pub(crate) fn conflict(resource: &ResourceInfo, name: &str, why: impl std::fmt::Display) -> Self {
        Self::new(
            409,
            "Conflict",
            format!(
                "Operation cannot be fulfilled on {} {name:?}: {why}",
                resource.qualified()
            ),
        )
        .about(resource, name)
    }

    /// 409: the object has changed since the client read it.
    pub(crate) fn modified(resource: &ResourceInfo, name: &str) -> Self {
        Self::conflict(
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 409: other managers own some of the fields.
    pub(crate) fn apply_conflict(message: String, causes: Vec<Cause>) -> Self {
        let mut error = Self::new(409, "Conflict", message);
        error.details.causes = causes;
        error
    }

    /// 422: fields of the object are invalid.
    pub(crate) fn invalid(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let listed = aggregate(errors);
        let qualified = if group.is_empty() {
            kind.to_owned()
        } else {
            format!("{kind}.{group}")
        };
        let mut error = Self::new(422, "Invalid", format!("{qualified} {name:?} is invalid: {listed}"));
        error.details.name = name.to_owned();
        error.details.group = group.to_owned();
        error.details.kind = kind.to_owned();
        error.details.causes = errors.iter().map(Cause::from).collect();
        error
    }

    /// 403: the server understood the request and refuses it.
    pub(crate) fn forbidden(resource: &ResourceInfo, name: &str, why: impl std::fmt::Display) -> Self {
        Self::new(
            403,
            "Forbidden",
            format!("{} {name:?} is forbidden: {why}", resource.qualified()),
        )
        .about(resource, name)
    }

    /// 405: the resource does not support the verb.
    pub(crate) fn method_not_allowed() -> Self {
        Self::general(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        )
    }

    /// 410: the resource version is no longer in the history.
    pub(crate) fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 406: the client accepts none of the media types of this server.
    pub(crate) fn not_acceptable() -> Self {
        Self::new(
            406,
            "NotAcceptable",
            "only the following media types are accepted: application/json",
        )
    }

    /// 413: the body is over the limit.
    pub(crate) fn too_large(limit: usize) -> Self {
        Self::new(
            413,
            "RequestEntityTooLarge",
            format!("Request entity too large: limit is {limit}"),
        )
    }

    /// 415: the body's media type is not supported.
    pub(crate) fn unsupported_media_type(known: &str) -> Self {
        Self::new(
            415,
            "UnsupportedMediaType",
            format!("the body of the request was in an unknown format - accepted media types include: {known}"),
        )
    }

    /// 415: built-in kinds do not support this patch type.
    pub(crate) fn unsupported_patch() -> Self {
        Self::general(415, "UnsupportedMediaType", "415: Unsupported Media Type")
    }

    /// 422: an operation of a JSON patch does not apply.
    pub(crate) fn unprocessable_patch() -> Self {
        Self::general(
            422,
            "Invalid",
            "the server rejected our request due to an error in our request",
        )
    }

    /// 500 without a reason. Kubernetes answers so when its storage or a parser refuses something.
    pub(crate) fn unexplained(message: impl Into<String>) -> Self {
        Self::new(500, "", message)
    }

    /// 406: the client requests a list for one object, or one object for a list.
    pub(crate) fn wrong_representation(message: impl Into<String>) -> Self {
        Self::new(406, "NotAcceptable", message)
    }

    /// 504: the requested resource version is in the future.
    pub(crate) fn rv_too_large(asked: u64, current: u64) -> Self {
        let mut error = Self::new(
            504,
            "Timeout",
            format!("Too large resource version: {asked}, current: {current}"),
        );
        error.details.retry_after_seconds = Some(1);
        error.details.causes.push(Cause {
            reason: "ResourceVersionTooLarge".into(),
            message: "Too large resource version".into(),
            field: String::new(),
        });
        error
    }

    /// 500: an applied object does not match its schema. Kubernetes gives no reason here either.
    pub(crate) fn untyped_patch(
        resource: &ResourceInfo,
        namespace: &str,
        name: &str,
        why: impl std::fmt::Display,
    ) -> Self {
        let ResourceInfo {
            group, version, kind, ..
        } = resource;
        Self::unexplained(format!(
            "failed to create typed patch object ({namespace}/{name}; {group}/{version}, Kind={kind}): {why}"
        ))
    }

    /// 500: an internal error.
    pub(crate) fn internal(message: impl std::fmt::Display) -> Self {
        Self::new(500, "InternalError", format!("Internal error occurred: {message}"))
    }

    /// 503: try again later.
    pub(crate) fn unavailable(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        let mut error = Self::new(503, "ServiceUnavailable", message);
        error.details.retry_after_seconds = Some(retry_after_seconds);
        error
    }

    /// Returns the `metav1.Status` object.
    pub(crate) fn to_value(&self) -> Value {
        let mut metadata = json!({});
        if let Some(token) = &self.continue_token {
            metadata["continue"] = json!(token);
        }
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": metadata,
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        });
        if self.reason.is_empty()
            && let Some(status) = status.as_object_mut()
        {
            status.remove("reason");
        }
        if self.general || *self.details != Details::default() {
            status["details"] = json!(&*self.details);
        }
        status
    }
}
