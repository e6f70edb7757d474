//! Many trainings under a small ResourceQuota: each runs in its turn, and few requests are refused.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{Request, Response};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, api::ListParams, client::Body};
use legion_testkit::{
    cluster::{Cluster, StartProcess},
    manifests::{self, NAMESPACE},
};
use serde_json::json;
use tokio::sync::Mutex as AsyncMutex;

use crate::support::{logs, operator, reason};

/// A ResourceQuota on the number of pods. It refuses as the admission plugin of the API server does, and counts the
/// refusals by training.
#[derive(Clone)]
struct Quota {
    pods: Arc<Mutex<usize>>,
    /// One creation at a time, as for the API server's quota document.
    turn: Arc<AsyncMutex<()>>,
    refusals: Arc<Mutex<BTreeMap<String, usize>>>,
    created: Arc<Mutex<Vec<String>>>,
}

impl Quota {
    fn new(pods: usize) -> Self {
        Self {
            pods: Arc::new(Mutex::new(pods)),
            turn: Arc::default(),
            refusals: Arc::default(),
            created: Arc::default(),
        }
    }

    fn total(&self) -> usize {
        self.refusals.lock().expect("no test panics with it").values().sum()
    }

    async fn create(&self, client: &Client, request: Request<Body>) -> Result<Response<Body>, tower::BoxError> {
        let _turn = self.turn.lock().await;
        let (parts, body) = request.into_parts();
        let body = body.collect_bytes().await?;
        let pod: Pod = serde_json::from_slice(&body)?;
        let training = pod.metadata.labels.unwrap_or_default()["legion-platform.org/training"].clone();
        let pods = Api::<Pod>::namespaced(client.clone(), NAMESPACE)
            .list(&ListParams::default())
            .await?;
        let counts = |pod: &&Pod| {
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            !matches!(phase, Some("Succeeded" | "Failed"))
        };
        let (used, hard) = (
            pods.items.iter().filter(counts).count(),
            *self.pods.lock().expect("no test panics with it"),
        );
        if used < hard {
            self.created.lock().expect("no test panics with it").push(training);
            return Ok(client.send(Request::from_parts(parts, Body::from(body))).await?);
        }
        let name = pod.metadata.name.unwrap_or_default();
        *self
            .refusals
            .lock()
            .expect("no test panics with it")
            .entry(training)
            .or_default() += 1;
        let status = json!({
            "apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": "Forbidden", "code": 403,
            "message": format!(
                "pods {name:?} is forbidden: exceeded quota: few, requested: pods=1, used: pods={used}, limited: pods={hard}"
            ),
        });
        Ok(Response::builder()
            .status(403)
            .body(Body::from(status.to_string().into_bytes()))?)
    }

    /// The operator, whose pods this quota counts.
    fn in_front_of_the_operator(&self) -> StartProcess {
        let (quota, start) = (self.clone(), operator());
        Arc::new(move |client: Client, clock| {
            let quota = quota.clone();
            let service = tower::service_fn(move |request: Request<Body>| {
                let (client, quota) = (client.clone(), quota.clone());
                async move {
                    if request.method() == "POST" && request.uri().path().ends_with("/pods") {
                        return quota.create(&client, request).await;
                    }
                    Ok::<_, tower::BoxError>(client.send(request).await?)
                }
            });
            start(Client::new(service, NAMESPACE), clock)
        })
    }
}

/// Starts an operator behind the quota.
async fn started(quota: &Quota) -> Cluster {
    logs();
    let mut cluster = Cluster::new(quota.in_front_of_the_operator()).await;
    cluster.furnish().await;
    cluster.start();
    cluster.settle(Duration::from_secs(1)).await;
    cluster
}

#[tokio::test(start_paused = true)]
async fn forty_trainings_under_a_quota_of_four_pods_are_refused_twice_at_most() {
    let (many, hard) = (40, 4);
    let quota = Quota::new(hard);
    let cluster = started(&quota).await;
    let name = |i: usize| format!("wine-{i:04}");
    let began = tokio::time::Instant::now();
    for i in 0..many {
        cluster.create(&manifests::training(&name(i))).await;
    }
    for i in 0..many {
        cluster
            .wait_for(&name(i), "True", Duration::from_secs(100_000))
            .await
            .unwrap_or_else(|training| panic!("{} has not succeeded: {}", name(i), reason(&training)));
    }
    let refusals = quota.refusals.lock().expect("no test panics with it").clone();
    let worst = refusals.iter().max_by_key(|(_, count)| **count);
    assert!(worst.is_none_or(|(_, count)| *count <= 2), "{worst:?}");
    assert!(quota.total() <= many, "{} refusals: {refusals:?}", quota.total());
    assert!(quota.total() >= many - hard, "the quota has refused nothing");
    // Room is used soon: an attempt takes about 35 seconds, and the next one follows within five.
    let rounds = u64::try_from(many.div_ceil(hard)).unwrap();
    assert!(
        began.elapsed() < Duration::from_secs(rounds * 45 + 60),
        "{:?} for {rounds} rounds",
        began.elapsed()
    );
    assert_eq!(cluster.history.violations(), Vec::<String>::new());
    cluster.shutdown().await;
}

/// The status of a waiting training is rewritten neither by its turns nor by the timer. A raised quota is noticed by
/// the timer, and then used immediately and in order.
#[tokio::test(start_paused = true)]
async fn a_raised_quota_is_used_in_the_order_of_waiting() {
    let quota = Quota::new(0);
    let cluster = started(&quota).await;
    let names = ["c", "a", "b"];
    for name in names {
        cluster.create(&manifests::training(name)).await;
        cluster.settle(Duration::from_secs(3)).await;
        assert_eq!(reason(&cluster.training(name).await), "QuotaExceeded");
    }
    let version = cluster.training("c").await.metadata.resource_version;
    let before = quota.total();
    cluster.settle(Duration::from_secs(3600)).await;
    assert_eq!(cluster.training("c").await.metadata.resource_version, version);
    let asked = quota.total() - before;
    assert!(
        (6..=12).contains(&asked),
        "{asked} requests in an hour, by the timer alone"
    );
    *quota.pods.lock().expect("no test panics with it") = 8;
    for name in names {
        let done = cluster.wait_for(name, "True", Duration::from_secs(700)).await;
        done.unwrap_or_else(|training| panic!("{name}: {}", reason(&training)));
    }
    assert_eq!(*quota.created.lock().expect("no test panics with it"), names);
    cluster.shutdown().await;
}

/// A changed spec may need less: it does not wait for its turn.
#[tokio::test(start_paused = true)]
async fn a_changed_training_asks_immediately() {
    let quota = Quota::new(0);
    let cluster = started(&quota).await;
    for name in ["a", "b"] {
        cluster.create(&manifests::training(name)).await;
        cluster.settle(Duration::from_secs(3)).await;
    }
    *quota.pods.lock().expect("no test panics with it") = 1;
    cluster
        .patch::<legion_api::ModelTraining>("b", json!({"spec": {"resources": {"requests": {"cpu": "1m"}}}}))
        .await;
    cluster.settle(Duration::from_secs(2)).await;
    assert_eq!(*quota.created.lock().expect("no test panics with it"), ["b"]);
    cluster.shutdown().await;
}
