//! A Kubernetes client for operators: each request has a deadline and a `User-Agent` and is counted. No request is
//! repeated without the caller.
//!
//! The retry layer of kube repeats any verb for up to minutes, even a POST after a 504. The caller then gets "already
//! exists" for its own object, possibly long after another replica has taken the lease. Here the caller decides about
//! retries.

use std::{sync::Arc, time::Duration};

use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use kube::{
    Client, Config,
    client::Body,
    core::{Status, response::StatusDetails},
};

use crate::{clock::ServerClock, requests::RequestMetrics};

/// Deadline for the head of a response. It is longer than a slow server needs and shorter than a leader lease.
pub const RESPONSE_DEADLINE: Duration = Duration::from_secs(10);
/// Maximum number of bytes that are read of an error response.
const MAX_REFUSAL: usize = 64 * 1024;

/// Failure to create a client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// There is neither a kubeconfig nor a service account.
    #[error("no cluster is configured: set KUBECONFIG, or run in a pod with a service account ({0})")]
    Config(#[from] kube::config::InferConfigError),
    /// The configuration is not valid.
    #[error("the cluster's configuration cannot be used: {0}")]
    Client(#[from] kube::Error),
}

/// Makes aws-lc-rs the TLS provider of the process. Does nothing when a provider is set already, for instance by a
/// library.
fn install_crypto_provider() {
    let _already_set = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// Creates a client from the environment: `KUBECONFIG`, `~/.kube/config`, or the service account of the pod. Requests
/// of this client have no deadline yet. See [`RequestPolicy::wrap`].
///
/// # Errors
/// When no cluster is configured, or its configuration is not valid.
pub async fn connect() -> Result<Client, ConnectError> {
    install_crypto_provider();
    let mut config = Config::infer().await?;
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_secs(5));
    Ok(Client::try_from(config)?)
}

/// Settings for all requests of a process.
#[derive(Clone, Debug)]
pub struct RequestPolicy {
    /// Value of the header `User-Agent`.
    pub user_agent: HeaderValue,
    /// Deadline for the head of a response. The body of a watch has no deadline.
    pub deadline: Duration,
    /// Counters of the requests.
    pub requests: RequestMetrics,
    /// Learns the time of the server from its answers.
    pub clock: Arc<ServerClock>,
}

impl RequestPolicy {
    /// Returns the client with this policy applied to each request.
    #[must_use]
    pub fn wrap(&self, client: Client) -> Client {
        let namespace = client.default_namespace().to_owned();
        let policy = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let (client, policy) = (client.clone(), policy.clone());
            async move { policy.send(&client, request).await }
        });
        Client::new(service, namespace)
    }

    async fn send(&self, client: &Client, mut request: Request<Body>) -> Result<Response<Body>, tower::BoxError> {
        request
            .headers_mut()
            .insert(header::USER_AGENT, self.user_agent.clone());
        #[cfg(feature = "traces")]
        crate::traces::inject(request.headers_mut());
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let in_flight = self.requests.begin(&method, &uri);
        let answer = match tokio::time::timeout(self.deadline, client.send(request)).await {
            Ok(answer) => answer.map_err(tower::BoxError::from),
            Err(_) => Err(NoAnswer {
                request: format!("{method} {}", uri.path()),
                deadline: self.deadline,
            }
            .into()),
        };
        in_flight.end(answer.as_ref().ok().map(Response::status));
        let answer = answer?;
        self.clock.observe(answer.headers().get(header::DATE));
        match retry_after(&answer) {
            Some(seconds) => Err(kube::Error::Api(Box::new(refusal(answer, seconds, self.deadline).await)).into()),
            None => Ok(answer),
        }
    }
}

/// Returns the seconds in the header `Retry-After` of a 429 or 503.
///
/// Priority and fairness, and proxies in front of the server, answer in plain text. Then only the header holds the
/// delay, and kube keeps only the body.
fn retry_after(answer: &Response<Body>) -> Option<u32> {
    let refuses = matches!(
        answer.status(),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
    );
    let value = answer.headers().get(header::RETRY_AFTER).filter(|_| refuses)?;
    // No API server sends the other form of this header, a date.
    value.to_str().ok()?.trim().parse().ok()
}

