//! The whole operator, from an API client to an orderly end.

use std::{fmt::Debug, sync::Arc, time::Duration};

use http::HeaderValue;
use kube::{Api, Client, Resource, core::NamespaceResourceScope, runtime::watcher};
use legion_plan::training::labels;
use legion_runtime::{
    SharedClock, Shutdown,
    client::{RESPONSE_DEADLINE, RequestPolicy},
    health::Health,
    lease::{self, HoldEnd, Leadership},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    Settings,
    collector::{self, Watch},
    context::{Context, Queues},
    crds,
    kinds::{connection::Connections, toolchain::Toolchains, training::Trainings},
    metrics::{Metrics, PREFIX, RESOURCES},
    reconcile::driver::Driver,
    requests::ApiRequests,
    watch::{cache::Cache, guarded::Guarded, projection::Projection, watcher::CacheWatcher},
};

/// Name under which writes are booked.
const MANAGER: &str = "legion-operator";
/// Who asks, in every request.
const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("legion-operator/", env!("CARGO_PKG_VERSION")));
/// A watch is renewed every five minutes, and one that fails tries again every half minute: when nothing was tried for so
/// long, its task is stuck.
const WATCH_STALL: Duration = Duration::from_secs(900);
/// Every request has a deadline of seconds: when work is due and none was taken up for so long, all workers are stuck.
const WORK_STALL: Duration = Duration::from_secs(300);

/// Why an operator ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Another replica may act by now: this process must end, and be started anew.
    #[error("the leader lease was lost: another replica may act")]
    LeaseLost,
    /// A task ended that never should.
    #[error("a watch or a driver ended unexpectedly: {0}")]
    TaskEnded(String),
}

