//! The HTTP front: connections, routes, bodies and answers.

mod answer;
mod body;
mod host;
mod inference;
mod legion;
mod openapi;
mod page;
mod route;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{
    HeaderValue, Request, Response,
    header::{self, HeaderName},
};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{metrics::Metrics, model::Model, pool::Pool};

/// The id of a prediction: a UUIDv7 on every answer.
pub const PREDICTION_ID: HeaderName = HeaderName::from_static("legion-prediction-id");
/// How long a prediction took (W3C Server Timing).
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
/// How long an open connection may still bring a request when the server ends. Its client may have sent one already.
const LAST_REQUEST: Duration = Duration::from_secs(1);
/// How long connections may take to finish what they have when the server ends.
const DRAIN: Duration = Duration::from_secs(60);

/// What requests need.
pub struct Front {
    /// The model.
    pub model: Model,
    /// Its workers.
    pub pool: Pool,
    /// What is counted.
    pub metrics: Metrics,
    /// Longest body of a request, in bytes.
    pub max_body: usize,
    /// Whether the server listens on a loopback address. Then it checks the header `Host`.
    pub is_local: bool,
}

/// The times of a prediction, for the header `Server-Timing`.
#[derive(Clone, Copy, Debug)]
struct Timing {
    queued: Duration,
    predicted: Duration,
}

impl std::fmt::Display for Timing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        let (queue, predict) = (milliseconds(self.queued), milliseconds(self.predicted));
        write!(f, "queue;dur={queue:.3}, predict;dur={predict:.3}")
    }
}

/// Serves connections until `stop` is cancelled. Then it finishes the requests that it has.
pub async fn serve(listener: TcpListener, front: Arc<Front>, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Such as too many open files: others may still be served.
                    tracing::warn!(%error, "a connection cannot be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            Some(_) = connections.join_next() => continue,
            () = stop.cancelled() => break,
        };
        // Without it, a small answer waits for the client's delayed acknowledgement.
        let _ = stream.set_nodelay(true);
        let (front, stop) = (Arc::clone(&front), stop.clone());
        connections.spawn(async move {
            let service = service_fn({
                let stop = stop.clone();
                move |request| {
                    let (front, stop) = (Arc::clone(&front), stop.clone());
                    async move {
                        let mut response = answer(&front, request).await;
                        if stop.is_cancelled() {
                            let value = HeaderValue::from_static("close");
                            response.headers_mut().insert(header::CONNECTION, value);
                        }
                        Ok::<_, std::convert::Infallible>(response)
                    }
                }
            });
            let mut builder = auto::Builder::new(TokioExecutor::new());
            // A client that sends its head slowly is closed.
            builder
                .http1()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(30));
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            tokio::pin!(connection);
            let result = tokio::select! {
                result = connection.as_mut() => result,
                () = async {
                    stop.cancelled().await;
                    tokio::time::sleep(LAST_REQUEST).await;
                } => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = result {
                tracing::debug!(error, "a connection ended");
            }
        });
    }
    drop(listener);
    front.pool.drain();
    let finished = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, finished).await.is_err() {
        tracing::warn!("connections are closed before their end");
    }
    front.pool.stop().await;
}

async fn answer(front: &Front, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let began = Instant::now();
    let id = prediction_id(&request);
    let trace = request.headers().get("traceparent").cloned();
    let (protocol, mut response) = match host::foreign(&request).filter(|_| front.is_local) {
        Some(host) => route::foreign(&host),
        None => route::answer(front, request).await,
    };
    let (took, status) = (began.elapsed(), response.status());
    front.metrics.answered(protocol, status.as_u16(), took);
    if status.is_server_error() {
        // The body names no more than the exception. The log of the worker has the rest.
        tracing::warn!(prediction = %id, ?trace, %status, ?took, protocol, "not answered");
    } else {
        tracing::debug!(prediction = %id, ?trace, %status, ?took, protocol, "answered");
    }
    let timing = response.extensions().get::<Timing>().map(ToString::to_string);
    let headers = response.headers_mut();
    if let Some(timing) = timing.and_then(|timing| HeaderValue::from_str(&timing).ok()) {
        headers.insert(SERVER_TIMING, timing);
    }
    // A UUID is always a valid header.
    if let Ok(value) = HeaderValue::from_str(&id.to_string()) {
        headers.insert(PREDICTION_ID, value);
    }
    response
}

/// Returns the id of the request, if it is a UUIDv7, or a new one.
fn prediction_id(request: &Request<Incoming>) -> Uuid {
    let given = request.headers().get(PREDICTION_ID);
    let given = given.and_then(|value| Uuid::parse_str(value.to_str().ok()?).ok());
    given
        .filter(|id| id.get_version_num() == 7)
        .unwrap_or_else(Uuid::now_v7)
}
