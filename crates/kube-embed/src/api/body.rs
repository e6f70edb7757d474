//! Responses.

use bytes::Bytes;
use http::{Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use serde_json::Value;

use crate::status::ApiError;

/// The body of every response.
pub type ResponseBody = UnsyncBoxBody<Bytes, std::io::Error>;

/// A complete response.
pub(crate) fn full(status: u16, content_type: &'static str, bytes: impl Into<Bytes>) -> Response<ResponseBody> {
    let body = Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}

/// A JSON response.
pub(crate) fn json(status: u16, value: &Value) -> Response<ResponseBody> {
    full(status, "application/json", value.to_string())
}

/// Encodes an error as a `Status` response.
pub(crate) fn error(error: &ApiError) -> Response<ResponseBody> {
    let mut response = if error.is_page() {
        full(error.code, "text/plain; charset=utf-8", "404 page not found\n")
    } else {
        json(error.code, &error.to_value())
    };
    if let Some(seconds) = error.details.retry_after_seconds {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, header::HeaderValue::from(seconds));
    }
    response
}