/// Serves the platform's kinds until `shutdown`. What is under way then is finished.
///
/// # Errors
/// When the leader lease is lost, or a task dies: the process should end and be started anew.
pub async fn run(client: Client, settings: Settings, clock: SharedClock, shutdown: Shutdown) -> Result<(), RunError> {
    let telemetry = settings.telemetry.clone().unwrap_or_default();
    let (health, metrics) = (&telemetry.health, Metrics::default());
    // Whatever client this is: a request that is never answered must end.
    let policy = RequestPolicy {
        user_agent: USER_AGENT,
        deadline: RESPONSE_DEADLINE,
        requests: metrics.requests.clone(),
    };
    let client = policy.wrap(client);
    tokio::select! {
        () = crds::wait(&client, health) => {}
        () = shutdown.requested() => return Ok(()),
    }
    // Replicas that wait for the lease keep their caches warm; hence the watches first.
    let leader = Shutdown::new();
    let held = Leadership::pending();
    let requests = ApiRequests::new(client.clone(), held.clone(), MANAGER, metrics.clone());
    let context = Context::new(requests, settings.plan.clone(), clock.clone(), metrics.clone());
    let mut tasks = JoinSet::new();
    let (watches, synced) = watch_all(&mut tasks, &client, &settings, &context);
    for watch in watches.clone() {
        health.add_liveness_check(Box::new(move || check_watch(&watch)));
    }
    telemetry.metrics.register_build(PREFIX, env!("CARGO_PKG_VERSION"));
    telemetry.metrics.register(|registry| {
        metrics.requests.register(registry, PREFIX);
        metrics.register(registry);
        collector::register(registry, context.clone(), held.clone(), watches.clone());
    });
    tokio::select! {
        () = first_lists(&watches, &synced, health) => {}
        ended = tasks.join_next() => return Err(task_ended(ended)),
        () = shutdown.requested() => return Ok(()),
    }
    tracing::info!("the caches are complete");
    // Ready also while another replica leads: this one takes over at any moment.
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

    let queues = context.queues.clone();
    health.add_liveness_check(Box::new(move || check_queues(&queues)));
    let mut drivers = JoinSet::new();
    drivers.spawn(Driver::<Toolchains>::new(context.clone()).run(settings.workers, leader.child()));
    drivers.spawn(Driver::<Connections>::new(context.clone()).run(settings.workers, leader.child()));
    drivers.spawn(Driver::<Trainings>::new(context.clone()).run(settings.workers, leader.child()));
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

/// Waits until every watch has listed once.
async fn first_lists(watches: &[Watch], synced: &[CancellationToken], health: &Health) {
    for (watch, token) in watches.iter().zip(synced) {
        if !token.is_cancelled() {
            health.set_not_ready(format!("waiting for the first list of {}", watch.activity.path()));
            token.cancelled().await;
        }
    }
}

fn check_watch(watch: &Watch) -> Result<(), String> {
    let since_attempt = watch.activity.time_since_attempt();
    if since_attempt < WATCH_STALL {
        return Ok(());
    }
    let (path, seconds) = (watch.activity.path(), since_attempt.as_secs());
    Err(format!("the watch of {path} has tried nothing for {seconds} s"))
}

fn check_queues(queues: &Queues) -> Result<(), String> {
    for (kind, queue) in queues.all() {
        let backlog = queue.backlog();
        if backlog.oldest.min(backlog.idle) >= WORK_STALL {
            let seconds = backlog.idle.as_secs();
            return Err(format!(
                "{} objects of kind {kind} are due, and none was looked at for {seconds} s",
                backlog.due
            ));
        }
    }
    Ok(())
}

/// Starts every watch; gives back each with what is cancelled when it has listed once.
fn watch_all(
    tasks: &mut JoinSet<()>,
    client: &Client,
    settings: &Settings,
    context: &Arc<Context>,
) -> (Vec<Watch>, Vec<CancellationToken>) {
    let mut own: Vec<Option<String>> = settings.namespaces.iter().cloned().map(Some).collect();
    if own.is_empty() {
        own.push(None);
    }
    // Toolchains of the platform serve every namespace.
    let mut with_platform = own.clone();
    let platform = Some(settings.plan.platform_namespace.clone());
    if !own.contains(&None) && !own.contains(&platform) {
        with_platform.push(platform);
    }
    let mut watches = Watches {
        tasks,
        client,
        metrics: &context.metrics,
        started: Vec::new(),
        synced: Vec::new(),
    };
    // In one piece, as other controllers list: the server answers that from its memory, but takes all pages except the first from
    // etcd when nothing was written for a while, which made 10,000 trainings take it six times as long.
    let whole = watcher::Config {
        page_size: None,
        ..watcher::Config::default()
    };
    // In pages: pods are large, and many only when they were written minutes ago, because `ttlAfterFinished` removes them.
    let pods = watcher::Config::default().labels(labels::TRAINING);
    watches.start(&with_platform, &whole, &context.toolchains);
    watches.start(&own, &whole, &context.connections);
    watches.start(&own, &whole, &context.trainings);
    watches.start(&own, &pods, &context.pods);
    watches.start(&own, &whole, &context.config_maps);
    (watches.started, watches.synced)
}

struct Watches<'a> {
    tasks: &'a mut JoinSet<()>,
    client: &'a Client,
    metrics: &'a Metrics,
    started: Vec<Watch>,
    synced: Vec<CancellationToken>,
}

impl Watches<'_> {
    fn start<K>(&mut self, namespaces: &[Option<String>], config: &watcher::Config, cache: &Arc<Cache<K>>)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Projection
            + Clone
            + Debug
            + Send
            + Sync
            + 'static,
    {
        let plural = K::plural(&()).into_owned();
        let resource = RESOURCES.iter().find(|known| **known == plural).unwrap_or(&"other");
        for namespace in namespaces {
            let synced = CancellationToken::new();
            self.synced.push(synced.clone());
            let api = match namespace {
                Some(namespace) => Api::<Guarded<K>>::namespaced(self.client.clone(), namespace),
                None => Api::all(self.client.clone()),
            };
            self.started.push(Watch {
                resource,
                activity: self.metrics.requests.track(api.resource_url()),
            });
            let watcher = CacheWatcher {
                api,
                namespace: namespace.clone(),
                config: config.clone(),
                cache: cache.clone(),
                synced,
                metrics: self.metrics.for_watch(resource),
            };
            self.tasks.spawn(watcher.run());
        }
    }
}
