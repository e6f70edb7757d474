//! One driver for all kinds: takes due objects from the queue and runs the five steps for each.
//!
//! Errors are logged here and nowhere else, once each.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::FutureExt as _;
use jiff::Timestamp;
use kube::Resource as _;
use legion_plan::{Plan, StepResult};
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
    reconcile::{act::act, controller::Controller, events, invalid},
    requests::RequestError,
    watch::cache::Entry,
};

/// How often an object is looked at although nothing happens: should a wake-up ever be lost, it is lost for no longer.
const RESYNC: Duration = Duration::from_secs(3600);
/// Before a request is repeated that the server refuses for a reason that only people can remove.
const SLOW: Duration = Duration::from_secs(60);
/// How often a pod is read whose label somebody took away, so that no watch tells what becomes of it.
const POLL: Duration = Duration::from_secs(15);
/// So often in a row may a request fail before the status speaks of it: with the back-off between, less than five seconds.
const PATIENCE: u32 = 3;
/// A plan that still asks for more after so many rounds of reading will always do.
const MAX_READS: usize = 8;

/// Reconciles one kind.
pub(crate) struct Driver<K: Controller> {
    context: Arc<Context>,
    failures: Mutex<HashMap<Key, u32>>,
    metrics: DriverMetrics,
    kind: std::marker::PhantomData<K>,
}

impl<K: Controller> Driver<K> {
    /// A driver that has nothing to do yet.
    #[must_use]
    pub(crate) fn new(context: Arc<Context>) -> Arc<Self> {
        Arc::new(Self {
            metrics: context.metrics.for_driver(K::NAME),
            context,
            failures: Mutex::default(),
            kind: std::marker::PhantomData,
        })
    }

    /// Works until `shutdown`; what is under way is finished.
    pub(crate) async fn run(self: Arc<Self>, workers: usize, shutdown: Shutdown) {
        K::queue(&self.context).open();
        let mut tasks = JoinSet::new();
        for _ in 0..workers.max(1) {
            let (driver, shutdown) = (self.clone(), shutdown.clone());
            tasks.spawn(async move { driver.work(&shutdown).await });
        }
        while tasks.join_next().await.is_some() {}
    }

