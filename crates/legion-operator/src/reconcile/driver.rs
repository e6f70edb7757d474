//! One driver for all kinds: takes due objects from the queue and runs the steps for each.
//!
//! Errors are logged here, once each, and nowhere else.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::FutureExt as _;
use jiff::Timestamp;
use kube::Resource as _;
use legion_plan::{EventNote, Need, Plan, StepResult};
use legion_runtime::{
    Shutdown,
    retry::{Backoff, ErrorClass, jitter},
};
use tokio::{task::JoinSet, time::Instant};
use tracing::Instrument as _;

use crate::{
    context::Context,
    key::Key,
    metrics::DriverMetrics,
    reconcile::{
        act::act,
        controller::{Managed, RunHooks},
        events, invalid,
    },
    requests::RequestError,
    watch::cache::Entry,
};

/// Every object is reconciled this often although nothing changes. Should a requeue ever be lost, it is lost for no
/// longer.
const RESYNC: Duration = Duration::from_secs(3600);
/// Shortest delay before a retry when the server refused for a reason that only people can remove.
const SLOW: Duration = Duration::from_secs(60);
/// Between two reads of a pod that has lost its label. No watch shows what happens to it.
const POLL: Duration = Duration::from_secs(15);
/// Consecutive failures before the status reports them: with the back-off between, less than five seconds.
const REPORTED_AFTER: u32 = 3;
/// A plan that still has needs after this many rounds of reading will always have some.
const MAX_READS: usize = 8;

/// Reconciles one kind.
pub(crate) struct Driver<C: RunHooks> {
    kind: Arc<Managed<C>>,
    context: Arc<Context>,
    /// Consecutive failures.
    failures: Mutex<HashMap<Key, u32>>,
    metrics: DriverMetrics,
}

impl<C: RunHooks> Driver<C> {
    pub(crate) fn new(kind: Arc<Managed<C>>, context: Arc<Context>) -> Arc<Self> {
        Arc::new(Self {
            metrics: context.metrics.for_driver(kind.store.queue.kind()),
            kind,
            context,
            failures: Mutex::default(),
        })
    }

    /// Works until `shutdown`. Reconciliations that have begun are finished.
    pub(crate) async fn run(self: Arc<Self>, workers: usize, shutdown: Shutdown) {
        self.kind.store.queue.open();
        let mut tasks = JoinSet::new();
        for _ in 0..workers.max(1) {
            let (driver, shutdown) = (self.clone(), shutdown.clone());
            tasks.spawn(async move { driver.work(&shutdown).await });
        }
        while tasks.join_next().await.is_some() {}
    }

    async fn work(&self, shutdown: &Shutdown) {
        let queue = &self.kind.store.queue;
        loop {
            let key = tokio::select! {
                biased;
                () = shutdown.requested() => return,
                key = async {
                    self.context.requests.allowed().await;
                    queue.next().await
                } => key,
            };
            let began = Instant::now();
            let span = tracing::info_span!("reconcile", kind = queue.kind(), ns = %key.namespace, name = %key.name);
            let requeue_after = self.once(&key).instrument(span).await;
            self.metrics.duration.observe(began.elapsed().as_secs_f64());
            queue.done(key, requeue_after);
        }
    }

    /// Reconciles one object. Returns when to do it again.
    async fn once(&self, key: &Key) -> Option<Duration> {
        let Some(entry) = self.kind.store.cache.entry(key) else {
            self.forget_failures(key);
            self.kind.controller.deleted(key);
            self.metrics.gone.inc();
            return None;
        };
        // A panic is a bug of ours and must not stop the other objects.
        let result = AssertUnwindSafe(self.reconcile(key, entry)).catch_unwind().await;
        match result {
            Ok(Ok(requeue_after)) => {
                self.forget_failures(key);
                self.metrics.done.inc();
                Some(
                    requeue_after
                        .unwrap_or(RESYNC)
                        .min(RESYNC)
                        .mul_f64(1.0 + 0.1 * spread(key, requeue_after)),
                )
            }
            Ok(Err(error)) => {
                self.metrics.failed.inc();
                self.metrics.retry(error.class);
                Some(self.failed(key, &error))
            }
            Err(_) => {
                tracing::error!("panicked: this is a bug of the operator");
                self.metrics.panicked.inc();
                self.metrics.retry(ErrorClass::Bug);
                Some(
                    Backoff::RECONCILE
                        .delay(&key.to_string(), self.count_failure(key))
                        .max(SLOW),
                )
            }
        }
    }

