//! The HTTP listener of a process: `/healthz`, `/readyz` and `/metrics`, for the kubelet and Prometheus.
//!
//! It serves plain HTTP without authentication, because probes need that. Responses contain no secrets, and a
//! NetworkPolicy limits access.

use std::{
    convert::Infallible,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

use crate::{Shutdown, metrics, telemetry::Telemetry};

/// Maximum number of open connections, more than probes and scrapers use. Further connections wait.
const MAX_CONNECTIONS: usize = 32;
/// Deadline for the header of a request, so that idle clients do not block the connections of others.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Delay after a failed accept, for instance when there are no free file descriptors.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Failure to listen on an address.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address has a wrong form.
    #[error("{0:?} is not a listen address: use ADDRESS:PORT, such as [::]:8080 or 127.0.0.1:8080")]
    Malformed(String),
    /// The address cannot be bound.
    #[error("cannot listen on {address}: {source}; {remedy}")]
    Unavailable {
        /// The requested address.
        address: SocketAddr,
        /// The error of the operating system.
        source: std::io::Error,
        /// How to fix it.
        remedy: &'static str,
    },
}

/// A bound listener that does not serve requests yet.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

/// Binds `address`. Must be called within a tokio runtime.
///
/// # Errors
/// When `address` does not have the form ADDRESS:PORT, or cannot be bound.
pub async fn bind(address: &str) -> Result<Listener, ListenError> {
    let wanted: SocketAddr = address
        .parse()
        .map_err(|_| ListenError::Malformed(address.to_owned()))?;
    let bound = match TcpListener::bind(wanted).await {
        // Without IPv6 in the kernel, [::] stands for every IPv4 address.
        Err(error) if has_no_ipv6(&error) && wanted.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, wanted.port())).await
        }
        bound => bound,
    };
    let unavailable = |source: std::io::Error| ListenError::Unavailable {
        address: wanted,
        remedy: remedy(source.kind()),
        source,
    };
    let socket = bound.map_err(unavailable)?;
    let address = socket.local_addr().map_err(unavailable)?;
    Ok(Listener { socket, address })
}

fn has_no_ipv6(error: &std::io::Error) -> bool {
    let code = error.raw_os_error();
    [rustix::io::Errno::AFNOSUPPORT, rustix::io::Errno::ADDRNOTAVAIL]
        .iter()
        .any(|errno| code == Some(errno.raw_os_error()))
}

fn remedy(kind: std::io::ErrorKind) -> &'static str {
    match kind {
        std::io::ErrorKind::AddrInUse => "another process uses this address: stop it, or choose another port",
        std::io::ErrorKind::PermissionDenied => "choose a port of at least 1024",
        std::io::ErrorKind::AddrNotAvailable => "this machine has no such address: use [::] for all addresses",
        _ => "choose another address",
    }
}

