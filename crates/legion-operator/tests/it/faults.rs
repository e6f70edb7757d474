//! Every single fault at every request and every event of an undisturbed training: always the same end.

use legion_testkit::{
    fault::{Fault, Plan},
    watchfault::WatchFault,
};
use serde_json::Value;

use crate::{
    explore::{self, Moments},
    support::{logs, writes},
};

/// What must be the same after every plan.
#[derive(Clone, Debug, PartialEq)]
struct FinalState {
    status: Value,
    pods_created: Vec<usize>,
    started: Vec<usize>,
    finished: Vec<usize>,
    published: usize,
}

struct Observed {
    end: FinalState,
    writes: usize,
    moments: Moments,
}

fn observe(plan: Option<&Plan>) -> Observed {
    explore::paused(async {
        let (cluster, moments) = explore::live(plan).await;
        let ledger = cluster.agents.ledger();
        let status = cluster.training("wine").await.status;
        let observed = Observed {
            end: FinalState {
                status: without_time(serde_json::to_value(status).expect("a status is JSON")),
                pods_created: cluster.history.pods_created().into_values().collect(),
                started: ledger.started.into_values().collect(),
                finished: ledger.finished.into_values().collect(),
                published: ledger.published.len(),
            },
            writes: writes(&cluster.chaos.calls()).len(),
            moments,
        };
        cluster.shutdown().await;
        observed
    })
}

/// A status without what differs between any two runs.
fn without_time(value: Value) -> Value {
    const TIMES: [&str; 8] = [
        "lastTransitionTime",
        "since",
        "notBefore",
        "startedAt",
        "finishedAt",
        "duration",
        "podUid",
        "sourceVersion",
    ];
    match value {
        Value::Object(object) => object
            .into_iter()
            .filter(|(key, _)| !TIMES.contains(&key.as_str()))
            .map(|(key, value)| (key, without_time(value)))
            .collect(),
        Value::Array(items) => items.into_iter().map(without_time).collect(),
        other => other,
    }
}

fn verify(plan: &Plan, reference: &Observed) {
    let observed = observe(Some(plan));
    // Uids are the same for the same seed, hence ids of runs too.
    assert_eq!(observed.end, reference.end, "another end than without faults");
    assert!(
        observed.writes <= reference.writes + 4,
        "{} writes instead of {}",
        observed.writes,
        reference.writes
    );
}

fn plans(moments: &Moments) -> Vec<Plan> {
    let mut plans = Vec::new();
    for request in &moments.requests {
        plans.extend(Fault::ALL.map(|fault| Plan::Request(fault, request.clone())));
        if ["create ", "patch ", "delete "]
            .iter()
            .any(|verb| request.starts_with(verb))
        {
            plans.push(Plan::StaleRestart(request.clone()));
        }
    }
    for (kind, count) in &moments.events {
        for n in 1..=*count {
            plans.extend(WatchFault::ALL.map(|fault| Plan::Event(fault, kind.clone(), n)));
        }
    }
    plans
}

fn explore(choose: impl FnOnce(Vec<Plan>) -> Vec<Plan>) {
    let reference = observe(None);
    assert_eq!(reference.end.published, 1, "the training without faults");
    explore::all(&choose(plans(&reference.moments)), |plan| verify(plan, &reference));
}

#[test]
fn one_fault_in_nineteen_ends_the_same() {
    explore(|plans| explore::sample(&plans));
}

#[test]
#[ignore = "takes minutes: a tier of its own in cargo xtask test"]
fn every_single_fault_ends_the_same() {
    explore(|plans| explore::share(&plans));
}

/// One fault from `LEGION_PLAN`.
#[test]
fn replay() {
    logs();
    match std::env::var("LEGION_PLAN").ok().map(|text| text.parse().unwrap()) {
        None | Some(Plan::Disturb(..)) => {}
        Some(plan) => verify(&plan, &observe(None)),
    }
}
