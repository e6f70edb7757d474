//! HTTPS on a loopback address.
//!
//! Every user of a machine can reach its loopback addresses, so each request must contain a bearer token. Every user
//! can also listen on a port that has become free, so clients must verify the server before they send the token. The
//! server therefore generates a certificate, and the kubeconfig pins it. (Without TLS, kubectl sends no token at all.)

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{Request, Response, header};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

use crate::api::body::{self, ResponseBody};
use crate::api::service::ApiService;
use crate::status::ApiError;

/// The address of a listening server, with the credentials that a client needs.
#[derive(Clone)]
pub struct Endpoint {
    address: SocketAddr,
    token: Arc<str>,
    certificate: Arc<str>,
    connections: TaskTracker,
}

impl Endpoint {
    /// Returns the address with the actual port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the server's URL.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Returns the bearer token that every request must contain.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Returns the certificate to trust, in PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Returns a kubeconfig for this server in JSON, a subset of YAML. Write it with mode 0600, because it contains
    /// the token.
    pub fn kubeconfig(&self, name: &str, namespace: &str) -> String {
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": {
                "server": self.url(), "certificate-authority-data": STANDARD.encode(&*self.certificate),
            }}],
            "users": [{"name": name, "user": {"token": &*self.token}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": namespace}}],
            "current-context": name,
        });
        format!("{config:#}\n")
    }

    /// Waits until the last connection is closed. Call it after the server has been stopped.
    pub async fn closed(&self) {
        self.connections.close();
        self.connections.wait().await;
    }
}

/// The time limit of a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Generates a key for this process and a certificate for it.
fn identity() -> Result<(ServerConfig, String), Box<dyn std::error::Error + Send + Sync>> {
    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(names)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok((config, cert.pem()))
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
                "{} is not a loopback address. This server is for one machine: use 127.0.0.1 or ::1",
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
    let (tls, certificate) = identity().map_err(std::io::Error::other)?;
    let tls = TlsAcceptor::from(Arc::new(tls));
    let endpoint = Endpoint {
        address: listener.local_addr()?,
        token: Arc::from(token),
        certificate: Arc::from(certificate),
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
                        // Usually out of file descriptors. Open connections continue, and the next accept may succeed.
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                },
            };
            // Small responses should not wait for the client's acknowledgement of the previous one.
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "cannot set TCP_NODELAY");
            }
            let authenticated = Authenticated {
                inner: service.clone(),
                expected: Arc::from(format!("Bearer {}", accepted.token)),
            };
            let (stopping, tls) = (stopping.clone(), tls.clone());
            accepted.connections.spawn(async move {
                let handshake = tokio::time::timeout(HANDSHAKE, tls.accept(stream));
                let stream = match stopping.run_until_cancelled(handshake).await {
                    Some(Ok(Ok(stream))) => stream,
                    Some(Ok(Err(error))) => return tracing::debug!(%error, "a TLS handshake failed"),
                    Some(Err(_)) => return tracing::debug!("a TLS handshake took too long"),
                    None => return,
                };
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

/// A service that refuses requests without the token.
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
        // Probes reveal nothing about objects. Everywhere, probes come without credentials.
        let open = matches!(request.uri().path(), "/healthz" | "/livez" | "/readyz");
        if open || constant_time_eq(given, self.expected.as_bytes()) {
            Box::pin(self.inner.call(request))
        } else {
            let error = ApiError::new(401, "Unauthorized", "Unauthorized");
            Box::pin(async move { Ok(body::error(&error)) })
        }
    }
}

/// Compares in constant time, so that the duration does not reveal the position of the first difference.
fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |acc, (x, y)| acc | (x ^ y)) == 0
}
