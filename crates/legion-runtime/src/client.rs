//! A Kubernetes client whose requests always end, and are never repeated behind the caller's back.
//!
//! kube's own retry layer repeats any verb for up to minutes, a POST after a 504 included; the caller then meets its own
//! object as "already exists", long after its lease may have passed to somebody else. Here the caller decides.

use std::time::Duration;

use kube::{Client, Config, client::Body};

/// How long the head of any answer may take: longer than a slow server needs, shorter than a leader lease.
pub const RESPONSE_DEADLINE: Duration = Duration::from_secs(10);

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

/// A client of the cluster that the environment names: `KUBECONFIG`, `~/.kube/config`, or the pod's service account.
///
/// # Errors
/// When no cluster is configured, or its configuration cannot be used.
pub async fn connect() -> Result<Client, ConnectError> {
    install_crypto_provider();
    let mut config = Config::infer().await?;
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_secs(5));
    Ok(bounded(Client::try_from(config)?, RESPONSE_DEADLINE))
}

/// The same client, with a deadline for the head of every answer. The bodies of watches may still go on for ever.
#[must_use]
pub fn bounded(client: Client, deadline: Duration) -> Client {
    let namespace = client.default_namespace().to_owned();
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let client = client.clone();
        async move {
            let what = format!("{} {}", request.method(), request.uri().path());
            match tokio::time::timeout(deadline, client.send(request)).await {
                Ok(answer) => answer.map_err(tower::BoxError::from),
                Err(_) => Err(NoAnswer { what, deadline }.into()),
            }
        }
    });
    Client::new(service, namespace)
}

/// The API server did not answer in time. Whether it acted is unknown.
#[derive(Debug, thiserror::Error)]
#[error("{what}: no answer within {deadline:?}")]
pub struct NoAnswer {
    what: String,
    deadline: Duration,
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use kube::Api;

    use super::*;
    use crate::retry::{Class, classify};

    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_never_answered_ends_at_the_deadline() {
        let silent = tower::service_fn(|_: http::Request<Body>| {
            std::future::pending::<Result<http::Response<Body>, tower::BoxError>>()
        });
        let client = bounded(Client::new(silent, "default"), RESPONSE_DEADLINE);
        let start = tokio::time::Instant::now();
        let error = Api::<Pod>::default_namespaced(client).get("a").await.unwrap_err();
        assert_eq!(start.elapsed(), RESPONSE_DEADLINE);
        assert_eq!(classify(&error), Class::Transient);
        assert!(
            error
                .to_string()
                .contains("GET /api/v1/namespaces/default/pods/a: no answer within 10s"),
            "{error}"
        );
    }
}
