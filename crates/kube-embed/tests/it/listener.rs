//! Tests of the listener through real sockets.

use k8s_openapi::api::core::v1::Namespace;
use kube::api::Api;
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::support::*;

#[tokio::test]
async fn only_a_client_with_the_token_is_authorized() {
    let server = server().await;
    let endpoint = server.listen("127.0.0.1:0".parse().unwrap(), None).await.unwrap();
    let kubeconfig = Kubeconfig::from_yaml(&endpoint.kubeconfig("test", "default")).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap();
    let namespaces: Api<Namespace> = Api::all(kube::Client::try_from(config).unwrap());
    assert!(namespaces.get("default").await.is_ok());

    let certificate = reqwest::Certificate::from_pem(endpoint.certificate().as_bytes()).unwrap();
    let http = reqwest::Client::builder()
        .tls_certs_only([certificate])
        .build()
        .unwrap();
    let url = endpoint.url();
    for token in [None, Some("wrong"), Some("")] {
        let mut request = http.get(format!("{url}/api/v1/namespaces"));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 401, "{token:?}");
        let status: serde_json::Value = answer.json().await.unwrap();
        assert_eq!(status["reason"], "Unauthorized");
    }
    assert_eq!(
        http.get(format!("{url}/readyz")).send().await.unwrap().status(),
        200,
        "probes need no token"
    );

    let watch = http
        .get(format!("{url}/api/v1/namespaces?watch=true"))
        .bearer_auth(endpoint.token())
        .send()
        .await
        .unwrap();
    server.shutdown().await;
    assert!(
        watch.text().await.unwrap().contains("\"ADDED\""),
        "the stream ends without an error"
    );
    endpoint.closed().await;
    assert!(http.get(format!("{url}/readyz")).send().await.is_err());
}

#[tokio::test]
async fn only_loopback_addresses_are_accepted() {
    let server = server().await;
    let error = server.listen("0.0.0.0:0".parse().unwrap(), None).await.err().unwrap();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("use 127.0.0.1 or ::1"), "{error}");
}
