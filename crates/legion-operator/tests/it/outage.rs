//! An API server that goes on failing at one kind of request: the status says so, and nothing is lost.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{Request, Response};
use kube::{Client, ResourceExt as _, client::Body};
use legion_testkit::{
    cluster::{Cluster, StartProcess},
    manifests::{self, NAMESPACE},
};
use serde_json::json;

use crate::support::{LIMIT, logs, operator, reason, succeeded};

/// What fails, and how.
#[derive(Clone, Copy, Debug)]
struct Outage {
    method: &'static str,
    path: &'static str,
    code: u16,
    message: &'static str,
    /// What the status says meanwhile.
    reason: &'static str,
}

const OUTAGES: [Outage; 4] = [
    Outage {
        method: "POST",
        path: "/pods",
        code: 500,
        message: "Internal error occurred: failed calling webhook \"mutate.example.com\": connection refused",
        reason: "ApiUnavailable",
    },
    Outage {
        method: "POST",
        path: "/pods",
        code: 403,
        message: "pods is forbidden: User \"legion\" cannot create resource \"pods\" in API group \"\" in the namespace \"team\"",
        reason: "Forbidden",
    },
    Outage {
        method: "GET",
        path: "/configmaps/wine-source",
        code: 503,
        message: "the server is currently unable to handle the request",
        reason: "ApiUnavailable",
    },
    Outage {
        method: "GET",
        path: "/configmaps/wine-source",
        code: 403,
        message: "configmaps \"wine-source\" is forbidden: User \"legion\" cannot get resource \"configmaps\"",
        reason: "Forbidden",
    },
];

const QUOTA: Outage = Outage {
    method: "POST",
    path: "/pods",
    code: 403,
    message: "pods \"wine\" is forbidden: exceeded quota: small, requested: cpu=1, used: cpu=1, limited: cpu=1",
    reason: "QuotaExceeded",
};

/// The operator, whose requests meet the outage while `lasts`.
fn operator_behind(outage: Outage, lasts: Arc<AtomicBool>) -> StartProcess {
    let start = operator();
    Arc::new(move |client: Client, clock| {
        let lasts = lasts.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let client = client.clone();
            let fails = lasts.load(Ordering::Relaxed)
                && request.method() == outage.method
                && request.uri().path().ends_with(outage.path);
            async move {
                if !fails {
                    return client.send(request).await;
                }
                let status = json!({
                    "apiVersion": "v1", "kind": "Status", "status": "Failure",
                    "message": outage.message, "reason": "", "code": outage.code,
                });
                let body = Body::from(status.to_string().into_bytes());
                Ok(Response::builder()
                    .status(outage.code)
                    .body(body)
                    .expect("a status code and a body"))
            }
        });
        start(Client::new(service, NAMESPACE), clock)
    })
}

#[tokio::test(start_paused = true)]
async fn is_reported_within_five_seconds_and_heals() {
    logs();
    for outage in OUTAGES {
        let lasts = Arc::new(AtomicBool::new(true));
        let mut cluster = Cluster::new(operator_behind(outage, lasts.clone())).await;
        cluster.furnish().await;
        cluster.start();
        cluster.settle(Duration::from_secs(1)).await;
        cluster.create(&manifests::training("wine")).await;
        cluster.settle(Duration::from_secs(5)).await;
        let training = cluster.training("wine").await;
        assert_eq!(reason(&training), outage.reason, "{outage:?}");
        let status = training.status.unwrap();
        assert_eq!(status.observed_generation, Some(1), "{outage:?}");
        assert!(
            status.conditions[0].message.contains(outage.message),
            "{outage:?}: {}",
            status.conditions[0].message
        );
        // However long it lasts, it is reported once.
        let version = training.metadata.resource_version;
        cluster.settle(Duration::from_secs(1800)).await;
        assert_eq!(
            cluster.training("wine").await.metadata.resource_version,
            version,
            "{outage:?}"
        );
        lasts.store(false, Ordering::Relaxed);
        succeeded(cluster.wait_for("wine", "True", LIMIT).await);
        assert_eq!(
            cluster.agents.ledger().finished.values().sum::<usize>(),
            1,
            "{outage:?}"
        );
        assert_eq!(cluster.history.violations(), Vec::<String>::new(), "{outage:?}");
        cluster.shutdown().await;
    }
}

/// A ResourceQuota that refuses the pod: tried again when a pod of the namespace ends, long before the timer.
#[tokio::test(start_paused = true)]
async fn of_quota_is_over_when_another_pod_ends() {
    logs();
    let lasts = Arc::new(AtomicBool::new(false));
    let mut cluster = Cluster::new(operator_behind(QUOTA, lasts.clone())).await;
    cluster.furnish().await;
    cluster.start();
    cluster.create(&manifests::training("first")).await;
    cluster.settle(Duration::from_secs(20)).await;
    lasts.store(true, Ordering::Relaxed);
    cluster.create(&manifests::training("wine")).await;
    let created = tokio::time::Instant::now();
    cluster.settle(Duration::from_secs(5)).await;
    let training = cluster.training("wine").await;
    assert_eq!(reason(&training), QUOTA.reason);
    let message = &training.status.unwrap().conditions[0].message;
    assert!(message.contains("exceeds ResourceQuota small"), "{message}");
    lasts.store(false, Ordering::Relaxed);
    succeeded(cluster.wait_for("first", "True", LIMIT).await);
    // The quota controller has a second to count the ended pod.
    cluster.settle(Duration::from_secs(2)).await;
    assert!(
        created.elapsed() < Duration::from_secs(25),
        "{:?}: the timer",
        created.elapsed()
    );
    let pods = cluster.pods().await;
    let is_its = |pod: &k8s_openapi::api::core::v1::Pod| pod.name_any().starts_with("wine-");
    assert!(pods.iter().any(is_its), "the end of the other pod went unnoticed");
    succeeded(cluster.wait_for("wine", "True", LIMIT).await);
    cluster.shutdown().await;
}
