//! The whole operator, from an API client to an orderly end.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use http::HeaderValue;
use kube::Client;
use legion_runtime::{
    ServerClock, SharedClock, Shutdown,
    client::{RESPONSE_DEADLINE, RequestPolicy},
    health::Health,
    lease::{self, HoldEnd, Leadership},
};
use tokio::task::JoinSet;

use crate::{
    Settings, access, collector,
    context::Context,
    crds, kinds,
    metrics::{Metrics, PREFIX},
    registry::RegisteredKind,
    requests::ApiRequests,
    watch::watches::{Watch, Watches},
};

/// Field manager of writes.
const MANAGER: &str = "legion-operator";
const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("legion-operator/", env!("CARGO_PKG_VERSION")));
/// A watch is renewed every five minutes, and one that fails is retried every half minute. After this long without an
/// attempt its task is stuck.
const WATCH_STALL: Duration = Duration::from_secs(900);
/// Every request has a deadline of seconds. When objects are due and none was started for this long, all workers are
/// stuck.
const WORK_STALL: Duration = Duration::from_secs(300);

/// Why an operator ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Another replica may act by now. The process must end and be restarted.
    #[error("the leader lease was lost: another replica may act")]
    LeaseLost,
    /// A task ended that must not end before the shutdown.
    #[error("a watch or a driver ended unexpectedly: {0}")]
    TaskEnded(String),
}

/// Serves the platform's kinds until `shutdown`. Reconciliations that have begun by then are finished.
///
/// # Errors
/// Fails when the leader lease is lost or a task dies. Then the process should end and be restarted.
pub async fn run(client: Client, settings: Settings, clock: SharedClock, shutdown: Shutdown) -> Result<(), RunError> {
    let telemetry = settings.telemetry.clone().unwrap_or_default();
    let (health, metrics) = (&telemetry.health, Metrics::new(access::resources()));
    // Whatever client this is, a request that is never answered must end.
    let clock = Arc::new(ServerClock::new(clock));
    let policy = RequestPolicy {
        user_agent: USER_AGENT,
        deadline: RESPONSE_DEADLINE,
        requests: metrics.requests.clone(),
        clock: clock.clone(),
    };
    let client = policy.wrap(client);
    let registry = kinds::registry(&settings.plan, &metrics);
    let kinds = registry.kinds().to_vec();
    let resources: Vec<_> = kinds.iter().map(|kind| kind.resource()).collect();
    tokio::select! {
        () = crds::wait(&client, health, &resources) => {}
        () = shutdown.requested() => return Ok(()),
    }
    // The watches begin before the lease is acquired, so that standby replicas keep their caches warm.
    let held = Leadership::pending();
    let requests = ApiRequests::new(client.clone(), held.clone(), MANAGER, metrics.clone());
    let context = registry.into_context(requests, settings.plan.clone(), clock.clone());
    let mut tasks = JoinSet::new();
    let watches = watch_all(&mut tasks, &client, &settings, &kinds, &context);
    for watch in watches.clone() {
        let served = watch.clone();
        health.add_liveness_check(Box::new(move || check_watch(&watch)));
        health.add_readiness_check(Box::new(move || check_served(&served)));
    }
    telemetry.metrics.register_build(PREFIX, env!("CARGO_PKG_VERSION"));
    telemetry.metrics.register(|registry| {
        metrics.requests.register(registry, PREFIX);
        metrics.register(registry);
        collector::register(registry, kinds.clone(), context.clone(), held.clone(), watches.clone());
    });
    tokio::select! {
        () = first_lists(&watches, health) => {}
        ended = tasks.join_next() => return Err(task_ended(ended)),
        () = shutdown.requested() => return Ok(()),
    }
    tracing::info!("the caches are complete");
    // Also ready while another replica leads: this one can take over at any moment.
    health.set_ready();

    let lease = match settings.lease.clone() {
        None => {
            held.lead_unconditionally();
            None
        }
        Some(lease) => match lease::acquire(client.clone(), lease, clock, held.clone(), &shutdown).await {
            Some(lease) => Some(lease),
            None => return Ok(()),
        },
    };

    let checked = kinds.clone();
    health.add_liveness_check(Box::new(move || check_queues(&checked)));
    let leader = Shutdown::new();
    let mut drivers = JoinSet::new();
    for kind in kinds {
        drivers.spawn(kind.drive(context.clone(), settings.workers, leader.child()));
    }
    let end_of_lease = Shutdown::new();
    let keep_lease = async {
        match lease {
            Some(lease) => lease.hold(&end_of_lease).await,
            None => {
                end_of_lease.requested().await;
                HoldEnd::Released
            }
        }
    };
    let mut keep_lease = std::pin::pin!(keep_lease);
    let result = tokio::select! {
        _ = &mut keep_lease => Err(RunError::LeaseLost),
        ended = tasks.join_next() => Err(task_ended(ended)),
        ended = drivers.join_next() => Err(task_ended(ended)),
        () = shutdown.requested() => Ok(()),
    };
    leader.request();
    if result.is_ok() {
        while drivers.join_next().await.is_some() {}
        end_of_lease.request();
        keep_lease.await;
    }
    result
}

fn task_ended(ended: Option<Result<(), tokio::task::JoinError>>) -> RunError {
    RunError::TaskEnded(match ended {
        Some(Err(error)) => error.to_string(),
        Some(Ok(())) | None => "without an error".to_owned(),
    })
}

/// Starts the watches of every kind, of pods and of ConfigMaps.
fn watch_all(
    tasks: &mut JoinSet<()>,
    client: &Client,
    settings: &Settings,
    kinds: &[Arc<dyn RegisteredKind>],
    context: &Context,
) -> Vec<Watch> {
    let platform = &settings.plan.platform_namespace;
    let mut watches = Watches::new(tasks, client, &context.metrics, &settings.namespaces, platform);
    for kind in kinds {
        kind.watch(&mut watches);
    }
    watches.start_pods(&context.pods.cache);
    watches.start_whole(&context.config_maps, false);
    watches.started()
}

/// Waits until every watch has listed once.
async fn first_lists(watches: &[Watch], health: &Health) {
    for watch in watches {
        if !watch.synced.is_cancelled() {
            health.set_not_ready(format!("waiting for the first list of {}", watch.activity.path()));
            watch.synced.cancelled().await;
        }
    }
}

fn check_watch(watch: &Watch) -> Result<(), String> {
    let since_attempt = watch.activity.time_since_attempt();
    if since_attempt < WATCH_STALL {
        return Ok(());
    }
    let (path, seconds) = (watch.activity.path(), since_attempt.as_secs());
    Err(format!("the watch of {path} has made no request for {seconds} s"))
}

fn check_served(watch: &Watch) -> Result<(), String> {
    if watch.unserved.load(Ordering::Relaxed) {
        return Err(format!("waiting for the CRDs: {}", watch.resource));
    }
    Ok(())
}

fn check_queues(kinds: &[Arc<dyn RegisteredKind>]) -> Result<(), String> {
    for queue in kinds.iter().map(|kind| kind.queue()) {
        let backlog = queue.backlog();
        if backlog.oldest.min(backlog.idle) >= WORK_STALL {
            let (due, kind, seconds) = (backlog.due, queue.kind(), backlog.idle.as_secs());
            return Err(format!(
                "{due} objects of kind {kind} are due, and no reconciliation has begun for {seconds} s"
            ));
        }
    }
    Ok(())
}
