//! A lost status, a restore from a backup, and a clock that is wrong.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{api::events::v1::Event, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use legion_api::ModelTraining;
use legion_runtime::{Clock, Shutdown};
use legion_testkit::{
    agent::Behavior,
    cluster::{Cluster, StartProcess},
    manifests::{self, NAMESPACE},
};
use serde_json::{Value, json};

use crate::support::{LIMIT, furnished, logs, reason, settings, succeeded};

fn trainings(cluster: &Cluster) -> Api<ModelTraining> {
    cluster.api(NAMESPACE)
}

async fn patch_status(cluster: &Cluster, name: &str, status: &Value) {
    let patch = Patch::Merge(json!({ "status": status }));
    let written = trainings(cluster)
        .patch_status(name, &PatchParams::default(), &patch)
        .await;
    written.expect("the status is accepted");
}

/// Returns how often the training code of each training was started.
fn starts(cluster: &Cluster) -> usize {
    cluster.agents.ledger().started.values().sum()
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_status_is_removed_goes_on() {
    let cluster = furnished().await;
    let failing = Behavior {
        exit_code: 3,
        ..Behavior::default()
    };
    let long = Behavior {
        train: Duration::from_secs(300),
        ..Behavior::default()
    };
    cluster.agents.behave([failing, long]);
    let mut training = manifests::training("wine");
    training.spec.retries = 2;
    cluster.create(&training).await;
    cluster.settle(Duration::from_secs(90)).await;
    let before = cluster.training("wine").await.status.unwrap().run.unwrap();
    assert_eq!(
        (before.attempt, reason(&cluster.training("wine").await)),
        (2, "Training".to_owned())
    );
    patch_status(&cluster, "wine", &json!({"run": null})).await;
    let after = succeeded(cluster.wait_for("wine", "True", LIMIT).await).status.unwrap();
    let run = after.run.unwrap();
    assert_eq!((run.id, run.sequence, run.attempt), (before.id, 1, 2));
    assert_eq!(starts(&cluster), 2, "nothing trains again");
    // And so it is when it has succeeded and its pod still exists.
    patch_status(&cluster, "wine", &json!({"run": null})).await;
    cluster.settle(Duration::from_secs(900)).await;
    assert_eq!(reason(&cluster.training("wine").await), "RunSucceeded");
    assert_eq!(starts(&cluster), 2, "nothing trains again");
    assert_eq!(cluster.pods().await.len(), 0, "the pods are deleted after their time");
    cluster.shutdown().await;
}

/// What `kubectl get -o json` writes, without what belongs to the old cluster: see the guide on backups.
fn from_backup(training: &ModelTraining) -> ModelTraining {
    ModelTraining {
        metadata: ObjectMeta {
            name: training.metadata.name.clone(),
            namespace: training.metadata.namespace.clone(),
            labels: training.metadata.labels.clone(),
            annotations: training.metadata.annotations.clone(),
            ..ObjectMeta::default()
        },
        spec: training.spec.clone(),
        status: None,
    }
}

#[tokio::test(start_paused = true)]
async fn what_succeeded_does_not_train_again_after_a_restore_and_what_was_under_way_does() {
    let mut cluster = furnished().await;
    let behavior = |train, exit_code| Behavior {
        train: Duration::from_secs(train),
        exit_code,
        ..Behavior::default()
    };
    for name in ["once", "twice"] {
        cluster.create(&manifests::training(name)).await;
        succeeded(cluster.wait_for(name, "True", LIMIT).await);
    }
    cluster
        .patch::<ModelTraining>("twice", json!({"spec": {"trigger": "again"}}))
        .await;
    succeeded(cluster.wait_for("twice", "True", LIMIT).await);
    cluster.agents.behave([behavior(5, 3)]);
    cluster.create(&manifests::training("failed")).await;
    cluster.wait_for("failed", "False", LIMIT).await.expect("it fails");
    cluster.agents.behave([behavior(600, 0)]);
    cluster.create(&manifests::training("running")).await;
    let mut waiting = manifests::training("waiting");
    waiting.spec.toolchain = "none".parse().unwrap();
    cluster.create(&waiting).await;
    let mut suspended = manifests::training("suspended");
    suspended.spec.suspend = true;
    cluster.create(&suspended).await;
    cluster.settle(Duration::from_secs(60)).await;

    let backup = trainings(&cluster).list(&ListParams::default()).await.unwrap().items;
    let started = starts(&cluster);
    assert_eq!(started, 5);
    // The disaster.
    cluster.stop().await;
    for training in &backup {
        cluster.delete::<ModelTraining>(&training.name_any()).await;
    }
    cluster.settle(Duration::from_secs(300)).await;
    assert_eq!(cluster.pods().await.len(), 0, "the garbage collector deletes the pods");
    // The restore, while no operator runs.
    for training in &backup {
        cluster.create(&from_backup(training)).await;
        let status = serde_json::to_value(&training.status).unwrap();
        patch_status(&cluster, &training.name_any(), &status).await;
    }
    cluster.start();
    succeeded(cluster.wait_for("running", "True", LIMIT).await);
    cluster.settle(Duration::from_secs(60)).await;
    assert_eq!(starts(&cluster), started + 1, "only what was under way trains again");
    let before: BTreeMap<_, _> = backup.iter().map(|training| (training.name_any(), training)).collect();
    for (name, expected) in [
        ("once", "RunSucceeded"),
        ("twice", "RunSucceeded"),
        ("failed", "TrainerFailed"),
        ("waiting", "ToolchainNotFound"),
        ("suspended", "Suspended"),
    ] {
        let training = cluster.training(name).await;
        assert_eq!(reason(&training), expected, "{name}");
        let (old, new) = (before[name].status.as_ref().unwrap(), training.status.unwrap());
        assert_eq!(old.artifact, new.artifact, "{name}");
        assert_eq!(old.history, new.history, "{name}");
        assert_eq!(new.observed_generation, training.metadata.generation, "{name}");
    }
    let run = |training: &ModelTraining| training.status.as_ref().unwrap().run.clone().unwrap();
    assert_eq!(run(&cluster.training("running").await).id, run(before["running"]).id);
    // Everything goes on as before: a new trigger trains, once.
    cluster.agents.behave([behavior(5, 0)]);
    cluster
        .patch::<ModelTraining>("once", json!({"spec": {"trigger": "again"}}))
        .await;
    succeeded(cluster.wait_for("once", "True", LIMIT).await);
    assert_eq!(starts(&cluster), started + 2);
    cluster.shutdown().await;
}

/// A clock that is ahead of the API server's.
struct Ahead(Arc<dyn kube_embed::Clock>);

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        self.0
            .now()
            .checked_add(SignedDuration::from_hours(2))
            .expect("a time in 2026")
    }
}