    async fn work(&self, shutdown: &Shutdown) {
        let queue = K::queue(&self.context);
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
            let span = tracing::info_span!("reconcile", kind = K::NAME, ns = %key.namespace, name = %key.name);
            let again = self.once(&key).instrument(span).await;
            self.metrics.duration.observe(began.elapsed().as_secs_f64());
            queue.done(key, again);
        }
    }

    /// Looks at one object; says when to look again.
    async fn once(&self, key: &Key) -> Option<Duration> {
        let Some(entry) = K::cache(&self.context).entry(key) else {
            self.forget_failures(key);
            K::gone(&self.context, key);
            self.metrics.gone.inc();
            return None;
        };
        // A panic is a bug of ours and must not stop the other objects.
        let result = AssertUnwindSafe(self.reconcile(key, entry)).catch_unwind().await;
        match result {
            Ok(Ok(again)) => {
                self.forget_failures(key);
                self.metrics.done.inc();
                Some(
                    again
                        .unwrap_or(RESYNC)
                        .min(RESYNC)
                        .mul_f64(1.0 + 0.1 * spread(key, again)),
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

    fn failed(&self, key: &Key, error: &RequestError) -> Duration {
        let attempt = self.count_failure(key);
        let backoff = Backoff::RECONCILE.delay(&key.to_string(), attempt);
        let delay = match error.class {
            // Spread, so that not all who were refused come back at the same moment.
            ErrorClass::Throttled(Some(asked)) => asked
                .mul_f64(1.0 + 0.25 * jitter(&key.to_string(), attempt))
                .max(backoff),
            ErrorClass::Forbidden | ErrorClass::Invalid | ErrorClass::Bug => backoff.max(SLOW),
            _ => backoff,
        };
        tracing::warn!(class = error.class.as_str(), attempt, ?delay, %error, "not done");
        delay
    }

    async fn reconcile(&self, key: &Key, entry: Entry<K::Object>) -> Result<Option<Duration>, RequestError> {
        let context = &*self.context;
        let object = match entry {
            Entry::Valid(object) => object,
            Entry::Invalid(invalid) => {
                invalid::report::<K>(context, key, &invalid).await?;
                return Ok(None);
            }
        };
        let mut world = K::observe(context, key, object.clone());
        let now = context.clock.now();
        let (mut plan, mut unread) = self.decide(key, &mut world, now).await?;
        let mut acted = act::<K>(context, key, &world, &plan.actions).await;
        if let Some(pod) = acted.unseen.take() {
            // The decision was made without it.
            K::found(&mut world, pod);
            (plan, unread) = self.decide(key, &mut world, now).await?;
            acted = act::<K>(context, key, &world, &plan.actions).await;
        }
        if let Some(error) = acted.stopped.as_ref().filter(|error| self.should_report(key, error)) {
            acted.outcome.results.push(StepResult::Failed(error.answer()));
        }
        if let Some(patch) = K::settle(&world, &plan, &acted.outcome, now) {
            self.write_status(key, &object, &patch.body).await?;
            for event in &patch.events {
                events::publish::<K>(context, &object, event, now).await;
            }
        }
        match acted.stopped.or(unread) {
            Some(error) => Err(error),
            None => {
                let poll = K::is_unwatched(&world).then_some(POLL);
                Ok(until(K::requeue(&plan, &acted.outcome, now), now)
                    .into_iter()
                    .chain(poll)
                    .min())
            }
        }
    }

    /// Whether a failed request is told in the status: one that will not pass by itself, or has failed again and again. A
    /// single answer of a server that restarts is no news.
    fn should_report(&self, key: &Key, error: &RequestError) -> bool {
        match error.class {
            ErrorClass::Forbidden | ErrorClass::Invalid => true,
            ErrorClass::Transient | ErrorClass::Throttled(_) => {
                self.failures().get(key).copied().unwrap_or_default().saturating_add(1) >= PATIENCE
            }
            ErrorClass::Conflict | ErrorClass::AlreadyExists | ErrorClass::Gone | ErrorClass::Bug => false,
        }
    }

    /// Decides, after reading what the decision asks for. Also gives back the error of a read without which something
    /// could be decided: it is to be tried again.
    async fn decide(
        &self,
        key: &Key,
        world: &mut K::World,
        now: Timestamp,
    ) -> Result<(Plan<K::Status>, Option<RequestError>), RequestError> {
        let mut unread = None;
        for _ in 0..MAX_READS {
            let plan = K::decide(world, &self.context.settings, now);
            if plan.needs.is_empty() {
                for why in &plan.why {
                    tracing::debug!(why = %why);
                }
                return Ok((plan, unread));
            }
            for need in &plan.needs {
                tracing::debug!(?need, "read");
                if let Err(error) = K::read(&self.context, key, world, need).await {
                    if !self.should_report(key, &error) || !K::unreadable(world, need, &error) {
                        return Err(error);
                    }
                    unread = Some(error);
                }
            }
        }
        Err(RequestError {
            request: "decide".to_owned(),
            class: ErrorClass::Bug,
            message: format!("still not everything is known after {MAX_READS} rounds of reading"),
            status: None,
        })
    }

    async fn write_status(&self, key: &Key, object: &K::Object, patch: &serde_json::Value) -> Result<(), RequestError> {
        let (context, cache) = (&*self.context, K::cache(&self.context));
        let error = match context.requests.patch_status::<K::Object>(key, patch).await {
            Ok(written) => {
                K::written(context, object, &written);
                cache.apply_response(written);
                return Ok(());
            }
            Err(error) => error,
        };
        if matches!(error.class, ErrorClass::Conflict | ErrorClass::Gone) {
            // The cache is behind. The watch will catch up; one read is quicker, and it also heals a cache that is ahead
            // of a cluster that was restored.
            match context.requests.get::<K::Object>(key).await? {
                Some(live) => cache.overwrite(live),
                None => cache.remove_uid(key, object.meta().uid.as_deref()),
            }
        }
        Err(error)
    }
}

fn until(at: Option<Timestamp>, now: Timestamp) -> Option<Duration> {
    let wait = at?.duration_since(now);
    // Times in objects have whole seconds; a wake-up that comes a fraction too early would only be repeated.
    Some(Duration::try_from(wait).unwrap_or_default())
}

/// Only the resync is spread: what a plan asks for happens when it asks for it.
fn spread(key: &Key, again: Option<Duration>) -> f64 {
    if again.is_some() {
        0.0
    } else {
        jitter(&key.to_string(), 0)
    }
}
