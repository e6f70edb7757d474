//! Every single fault at every request and every event of an undisturbed training: always the same end.
//!
//! The requests and events are those of a run without faults. One plan: `LEGION_PLAN='crash-after:create pods#1'`.

use std::{
    collections::BTreeMap,
    panic::AssertUnwindSafe,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use legion_testkit::{
    cluster::Cluster,
    fault::{Fault, Plan},
    manifests,
    watchfault::WatchFault,
};
use serde_json::Value;

use crate::support::{logs, operator, requests, writes};

/// What must be the same after every plan.
#[derive(Clone, Debug, PartialEq)]
struct End {
    status: Value,
    pods_created: Vec<usize>,
    started: Vec<usize>,
    finished: Vec<usize>,
    published: usize,
}

struct Observed {
    end: End,
    writes: usize,
    requests: Vec<String>,
    events: Vec<(String, usize)>,
    struck: bool,
}

/// Longest time from the start to the end: 35 s of work, a frozen watch, and what back-offs add.
const BOUND: Duration = Duration::from_secs(420);

/// Runs one training under a plan, and checks everything that must hold by itself.
async fn observe(plan: Option<&Plan>) -> Observed {
    let mut cluster = Cluster::new(operator()).await;
    cluster.chaos.set_plan(plan.cloned());
    cluster.furnish().await;
    cluster.start();
    cluster.settle(Duration::from_secs(1)).await;
    cluster.create(&manifests::training("wine")).await;
    if let Err(training) = cluster.wait_for("wine", "True", BOUND).await {
        let calls: Vec<String> = cluster
            .chaos
            .calls()
            .iter()
            .map(|call| format!("{} -> {:?}", call.id, call.status))
            .collect();
        panic!("not succeeded within {BOUND:?}: {:#?}\n{calls:#?}", training.status);
    }
    // The pod lives on for its time, and a frozen watch thaws.
    cluster.settle(Duration::from_secs(800)).await;
    let (ids, events) = cluster.chaos.targets();
    let calls = cluster.chaos.calls();

    cluster.settle(Duration::from_secs(300)).await;
    let later = cluster.chaos.calls().split_off(calls.len());
    assert_eq!(requests(&later), Vec::<String>::new(), "not at rest");
    assert_eq!(cluster.history.violations(), Vec::<String>::new());
    assert!(cluster.pods().await.is_empty(), "a pod is left");

    let ledger = cluster.agents.ledger();
    let observed = Observed {
        end: End {
            status: without_time(
                serde_json::to_value(cluster.training("wine").await.status).expect("a status is JSON"),
            ),
            pods_created: cluster.history.pods_created().into_values().collect(),
            started: ledger.started.into_values().collect(),
            finished: ledger.finished.into_values().collect(),
            published: ledger.published.len(),
        },
        writes: writes(&calls).len(),
        requests: ids,
        events,
        struck: cluster.chaos.has_struck(),
    };
    cluster.shutdown().await;
    observed
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

fn run(plan: Option<&Plan>) -> Observed {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build();
    let runtime = runtime.expect("a runtime without threads");
    runtime.block_on(observe(plan))
}

fn verify(plan: &Plan, reference: &Observed) {
    let observed = run(Some(plan));
    assert!(observed.struck, "the plan never came true");
    // Uids are the same for the same seed, hence ids of runs too.
    assert_eq!(observed.end, reference.end, "another end than without faults");
    assert!(
        observed.writes <= reference.writes + 4,
        "{} writes instead of {}",
        observed.writes,
        reference.writes
    );
}

fn plans(reference: &Observed) -> Vec<Plan> {
    let mut plans = Vec::new();
    for request in &reference.requests {
        plans.extend(Fault::ALL.map(|fault| Plan::Request(fault, request.clone())));
        if ["create ", "patch ", "delete "]
            .iter()
            .any(|verb| request.starts_with(verb))
        {
            plans.push(Plan::StaleRestart(request.clone()));
        }
    }
    for (kind, count) in &reference.events {
        for n in 1..=*count {
            plans.extend(WatchFault::ALL.map(|fault| Plan::Event(fault, kind.clone(), n)));
        }
    }
    plans
}

/// One plan, from `LEGION_PLAN`; without it, the reference run alone.
#[test]
fn replay() {
    logs();
    let reference = run(None);
    let Ok(text) = std::env::var("LEGION_PLAN") else { return };
    let plan: Plan = text.parse().unwrap();
    verify(&plan, &reference);
}

#[test]
fn every_single_fault_ends_the_same() {
    let begin = Instant::now();
    let reference = run(None);
    let plans = plans(&reference);
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(plan) = plans.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = std::panic::catch_unwind(AssertUnwindSafe(|| verify(plan, &reference)));
                    if let Err(panic) = result {
                        let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                        failures.lock().unwrap().insert(plan.clone(), text);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    eprintln!(
        "{} plans in {:.1} s, {} failed",
        plans.len(),
        begin.elapsed().as_secs_f64(),
        failures.len()
    );
    for (plan, text) in &failures {
        eprintln!("LEGION_PLAN='{plan}' cargo test -p legion-operator --test it faults::replay");
        eprintln!("    {}", text.lines().next().unwrap_or_default());
    }
    assert!(
        failures.is_empty(),
        "{} of {} plans failed",
        failures.len(),
        plans.len()
    );
}
