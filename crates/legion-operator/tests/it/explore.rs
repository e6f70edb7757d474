//! One training under one plan, and many plans in parallel.
//!
//! Plans are built from a run without a plan. Its requests and events are the moments at which something can happen. A
//! failing test prints how to repeat one plan: `LEGION_PLAN='crash-after:create pods#1' cargo test -p legion-operator
//! --test it replay`.

#![allow(
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "called by tests, where clippy.toml allows both"
)]

use std::{
    collections::BTreeMap,
    panic::AssertUnwindSafe,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use legion_api::duration::Span;
use legion_testkit::{
    cluster::Cluster,
    disturbance::Disturbance,
    fault::{Moment, Plan},
    manifests,
};

use crate::support::{operator, requests};

/// Virtual time in which every plan has ended and the pod of the last attempt is removed: 35 s of work, what the plan
/// adds (a lost node, a suspension, a frozen watch, back-offs), and the time that the pod is kept.
const LIFE: Duration = Duration::from_secs(600);

/// How long pods are kept: long enough to be disturbed, and no longer.
const KEPT: Duration = Duration::from_secs(60);

/// What can happen when.
pub(crate) struct Moments {
    /// Requests of the process, from its start on.
    pub requests: Vec<String>,
    /// Events of its watches, from its start on, by kind.
    pub events: Vec<(String, usize)>,
    /// The moments after the creation of the training. Watches that are opened again do not count, and neither do
    /// events that follow in any case.
    pub of_the_training: Vec<Moment>,
}

/// One training's life under a plan, at its end. What must hold under every plan is checked.
pub(crate) async fn live(plan: Option<&Plan>) -> (Cluster, Moments) {
    let mut cluster = Cluster::new(operator()).await;
    cluster.chaos.set_plan(plan.cloned());
    cluster.furnish().await;
    cluster.start();
    cluster.settle(Duration::from_secs(1)).await;
    let (earlier, events_before) = cluster.chaos.targets();
    let mut training = manifests::training("wine");
    training.spec.ttl_after_finished = Span::from_secs(KEPT.as_secs());
    cluster.create(&training).await;
    cluster.settle(LIFE).await;
    let (ids, events) = cluster.chaos.targets();
    let calls = cluster.chaos.calls().len();

    cluster.settle(Duration::from_secs(300)).await;
    let later = cluster.chaos.calls().split_off(calls);
    assert_eq!(requests(&later), Vec::<String>::new(), "not at rest");
    assert_eq!(cluster.history.violations(), Vec::<String>::new());
    // A pod without Legion's labels stays, as with every controller, until its owner is deleted.
    let is_taken = matches!(plan, Some(Plan::Disturb(Disturbance::RelabelPod, _)));
    assert!(is_taken || cluster.pods().await.is_empty(), "a pod is left");
    assert_eq!(cluster.chaos.has_struck(), plan.is_some(), "the plan never came true");

    let seen: BTreeMap<_, _> = events_before.into_iter().collect();
    let later_requests = ids.iter().skip(earlier.len()).filter(|id| !id.starts_with("watch "));
    let later_requests = later_requests.cloned().map(Moment::Request);
    let later_events = events.iter().flat_map(|(kind, count)| {
        let first = seen.get(kind).copied().unwrap_or_default() + 1;
        (first..=*count).map(|n| Moment::Event(kind.clone(), n))
    });
    let moments = Moments {
        of_the_training: later_requests.chain(later_events).collect(),
        requests: ids,
        events,
    };
    (cluster, moments)
}

/// Runs the future on a runtime and a paused clock of its own.
pub(crate) fn paused<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime without threads")
        .block_on(future)
}

/// Returns one plan in nineteen, for the fast tier. Nineteen has no factor in common with the number of faults per
/// moment, so every fault is among the plans.
pub(crate) fn sample(plans: &[Plan]) -> Vec<Plan> {
    plans.iter().step_by(19).cloned().collect()
}

/// How many shares the plans are divided into.
const SHARES: u64 = 4;

/// Returns the share of the plans that `LEGION_SEED` chooses, or all of them without it.
///
/// Each plan belongs to one share, so the seeds 0 to 3 visit all of them.
pub(crate) fn share(plans: &[Plan]) -> Vec<Plan> {
    let Some(seed) = std::env::var("LEGION_SEED").ok() else {
        return plans.to_vec();
    };
    let seed: u64 = seed.parse().expect("LEGION_SEED is a number");
    let numbered = (0_u64..).zip(plans);
    // Scattered, so that each share has all kinds of plans.
    let scattered = |index: u64| index.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let share: Vec<Plan> = numbered
        .filter(|(index, _)| scattered(*index) % SHARES == seed % SHARES)
        .map(|(_, plan)| plan.clone())
        .collect();
    eprintln!(
        "LEGION_SEED={seed} chooses {} of {} plans and leaves out {}",
        share.len(),
        plans.len(),
        plans.len() - share.len()
    );
    share
}

/// Verifies every plan on all cores. Prints the number of plans, and how to replay each failing plan.
#[track_caller]
pub(crate) fn all(plans: &[Plan], verify: impl Fn(&Plan) + Sync) {
    assert!(!plans.is_empty(), "there is nothing to explore");
    let begin = Instant::now();
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(plan) = plans.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = std::panic::catch_unwind(AssertUnwindSafe(|| verify(plan)));
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
        eprintln!("LEGION_PLAN='{plan}' cargo test -p legion-operator --test it replay");
        eprintln!("    {}", text.lines().next().unwrap_or_default());
    }
    assert!(
        failures.is_empty(),
        "{} of {} plans failed",
        failures.len(),
        plans.len()
    );
}
