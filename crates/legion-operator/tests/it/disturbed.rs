//! Pods that a user deletes or relabels, or that are lost, and trainings that a user deletes, suspends or changes: at
//! every request of the operator and before every event that it receives.

use legion_api::{ModelTraining, condition, run::RunResult};
use legion_testkit::{
    cluster::{Cluster, is_settled},
    disturbance::Disturbance,
    fault::Plan,
    manifests::NAMESPACE,
};
use serde_json::{Value, json};

use crate::{explore, support::logs};

/// Returns the result of a training: the same for any number of attempts.
fn result(training: &ModelTraining) -> Value {
    let status = training.status.as_ref().expect("a status");
    let conditions: Vec<Value> = status
        .conditions
        .iter()
        .map(|condition| json!([condition.type_, condition.status, condition.reason, condition.message]))
        .collect();
    json!({
        "conditions": conditions,
        "run": status.run.as_ref().map(|run| &run.id),
        "score": status.score,
        "metrics": status.metrics,
        "parameters": status.parameters,
        "tags": status.tags,
        "source": status.source,
        "artifact": status.artifact,
        "failure": status.failure,
    })
}

/// Checks what must also hold for a changed training: its present spec succeeded, and the artifact is this run's.
#[track_caller]
fn succeeded_as_it_is(training: &ModelTraining) {
    let status = training.status.as_ref().expect("a status");
    let run = status.run.as_ref().expect("a run");
    assert!(is_settled(training, "True"), "{status:#?}");
    assert_eq!(run.result, Some(RunResult::Succeeded));
    assert_eq!(
        status.artifact.as_ref().map(|artifact| &artifact.run_id),
        Some(&run.id),
        "the artifact is another run's"
    );
    for kind in [condition::RECONCILING, condition::STALLED] {
        assert!(
            condition::find(&status.conditions, kind).is_none_or(|condition| condition.status == "False"),
            "{kind} is left: {status:#?}"
        );
    }
}

async fn there(cluster: &Cluster) -> Option<ModelTraining> {
    cluster
        .api::<ModelTraining>(NAMESPACE)
        .get_opt("wine")
        .await
        .expect("the server answers")
}

fn verify(plan: &Plan, reference: &Value) {
    let Plan::Disturb(disturbance, _) = plan else {
        panic!("{plan} is no disturbance")
    };
    explore::paused(async {
        let (cluster, _) = explore::live(Some(plan)).await;
        let published = cluster.agents.ledger().published.len();
        let training = there(&cluster).await;
        if *disturbance == Disturbance::Delete {
            assert!(training.is_none(), "it is deleted");
            let pods: usize = cluster.history.pods_created().into_values().sum();
            assert!(pods <= 1, "{pods} pods of a deleted training");
        } else {
            let training = training.expect("it was not deleted for good");
            succeeded_as_it_is(&training);
            match disturbance {
                Disturbance::DeletePod
                | Disturbance::KillPod
                | Disturbance::RelabelPod
                | Disturbance::LoseNode
                | Disturbance::Suspend => {
                    assert_eq!(&result(&training), reference, "another result than undisturbed");
                    assert_eq!(published, 1);
                }
                // Another run, or another training of the name. The first may have ended before.
                _ => assert!((1..=2).contains(&published), "{published} results"),
            }
        }
        cluster.shutdown().await;
    });
}

fn undisturbed() -> (Value, Vec<Plan>) {
    explore::paused(async {
        let (cluster, moments) = explore::live(None).await;
        let training = there(&cluster).await.expect("it was not deleted");
        succeeded_as_it_is(&training);
        let plans = moments
            .of_the_training
            .into_iter()
            .flat_map(|moment| Disturbance::ALL.map(|disturbance| Plan::Disturb(disturbance, moment.clone())))
            .collect();
        cluster.shutdown().await;
        (result(&training), plans)
    })
}

#[test]
fn one_disturbance_in_nineteen_ends_well() {
    let (reference, plans) = undisturbed();
    explore::all(&explore::sample(&plans), |plan| verify(plan, &reference));
}

#[test]
#[ignore = "takes minutes: a tier of its own in cargo xtask test"]
fn every_disturbance_at_every_step_ends_well() {
    let (reference, plans) = undisturbed();
    explore::all(&explore::share(&plans), |plan| verify(plan, &reference));
}

/// One disturbance from `LEGION_PLAN`.
#[test]
fn replay() {
    logs();
    if let Ok(text) = std::env::var("LEGION_PLAN") {
        let plan: Plan = text.parse().unwrap();
        if matches!(plan, Plan::Disturb(..)) {
            verify(&plan, &undisturbed().0);
        }
    }
}
