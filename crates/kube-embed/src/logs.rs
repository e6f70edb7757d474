//! The interface between the `pods/log` subresource and the node that runs the pods.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use jiff::Timestamp;
use serde_json::Value;

use crate::status::ApiError;

/// The options of a log request, with `sinceSeconds` already converted to a point in time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Keep the stream open and send new lines until the container has ended.
    pub follow: bool,
    /// The log of the container's previous instance.
    pub previous: bool,
    /// Start this many lines before the end.
    pub tail_lines: Option<u64>,
    /// Only lines written at or after this time.
    pub since: Option<Timestamp>,
    /// Put an RFC 3339 timestamp and a space before each line.
    pub timestamps: bool,
    /// Stop after this many bytes.
    pub limit_bytes: Option<u64>,
}

/// A request for a log. The API server has checked that the pod exists and has a container with this name.
#[derive(Clone, Debug)]
pub struct LogRequest {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Uid of the pod.
    pub uid: String,
    /// Name of the (init) container.
    pub container: String,
    /// The pod at the time of the request.
    pub object: Arc<Value>,
    /// The options of the request.
    pub options: LogOptions,
}

/// The bytes of a log. An error ends the response early.
pub type LogStream = BoxStream<'static, std::io::Result<Bytes>>;

/// A reader of pods' logs.
pub trait PodLogs: Send + Sync + 'static {
    /// Opens a log. The error is the answer to the client.
    fn open(&self, request: LogRequest) -> BoxFuture<'static, Result<LogStream, ApiError>>;
}