fn operator_ahead() -> StartProcess {
    Arc::new(|client, clock| {
        Box::pin(async move {
            let ended = legion_operator::run(client, settings(), Arc::new(Ahead(clock)), Shutdown::new()).await;
            panic!("the operator ended: {ended:?}");
        })
    })
}

#[tokio::test(start_paused = true)]
async fn an_operator_whose_clock_is_two_hours_ahead_ends_no_healthy_pod() {
    logs();
    let mut cluster = Cluster::new(operator_ahead()).await;
    cluster.furnish().await;
    cluster.start();
    cluster.settle(Duration::from_secs(1)).await;
    cluster.agents.behave([Behavior {
        fetch: Duration::from_secs(120),
        ..Behavior::default()
    }]);
    let mut training = manifests::training("wine");
    training.spec.start_timeout = "10m".parse().unwrap();
    let created = cluster.create(&training).await.metadata.creation_timestamp.unwrap().0;
    let training = succeeded(cluster.wait_for("wine", "True", LIMIT).await);
    let status = training.status.unwrap();
    let run = status.run.unwrap();
    assert_eq!((run.attempt, run.rejections), (1, 0));
    let finished = run.finished_at.unwrap().0;
    assert!(
        finished.duration_since(created) < SignedDuration::from_mins(10),
        "{finished}"
    );
    let written = status.conditions[0].last_transition_time.0;
    assert!(
        written.duration_since(created) < SignedDuration::from_mins(10),
        "{written}"
    );
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_run_is_an_event() {
    let cluster = furnished().await;
    cluster.create(&manifests::training("good")).await;
    succeeded(cluster.wait_for("good", "True", LIMIT).await);
    cluster.agents.behave([Behavior {
        exit_code: 3,
        ..Behavior::default()
    }]);
    cluster.create(&manifests::training("bad")).await;
    cluster.wait_for("bad", "False", LIMIT).await.expect("it fails");
    cluster.settle(Duration::from_secs(5)).await;
    let events = cluster
        .api::<Event>(NAMESPACE)
        .list(&ListParams::default())
        .await
        .unwrap();
    let of = |name: &str| {
        let named = |event: &&Event| {
            event
                .regarding
                .as_ref()
                .is_some_and(|object| object.name.as_deref() == Some(name))
        };
        let kind = |event: &Event| {
            format!(
                "{} {}",
                event.type_.as_deref().unwrap(),
                event.reason.as_deref().unwrap()
            )
        };
        events.items.iter().filter(named).map(kind).collect::<Vec<_>>()
    };
    assert_eq!(of("good"), ["Normal RunSucceeded"]);
    assert_eq!(of("bad"), ["Warning TrainerFailed"]);
    cluster.shutdown().await;
}

/// A CRD that is deleted while the operator runs.
#[tokio::test(start_paused = true)]
async fn without_its_crd_the_operator_is_not_ready_and_says_so() {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
    logs();
    let telemetry = legion_runtime::telemetry::Telemetry::default();
    let mut settings = settings();
    settings.telemetry = Some(telemetry.clone());
    let mut cluster = Cluster::new(crate::support::operator_with(settings)).await;
    cluster.start();
    cluster.settle(Duration::from_secs(5)).await;
    assert_eq!(telemetry.health.ready(), Ok(()));
    let crds = Api::<CustomResourceDefinition>::all(cluster.client.clone());
    let name = "connections.legion-platform.org";
    let mut crd = crds.get(name).await.unwrap();
    crds.delete(name, &kube::api::DeleteParams::default()).await.unwrap();
    cluster.settle(Duration::from_secs(60)).await;
    assert_eq!(
        telemetry.health.ready(),
        Err("waiting for the CRDs: connections".to_owned())
    );
    crd.metadata = ObjectMeta {
        name: Some(name.to_owned()),
        ..ObjectMeta::default()
    };
    crds.create(&PostParams::default(), &crd).await.unwrap();
    cluster.settle(Duration::from_secs(60)).await;
    assert_eq!(telemetry.health.ready(), Ok(()));
    cluster.shutdown().await;
}
