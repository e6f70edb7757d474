//! A Kubernetes client whose requests always end, are never repeated behind the caller's back, say who asks, and are
//! counted.
//!
//! kube's own retry layer repeats any verb for up to minutes, a POST after a 504 included; the caller then meets its own
//! object as "already exists", long after its lease may have passed to somebody else. Here the caller decides.

use std::time::Duration;

use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use kube::{
    Client, Config,
    client::Body,
    core::{Status, response::StatusDetails},
};

use crate::requests::RequestMetrics;

/// How long the head of any answer may take: longer than a slow server needs, shorter than a leader lease.
pub const RESPONSE_DEADLINE: Duration = Duration::from_secs(10);
/// More of a refusal than this is not read.
const MAX_REFUSAL: usize = 64 * 1024;

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Neither a kubeconfig nor a service account says where the cluster is.
    #[error("no cluster is configured: set KUBECONFIG, or run in a pod with a service account ({0})")]
    Config(#[from] kube::config::InferConfigError),
    /// The configuration cannot be used.
    #[error("the cluster's configuration cannot be used: {0}")]
    Client(#[from] kube::Error),
}

/// Makes aws-lc-rs the process's TLS provider. Does nothing when one is set already: a library may have done the same.
pub fn install_crypto_provider() {
    let _already_set = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// A client of the cluster that the environment names: `KUBECONFIG`, `~/.kube/config`, or the pod's service account. Its
/// requests have no deadline yet: see [`RequestPolicy::wrap`].
///
/// # Errors
/// When no cluster is configured, or its configuration cannot be used.
pub async fn connect() -> Result<Client, ConnectError> {
    install_crypto_provider();
    let mut config = Config::infer().await?;
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_secs(5));
    Ok(Client::try_from(config)?)
}

/// How the requests of a process behave.
#[derive(Clone, Debug)]
pub struct RequestPolicy {
    /// Who asks: the header `User-Agent`.
    pub user_agent: HeaderValue,
    /// How long the head of any answer may take. The bodies of watches may still go on for ever.
    pub deadline: Duration,
    /// Counts them.
    pub requests: RequestMetrics,
}

impl RequestPolicy {
    /// The same client, with this policy.
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
        match retry_after(&answer) {
            Some(seconds) => Err(kube::Error::Api(Box::new(refusal(answer, seconds, self.deadline).await)).into()),
            None => Ok(answer),
        }
    }
}

/// What the server asks for in the header of a refusal. Priority and fairness, and proxies before the server, refuse in
/// plain text: the header alone says how long to wait, and kube passes on the body alone.
fn retry_after(answer: &Response<Body>) -> Option<u32> {
    let refuses = matches!(
        answer.status(),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
    );
    let value = answer.headers().get(header::RETRY_AFTER).filter(|_| refuses)?;
    // The other form, a date, is used by no API server.
    value.to_str().ok()?.trim().parse().ok()
}

/// The refusal as the server words it, with the time that its header asks for.
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

/// The API server did not answer in time. Whether it acted is unknown.
#[derive(Debug, thiserror::Error)]
#[error("{request}: no answer within {deadline:?}")]
pub struct NoAnswer {
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
        metrics::Metrics,
        retry::{ErrorClass, classify},
    };

    fn policy() -> RequestPolicy {
        RequestPolicy {
            user_agent: HeaderValue::from_static("tool/1.2.3"),
            deadline: RESPONSE_DEADLINE,
            requests: RequestMetrics::new(&["pods"]),
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
    async fn a_request_that_is_never_answered_ends_at_the_deadline() {
        let silent = tower::service_fn(|_: http::Request<Body>| {
            std::future::pending::<Result<http::Response<Body>, tower::BoxError>>()
        });
        let policy = policy();
        let client = policy.wrap(Client::new(silent, "default"));
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
    async fn the_server_is_told_who_asks() {
        let client = policy().wrap(answering(|request| {
            assert_eq!(request.headers()[header::USER_AGENT], "tool/1.2.3");
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }));
        let found = Api::<Pod>::default_namespaced(client).get_opt("a").await;
        assert!(matches!(found, Err(kube::Error::Api(status)) if status.code == 404));
    }

    /// Priority and fairness refuse in plain text, and other parts of the server with a Status that lacks the time.
    #[tokio::test]
    async fn the_header_says_how_long_to_wait_whatever_the_body_is() {
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