/// Returns the error of the server with the delay from its header `Retry-After`.
async fn refusal(answer: Response<Body>, seconds: u32, deadline: Duration) -> Status {
    let code = answer.status();
    let body = tokio::time::timeout(deadline, Limited::new(answer.into_body(), MAX_REFUSAL).collect()).await;
    let body = body.ok().and_then(Result::ok).map(|body| body.to_bytes());
    let body = body.unwrap_or_default();
    let mut status: Status = serde_json::from_slice(&body).unwrap_or_else(|_| {
        let said = String::from_utf8_lossy(&body);
        let said = said.trim();
        let message = if said.is_empty() {
            code.canonical_reason().unwrap_or_default()
        } else {
            said
        };
        Status::failure(message, "").with_code(code.as_u16())
    });
    let details = status.details.get_or_insert_with(|| StatusDetails {
        name: String::new(),
        group: String::new(),
        kind: String::new(),
        uid: String::new(),
        causes: Vec::new(),
        retry_after_seconds: 0,
    });
    details.retry_after_seconds = details.retry_after_seconds.max(seconds);
    status
}

/// The API server did not answer before the deadline. It may or may not have executed the request.
#[derive(Debug, thiserror::Error)]
#[error("{request}: no answer within {deadline:?}")]
struct NoAnswer {
    request: String,
    deadline: Duration,
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use k8s_openapi::api::core::v1::Pod;
    use kube::Api;

    use super::*;
    use crate::{
        clock::SystemClock,
        metrics::Metrics,
        retry::{ErrorClass, classify},
    };

    fn policy() -> RequestPolicy {
        RequestPolicy {
            user_agent: HeaderValue::from_static("tool/1.2.3"),
            deadline: RESPONSE_DEADLINE,
            requests: RequestMetrics::new(&["pods"]),
            clock: Arc::new(ServerClock::new(Arc::new(SystemClock))),
        }
    }

    fn answering(answer: impl Fn(&Request<Body>) -> Response<Body> + Send + 'static) -> Client {
        let service = tower::service_fn(move |request: Request<Body>| {
            let answer = answer(&request);
            async move { Ok::<_, Infallible>(answer) }
        });
        Client::new(service, "default")
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_without_an_answer_fails_at_the_deadline() {
        let unresponsive = tower::service_fn(|_: http::Request<Body>| {
            std::future::pending::<Result<http::Response<Body>, tower::BoxError>>()
        });
        let policy = policy();
        let client = policy.wrap(Client::new(unresponsive, "default"));
        let start = tokio::time::Instant::now();
        let error = Api::<Pod>::default_namespaced(client).get("a").await.unwrap_err();
        assert_eq!(start.elapsed(), RESPONSE_DEADLINE);
        assert_eq!(classify(&error), ErrorClass::Transient);
        assert!(
            error
                .to_string()
                .contains("GET /api/v1/namespaces/default/pods/a: no answer within 10s"),
            "{error}"
        );
        let metrics = Metrics::default();
        metrics.register(|registry| policy.requests.register(registry, "tool"));
        let text = metrics.encode().unwrap();
        let counted = "tool_api_requests_total{verb=\"get\",resource=\"pods\",subresource=\"\",code=\"none\"} 1\n";
        assert!(text.contains(counted), "{text}");
    }

    #[tokio::test]
    async fn each_request_has_the_user_agent_header() {
        let client = policy().wrap(answering(|request| {
            assert_eq!(request.headers()[header::USER_AGENT], "tool/1.2.3");
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }));
        let found = Api::<Pod>::default_namespaced(client).get_opt("a").await;
        assert!(matches!(found, Err(kube::Error::Api(status)) if status.code == 404));
    }

    /// Priority and fairness answer in plain text. Other parts of the server answer with a Status without the delay.
    #[tokio::test]
    async fn the_retry_after_header_is_used_with_any_body() {
        let bodies = [
            "Too many requests, please try again later.\n",
            r#"{"kind":"Status","status":"Failure","message":"Too many requests, please try again later.","code":429}"#,
        ];
        for (code, body) in [(429, bodies[0]), (429, bodies[1]), (503, bodies[0])] {
            let client = policy().wrap(answering(move |_| {
                Response::builder()
                    .status(code)
                    .header(header::RETRY_AFTER, "7")
                    .body(Body::from(body.as_bytes().to_vec()))
                    .unwrap()
            }));
            let error = Api::<Pod>::default_namespaced(client).get("a").await.unwrap_err();
            assert_eq!(
                classify(&error),
                ErrorClass::Throttled(Some(Duration::from_secs(7))),
                "{code} {body}"
            );
            assert!(error.to_string().contains("please try again later"), "{error}");
        }
    }
}
