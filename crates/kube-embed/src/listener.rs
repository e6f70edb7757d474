//! HTTP on a loopback address.
//!
//! Every user of a machine can reach its loopback addresses, so each request must carry a bearer token.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use http::{Request, Response, header};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

use crate::api::body::{self, ResponseBody};
use crate::api::service::ApiService;
use crate::status::ApiError;

/// Where a server listens, and what a client needs.
#[derive(Clone)]
pub struct Endpoint {
    address: SocketAddr,
    token: Arc<str>,
    connections: TaskTracker,
}

impl Endpoint {
    /// The address, with the port that was picked.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The server's URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The bearer token that every request must carry.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// A kubeconfig for this server, in JSON (which is YAML). It holds the token: write it with mode 0600.
    pub fn kubeconfig(&self, name: &str, namespace: &str) -> String {
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": {"server": self.url()}}],
            "users": [{"name": name, "user": {"token": &*self.token}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": namespace}}],
            "current-context": name,
        });
        format!("{config:#}\n")
    }

    /// Waits until the last connection is closed, after the server was told to stop.
    pub async fn closed(&self) {
        self.connections.close();
        self.connections.wait().await;
    }
}

pub(crate) async fn listen(
    service: ApiService,
    address: SocketAddr,
    token: Option<String>,
    stopping: CancellationToken,
) -> std::io::Result<Endpoint> {
    if !address.ip().is_loopback() {
        return Err(std::io::Error::new(
            std::io::ErrorKind::InvalidInput,
            format!(
                "{} is not a loopback address: this server is for one machine, use 127.0.0.1 or ::1",
                address.ip()
            ),
        ));
    }
    let token = token.unwrap_or_else(|| {
        format!(
            "{}{}",
            uuid::Uuid::new_v4().as_simple(),
            uuid::Uuid::new_v4().as_simple()
        )
    });
    let listener = TcpListener::bind(address).await?;
    let endpoint = Endpoint {
        address: listener.local_addr()?,
        token: Arc::from(token),
        connections: TaskTracker::new(),
    };
    let accepted = endpoint.clone();
    tokio::spawn(async move {
        loop {
            let stream = tokio::select! {
                () = stopping.cancelled() => break,
                next = listener.accept() => match next {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        // Out of file descriptors, mostly: what is open goes on, and the next accept may succeed.
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                        continue;
                    }
                },
            };
            // Small responses should not wait for the client's acknowledgement of the one before.
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "cannot set TCP_NODELAY");
            }
            let authenticated = Authenticated {
                inner: service.clone(),
                expected: Arc::from(format!("Bearer {}", accepted.token)),
            };
            let stopping = stopping.clone();
            accepted.connections.spawn(async move {
                let builder = auto::Builder::new(TokioExecutor::new());
                let handler = hyper_util::service::TowerToHyperService::new(authenticated);
                let connection = builder.serve_connection(TokioIo::new(stream), handler);
                tokio::pin!(connection);
                let result = tokio::select! {
                    result = connection.as_mut() => result,
                    () = stopping.cancelled() => {
                        connection.as_mut().graceful_shutdown();
                        connection.await
                    }
                };
                if let Err(error) = result {
                    tracing::debug!(error, "a connection ended early");
                }
            });
        }
    });
    Ok(endpoint)
}

/// Refuses requests without the token.
#[derive(Clone)]
struct Authenticated {
    inner: ApiService,
    expected: Arc<str>,
}

impl Service<Request<Incoming>> for Authenticated {
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = futures::future::BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let given = request
            .headers()
            .get(header::AUTHORIZATION)
            .map(http::HeaderValue::as_bytes)
            .unwrap_or_default();
        // Probes tell nothing about objects and are asked without credentials everywhere.
        let open = matches!(request.uri().path(), "/healthz" | "/livez" | "/readyz");
        if open || constant_time_eq(given, self.expected.as_bytes()) {
            Box::pin(self.inner.call(request))
        } else {
            let error = ApiError::new(401, "Unauthorized", "Unauthorized");
            Box::pin(async move { Ok(body::error(&error)) })
        }
    }
}

/// Compares without telling by its duration where the first difference is.
fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |acc, (x, y)| acc | (x ^ y)) == 0
}