impl Listener {
    /// Returns the bound address, with the actual port if port 0 was requested.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves requests until the task is dropped. Also serves during a shutdown, so that the kubelet and Prometheus can
    /// observe it. Then the process is not ready.
    pub async fn serve(self, telemetry: Telemetry, shutdown: Shutdown) {
        let endpoints = Arc::new(Endpoints { telemetry, shutdown });
        let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            // The semaphore is never closed.
            let Ok(permit) = connections.clone().acquire_owned().await else {
                return;
            };
            match self.socket.accept().await {
                Ok((stream, _)) => {
                    let endpoints = endpoints.clone();
                    tokio::spawn(async move {
                        serve_connection(stream, endpoints).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the listener cannot accept a connection");
                    tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                }
            }
        }
    }
}

struct Endpoints {
    telemetry: Telemetry,
    shutdown: Shutdown,
}

async fn serve_connection(stream: TcpStream, endpoints: Arc<Endpoints>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = respond(&endpoints, request.method(), request.uri().path());
        async move { Ok::<_, Infallible>(response) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    // A client that disconnects is not a problem of this process.
    if let Err(error) = served.await {
        tracing::debug!(%error, "a connection to the listener failed");
    }
}

fn respond(endpoints: &Endpoints, method: &Method, path: &str) -> Response<Full<Bytes>> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut response = text(
            StatusCode::METHOD_NOT_ALLOWED,
            "only GET and HEAD are allowed\n".to_owned(),
        );
        response
            .headers_mut()
            .insert(header::ALLOW, http::HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match path {
        "/healthz" => probe_response(endpoints.telemetry.health.live()),
        "/readyz" if endpoints.shutdown.is_requested() => probe_response(Err("shutting down".to_owned())),
        "/readyz" => probe_response(endpoints.telemetry.health.ready()),
        "/metrics" => match endpoints.telemetry.metrics.encode() {
            Ok(metrics) => with_type(StatusCode::OK, metrics::CONTENT_TYPE, metrics),
            Err(error) => {
                tracing::error!(%error, "cannot encode the metrics");
                text(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "cannot encode the metrics\n".to_owned(),
                )
            }
        },
        _ => text(
            StatusCode::NOT_FOUND,
            "not found: use /healthz, /readyz or /metrics\n".to_owned(),
        ),
    }
}

fn probe_response(result: Result<(), String>) -> Response<Full<Bytes>> {
    match result {
        Ok(()) => text(StatusCode::OK, "ok\n".to_owned()),
        Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    with_type(status, "text/plain; charset=utf-8", body)
}

fn with_type(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::health::Health;

    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(format!("{request}\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn status_and_body(address: SocketAddr, path: &str) -> (String, String) {
        let answer = ask(address, &format!("GET {path} HTTP/1.1")).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap();
        (status.to_owned(), body.to_owned())
    }

    async fn serving() -> (SocketAddr, Health, Shutdown) {
        let listener = bind("127.0.0.1:0").await.unwrap();
        let address = listener.address();
        let (telemetry, shutdown) = (Telemetry::default(), Shutdown::new());
        tokio::spawn(listener.serve(telemetry.clone(), shutdown.clone()));
        (address, telemetry.health, shutdown)
    }

    #[tokio::test]
    async fn readyz_reports_the_awaited_condition_and_fails_during_shutdown() {
        let (address, health, shutdown) = serving().await;
        health.set_not_ready("waiting for the CRDs: widgets");
        let not_ready = ("503".to_owned(), "waiting for the CRDs: widgets\n".to_owned());
        assert_eq!(status_and_body(address, "/readyz").await, not_ready);
        assert_eq!(status_and_body(address, "/healthz").await.0, "200");
        health.set_ready();
        assert_eq!(status_and_body(address, "/readyz").await, ("200".into(), "ok\n".into()));
        shutdown.request();
        let stopping = ("503".to_owned(), "shutting down\n".to_owned());
        assert_eq!(status_and_body(address, "/readyz").await, stopping);
        assert_eq!(status_and_body(address, "/healthz").await.0, "200");
    }

    #[tokio::test]
    async fn healthz_lists_every_failed_liveness_check() {
        let (address, health, _) = serving().await;
        health.add_liveness_check(Box::new(|| Ok(())));
        health.add_liveness_check(Box::new(|| Err("the queue is stuck".to_owned())));
        health.add_liveness_check(Box::new(|| Err("the watch is stuck".to_owned())));
        let dead = ("503".to_owned(), "the queue is stuck\nthe watch is stuck\n".to_owned());
        assert_eq!(status_and_body(address, "/healthz").await, dead);
    }

    #[tokio::test]
    async fn metrics_are_openmetrics_and_unknown_paths_list_the_endpoints() {
        let (address, ..) = serving().await;
        let scraped = ask(address, "GET /metrics HTTP/1.1").await;
        assert!(
            scraped.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"),
            "{scraped}"
        );
        assert!(scraped.ends_with("# EOF\n"), "{scraped}");
        let unknown = (
            "404".to_owned(),
            "not found: use /healthz, /readyz or /metrics\n".to_owned(),
        );
        assert_eq!(status_and_body(address, "/").await, unknown);
        let posted = ask(address, "POST /metrics HTTP/1.1").await;
        assert!(posted.starts_with("HTTP/1.1 405 "), "{posted}");
        assert!(posted.contains("allow: GET, HEAD\r\n"), "{posted}");
        let head = ask(address, "HEAD /healthz HTTP/1.1").await;
        assert!(
            head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"),
            "{head}"
        );
    }

    #[tokio::test]
    async fn an_invalid_or_used_address_gets_an_error_with_a_remedy() {
        for wrong in ["8080", ":8080", "localhost:8080", "127.0.0.1", "127.0.0.1:99999"] {
            let error = bind(wrong).await.unwrap_err().to_string();
            assert_eq!(
                error,
                format!("{wrong:?} is not a listen address: use ADDRESS:PORT, such as [::]:8080 or 127.0.0.1:8080")
            );
        }
        let first = bind("127.0.0.1:0").await.unwrap();
        let taken = first.address().to_string();
        let error = bind(&taken).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot listen on {taken}: ")), "{error}");
        assert!(
            error.ends_with("another process uses this address: stop it, or choose another port"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn idle_clients_do_not_block_others_for_long() {
        tokio::time::pause();
        let (address, ..) = serving().await;
        let mut idle = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            idle.push(TcpStream::connect(address).await.unwrap());
        }
        let start = tokio::time::Instant::now();
        assert_eq!(status_and_body(address, "/healthz").await.0, "200");
        assert!(
            start.elapsed() <= HEADER_TIMEOUT + Duration::from_secs(1),
            "{:?}",
            start.elapsed()
        );
    }
}
