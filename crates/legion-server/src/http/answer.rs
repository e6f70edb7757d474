//! Answers, and each protocol's form of errors.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use serde_json::json;

use crate::{input::InvalidInput, pool::Failure};

/// An answer.
pub(super) type Answer = Response<Full<Bytes>>;

/// Whose form an error has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// MLflow's scoring server.
    Mlflow,
    /// Open Inference Protocol v2.
    Inference,
    /// TensorFlow Serving's REST API, as KServe has it.
    V1,
    /// That of Legion's first version.
    Legion,
    /// Health, metrics and what no protocol has.
    Other,
}

impl Protocol {
    /// Returns the name in metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Mlflow => "mlflow",
            Self::Inference => "v2",
            Self::V1 => "v1",
            Self::Legion => "legion",
            Self::Other => "other",
        }
    }
}

/// A request that was not answered with a prediction.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) status: StatusCode,
    pub(super) message: String,
}

impl Fault {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }
}

impl From<InvalidInput> for Fault {
    fn from(invalid: InvalidInput) -> Self {
        Self::new(StatusCode::BAD_REQUEST, invalid.to_string())
    }
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        let status = match &failure {
            Failure::Busy | Failure::Died => StatusCode::SERVICE_UNAVAILABLE,
            Failure::Deadline(_) => StatusCode::GATEWAY_TIMEOUT,
            Failure::Model { refused: true, .. } => StatusCode::BAD_REQUEST,
            Failure::Model { refused: false, .. } | Failure::Answer => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, failure.to_string())
    }
}

/// Returns an answer with this content.
pub(super) fn with(status: StatusCode, kind: &'static str, content: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(content.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// Returns an answer in JSON.
pub(super) fn json(status: StatusCode, value: &serde_json::Value) -> Answer {
    with(status, "application/json", value.to_string())
}

/// Returns an error in the form of a protocol.
pub(super) fn fault(protocol: Protocol, fault: &Fault) -> Answer {
    let status = match (protocol, fault.status) {
        // MLflow's scoring server blames the request for every exception of a model.
        (Protocol::Mlflow, StatusCode::INTERNAL_SERVER_ERROR) => StatusCode::BAD_REQUEST,
        (_, status) => status,
    };
    let value = match protocol {
        Protocol::Mlflow => {
            let code = match fault.status {
                StatusCode::BAD_REQUEST => "INVALID_PARAMETER_VALUE",
                StatusCode::SERVICE_UNAVAILABLE => "TEMPORARILY_UNAVAILABLE",
                StatusCode::GATEWAY_TIMEOUT => "DEADLINE_EXCEEDED",
                _ => "BAD_REQUEST",
            };
            json!({"error_code": code, "message": fault.message})
        }
        Protocol::Legion => json!({"message": fault.message}),
        Protocol::Inference | Protocol::V1 | Protocol::Other => json!({"error": fault.message}),
    };
    let mut answer = json(status, &value);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        let value = HeaderValue::from_static("1");
        answer.headers_mut().insert(header::RETRY_AFTER, value);
    }
    answer
}
