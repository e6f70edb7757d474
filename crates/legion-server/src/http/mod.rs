//! The HTTP front: connections, routes, bodies and answers.

mod answer;
mod body;
mod inference;
mod page;
mod route;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header::HeaderName};
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

pub use page::Page;

/// The id of a prediction: a UUIDv7 on every answer.
pub const PREDICTION_ID: HeaderName = HeaderName::from_static("legion-prediction-id");
/// How long connections may take to finish what they have when the server ends.
const DRAIN: Duration = Duration::from_secs(60);

/// What requests need.
pub struct Front {
    /// The model.
    pub model: Model,
    /// What the page shows about it.
    pub page: Page,
    /// Its workers.
    pub pool: Pool,
    /// What is counted.
    pub metrics: Metrics,
    /// Longest body of a request, in bytes.
    pub max_body: usize,
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
            let service = service_fn(move |request| {
                let front = Arc::clone(&front);
                async move { Ok::<_, std::convert::Infallible>(answer(&front, request).await) }
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
                () = stop.cancelled() => {
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
    let finished = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, finished).await.is_err() {
        tracing::warn!("connections are closed before their end");
    }
    front.pool.stop().await;
}

async fn answer(front: &Front, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let began = Instant::now();
    let id = prediction_id(&request);
    let (protocol, mut response) = route::answer(front, request).await;
    let took = began.elapsed();
    front.metrics.answered(protocol, response.status().as_u16(), took);
    let headers = response.headers_mut();
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