    fn failures(&self) -> std::sync::MutexGuard<'_, HashMap<Key, u32>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count_failure(&self, key: &Key) -> u32 {
        let mut failures = self.failures();
        let count = failures.entry(key.clone()).or_default();
        *count = count.saturating_add(1);
        if *count == 1 {
            self.metrics.failing.inc();
        }
        *count
    }

    fn forget_failures(&self, key: &Key) {
        if self.failures().remove(key).is_some() {
            self.metrics.failing.dec();
        }
    }

    /// Returns the delay before the retry.
    fn failed(&self, key: &Key, error: &RequestError) -> Duration {
        let attempt = self.count_failure(key);
        let backoff = Backoff::RECONCILE.delay(&key.to_string(), attempt);
        let delay = match error.class {
            // Spread, so that not all refused objects are retried at the same moment.
            ErrorClass::Throttled(Some(asked)) => asked
                .mul_f64(1.0 + 0.25 * jitter(&key.to_string(), attempt))
                .max(backoff),
            ErrorClass::Forbidden | ErrorClass::Invalid | ErrorClass::Bug => backoff.max(SLOW),
            _ => backoff,
        };
        tracing::warn!(class = error.class.as_str(), attempt, ?delay, %error, "reconciliation failed");
        delay
    }

    async fn reconcile(&self, key: &Key, entry: Entry<C::Object>) -> Result<Option<Duration>, RequestError> {
        let (context, controller) = (&*self.context, &*self.kind.controller);
        let object = match entry {
            Entry::Valid(object) => object,
            Entry::Invalid(invalid) => {
                invalid::report::<C>(context, key, &invalid).await?;
                return Ok(None);
            }
        };
        let mut world = controller.observe(context, key, object.clone());
        let now = context.clock.now();
        let (mut plan, mut unread) = self.decide(key, &object, &mut world, now).await?;
        let mut acted = act(context, &self.kind, key, &world, &plan.actions).await;
        if let Some(pod) = acted.unwatched.take() {
            // The decision was made without it.
            controller.add_unwatched(&mut world, pod);
            (plan, unread) = self.decide(key, &object, &mut world, now).await?;
            acted = act(context, &self.kind, key, &world, &plan.actions).await;
        }
        if let Some(error) = acted.stopped.as_ref().filter(|error| self.should_report(key, error)) {
            acted.outcome.results.push(StepResult::Failed(error.answer()));
        }
        if let Some(patch) = controller.settle(&world, &plan, &acted.outcome, now) {
            self.write_status(key, &object, &patch.body).await?;
            for event in &patch.events {
                log(event);
                events::publish(context, &*object, event, now).await;
            }
        }
        match acted.stopped.or(unread) {
            Some(error) => Err(error),
            None => {
                let poll = controller.has_unwatched(&world).then_some(POLL);
                Ok(until(controller.requeue(&plan, &acted.outcome, now), now)
                    .into_iter()
                    .chain(poll)
                    .min())
            }
        }
    }

    /// Returns whether the status reports a failed request: one that a retry does not fix, or one that has failed again
    /// and again. A single failure while a server restarts is not reported.
    fn should_report(&self, key: &Key, error: &RequestError) -> bool {
        match error.class {
            ErrorClass::Forbidden | ErrorClass::Invalid => true,
            ErrorClass::Transient | ErrorClass::Throttled(_) => {
                self.failures().get(key).copied().unwrap_or_default().saturating_add(1) >= REPORTED_AFTER
            }
            ErrorClass::Conflict | ErrorClass::AlreadyExists | ErrorClass::Gone | ErrorClass::Bug => false,
        }
    }

    /// Decides, after reading what the decision asks for. The error is that of a read without which something could be
    /// decided. That read is to be retried.
    async fn decide(
        &self,
        key: &Key,
        object: &C::Object,
        world: &mut C::World,
        now: Timestamp,
    ) -> Result<(Plan<C::Status>, Option<RequestError>), RequestError> {
        let (context, controller) = (&*self.context, &*self.kind.controller);
        let mut unread = None;
        for _ in 0..MAX_READS {
            let plan = controller.decide(world, &context.settings, now);
            if plan.needs.is_empty() {
                for why in &plan.why {
                    tracing::debug!(why = %why);
                }
                return Ok((plan, unread));
            }
            for need in &plan.needs {
                tracing::debug!(?need, "read");
                if *need == Need::Object {
                    if self.confirm(key, object, world).await? {
                        continue;
                    }
                    return Ok((Plan::default(), None));
                }
                if let Err(error) = controller.read(context, key, world, need).await {
                    if !self.should_report(key, &error) || !controller.unreadable(world, need, &error) {
                        return Err(error);
                    }
                    unread = Some(error);
                }
            }
        }
        Err(RequestError {
            request: "decide".to_owned(),
            class: ErrorClass::Bug,
            message: format!("the plan still has needs after {MAX_READS} rounds of reading"),
            status: None,
        })
    }

    /// Reads the object live. Returns whether it is the one that the world holds. Otherwise the cache gets the live
    /// one, and the object is requeued.
    async fn confirm(&self, key: &Key, object: &C::Object, world: &mut C::World) -> Result<bool, RequestError> {
        let (cache, controller) = (&self.kind.store.cache, &*self.kind.controller);
        match self.context.requests.get::<C::Object>(key).await? {
            Some(live) if live.meta().resource_version == object.meta().resource_version => {
                tracing::warn!("the status does not have the run of the latest pod: it is recovered from the pod");
                controller.confirm(world);
                Ok(true)
            }
            Some(live) => {
                cache.overwrite(live);
                Ok(false)
            }
            None => {
                cache.remove_uid(key, object.meta().uid.as_deref());
                Ok(false)
            }
        }
    }

    async fn write_status(&self, key: &Key, object: &C::Object, patch: &serde_json::Value) -> Result<(), RequestError> {
        let (context, cache) = (&*self.context, &self.kind.store.cache);
        let error = match context.requests.patch_status::<C::Object>(key, patch).await {
            Ok(written) => {
                context
                    .metrics
                    .status_written(C::run_status(object), C::run_status(&written));
                cache.apply_response(written);
                return Ok(());
            }
            Err(error) => error,
        };
        if matches!(error.class, ErrorClass::Conflict | ErrorClass::Gone) {
            // The cache is behind. The watch will catch up, but one read is quicker. It also fixes a cache that is
            // ahead of a restored cluster.
            match context.requests.get::<C::Object>(key).await? {
                Some(live) => cache.overwrite(live),
                None => cache.remove_uid(key, object.meta().uid.as_deref()),
            }
        }
        Err(error)
    }
}

/// Logs what an event reports. Events are deleted after an hour, and logs are kept.
fn log(event: &EventNote) {
    let (reason, message) = (event.reason.as_str(), event.message.as_str());
    if event.warning {
        tracing::warn!(reason, "{message}");
    } else {
        tracing::info!(reason, "{message}");
    }
}

fn until(at: Option<Timestamp>, now: Timestamp) -> Option<Duration> {
    let wait = at?.duration_since(now);
    // Times in objects have whole seconds. A reconciliation that is a fraction too early would only be repeated.
    Some(Duration::try_from(wait).unwrap_or_default())
}

/// Spreads the resync only: what a plan asks for happens when the plan asks for it.
fn spread(key: &Key, requeue_after: Option<Duration>) -> f64 {
    if requeue_after.is_some() {
        0.0
    } else {
        jitter(&key.to_string(), 0)
    }
}
