//! Which of several replicas writes.
//!
//! A `coordination.k8s.io/v1` Lease, taken and renewed by compare-and-swap on its resourceVersion: two replicas can never
//! both believe that their write won. As in client-go, a challenger measures the holder's silence with its own clock,
//! from the moment it saw the last renewal, so that clocks need not agree.
//!
//! A challenger watches the lease, so that one that is given back is taken at once, and waits for nothing else but the
//! holder's silence.
//!
//! A lease alone fences nothing: a holder may be paused in mid-write. So [`Leadership::remaining`] ends before a
//! challenger may take over, no write is waited for beyond it, and every write of the operator carries a precondition of
//! its own.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, api::PostParams, runtime::watcher::watch_object};
use tokio::time::Instant;

use crate::{
    SharedClock, Shutdown,
    retry::{ErrorClass, classify},
};

/// How a lease is held.
#[derive(Clone, Debug)]
pub struct LeaseSettings {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// Who asks: unique among the replicas, as the pod's name is.
    pub identity: String,
    /// A holder that is silent for so long may be replaced.
    pub duration: Duration,
    /// How often the holder renews.
    pub interval: Duration,
}

impl LeaseSettings {
    /// The usual times: replaced after 15 s of silence, renewed every 5 s (0.2 requests a second).
    #[must_use]
    pub fn new(namespace: impl Into<String>, name: impl Into<String>, identity: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            identity: identity.into(),
            duration: Duration::from_secs(15),
            interval: Duration::from_secs(5),
        }
    }

    /// How long after a renewal was *sent* the holder still acts: a third of the duration is left for what is in flight.
    fn usable(&self) -> Duration {
        self.duration * 2 / 3
    }
}

/// A point in time by two clocks: tokio's, and the one that goes on while the machine is suspended.
///
/// A virtual machine that is suspended and resumed must not believe that its lease still runs, and the monotonic clock of
/// Linux stands still meanwhile.
#[derive(Clone, Copy, Debug)]
struct SuspendAwareInstant {
    tokio: Instant,
    boot: Duration,
}

impl SuspendAwareInstant {
    fn now() -> Self {
        Self {
            tokio: Instant::now(),
            boot: since_boot(),
        }
    }

    fn elapsed(&self) -> Duration {
        self.tokio.elapsed().max(since_boot().saturating_sub(self.boot))
    }
}

/// Time since the machine was booted, with the time that it was suspended. Zero, always, where the system does not tell.
fn since_boot() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec of ours, which the call fills.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    if result != 0 {
        return Duration::ZERO;
    }
    let (seconds, nanoseconds) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Duration::new(seconds.unwrap_or_default(), nanoseconds.unwrap_or_default())
}

/// Whether this replica may write. Cloning gives another view of the same.
#[derive(Clone, Debug)]
pub struct Leadership(Arc<Mutex<Hold>>);

#[derive(Clone, Copy, Debug)]
enum Hold {
    /// There is one replica only.
    Always,
    /// Held for so long since then, unless renewed.
    For(Duration, SuspendAwareInstant),
    /// Held by nobody here.
    None,
}

impl Leadership {
    /// For a process that does not lead yet: nothing may be written.
    #[must_use]
    pub fn pending() -> Self {
        Self(Arc::new(Mutex::new(Hold::None)))
    }

    /// Now the process is alone by construction.
    pub fn lead_unconditionally(&self) {
        self.set(Hold::Always);
    }

    /// May this replica write now?
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.remaining().is_some()
    }

    /// For how long this replica may write, unless it renews its lease; `None` when it may not.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        match *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Hold::Always => Some(Duration::MAX),
            Hold::For(usable, since) => usable.checked_sub(since.elapsed()).filter(|left| !left.is_zero()),
            Hold::None => None,
        }
    }

    /// Ends when this replica may write no longer. Renewals on the way put it off.
    pub async fn lost(&self) {
        loop {
            match self.remaining() {
                None => return,
                Some(Duration::MAX) => std::future::pending().await,
                Some(left) => tokio::time::sleep(left).await,
            }
        }
    }

    fn set(&self, hold: Hold) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = hold;
    }
}

/// A lease that this replica holds.
#[derive(Debug)]
pub struct HeldLease {
    api: Api<Lease>,
    settings: LeaseSettings,
    clock: SharedClock,
    lease: Lease,
    renewed: SuspendAwareInstant,
    leadership: Leadership,
}

/// Waits until the lease is free, or its holder has been silent for too long, and takes it; from then on `leadership` is
/// current. `None` when `shutdown` came first.
pub async fn acquire(
    client: Client,
    settings: LeaseSettings,
    clock: SharedClock,
    leadership: Leadership,
    shutdown: &Shutdown,
) -> Option<HeldLease> {
    let api: Api<Lease> = Api::namespaced(client, &settings.namespace);
    let pause = settings.interval / 5;
    let mut candidate = Candidate {
        api: api.clone(),
        settings,
        clock,
        leadership,
        seen: None,
    };
    loop {
        let mut changes = std::pin::pin!(watch_object(api.clone(), &candidate.settings.name));
        loop {
            let refused = tokio::select! {
                biased;
                () = shutdown.requested() => return None,
                () = candidate.holder_expired() => candidate.try_acquire().await,
                change = changes.next() => match change {
                    None => break,
                    Some(Ok(lease)) if lease.as_ref().is_none_or(|lease| candidate.is_free(lease)) => {
                        candidate.take(lease.as_ref()).await
                    }
                    Some(Ok(_)) => Ok(None),
                    // Without the watch, looking now and then has to do.
                    Some(Err(error)) => {
                        tracing::warn!(%error, "cannot watch the lease");
                        tokio::select! {
                            () = tokio::time::sleep(pause) => {}
                            () = shutdown.requested() => return None,
                        }
                        candidate.try_acquire().await
                    }
                },
            };
            match refused {
                Ok(Some(held)) => {
                    tracing::info!(lease = held.settings.name, identity = held.settings.identity, "leading");
                    return Some(held);
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(class = classify(&error).as_str(), %error, "cannot take the lease");
                    candidate.retry_in(pause);
                }
            }
        }
    }
}

struct Candidate {
    api: Api<Lease>,
    settings: LeaseSettings,
    clock: SharedClock,
    leadership: Leadership,
    /// The version of the lease that was seen last, and when its holder may be replaced.
    seen: Option<(Option<String>, Instant)>,
}

impl Candidate {
    /// Ends when the holder's time is over. A lease that was not seen yet is waited for.
    async fn holder_expired(&self) {
        match &self.seen {
            Some((_, end)) => tokio::time::sleep_until(*end).await,
            None => std::future::pending().await,
        }
    }

    fn retry_in(&mut self, pause: Duration) {
        let version = self.seen.take().and_then(|(version, _)| version);
        self.seen = Some((version, Instant::now() + pause));
    }

    /// Reads the lease, and takes it when it is free.
    async fn try_acquire(&mut self) -> Result<Option<HeldLease>, kube::Error> {
        let current = self.api.get_opt(&self.settings.name).await?;
        match current {
            Some(current) if !self.is_free(&current) => Ok(None),
            current => self.take(current.as_ref()).await,
        }
    }

    /// Takes the lease, which was free when it was seen.
    async fn take(&self, current: Option<&Lease>) -> Result<Option<HeldLease>, kube::Error> {
        let sent = SuspendAwareInstant::now();
        let wanted = claim(&self.settings, current, self.clock.now());
        let params = PostParams::default();
        let taken = match current {
            None => self.api.create(&params, &wanted).await,
            Some(_) => self.api.replace(&self.settings.name, &params, &wanted).await,
        };
        match taken {
            Ok(lease) => {
                self.leadership.set(Hold::For(self.settings.usable(), sent));
                Ok(Some(HeldLease {
                    api: self.api.clone(),
                    clock: self.clock.clone(),
                    leadership: self.leadership.clone(),
                    settings: self.settings.clone(),
                    lease,
                    renewed: sent,
                }))
            }
            // Another challenger was faster.
            Err(error) if matches!(classify(&error), ErrorClass::Conflict | ErrorClass::AlreadyExists) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn is_free(&mut self, lease: &Lease) -> bool {
        let spec = lease.spec.as_ref();
        let holder = spec
            .and_then(|spec| spec.holder_identity.as_deref())
            .unwrap_or_default();
        // Our own name: this replica held it before it was restarted, and one identity runs once.
        if holder.is_empty() || holder == self.settings.identity {
            return true;
        }
        let version = &lease.metadata.resource_version;
        let now = Instant::now();
        if let Some((seen, end)) = &self.seen
            && seen == version
        {
            return *end <= now;
        }
        // The holder's own duration counts: it may have been started with another setting.
        let promised = spec
            .and_then(|spec| spec.lease_duration_seconds)
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map(Duration::from_secs);
        self.seen = Some((version.clone(), now + promised.unwrap_or(self.settings.duration)));
        false
    }
}

fn claim(settings: &LeaseSettings, previous: Option<&Lease>, now: Timestamp) -> Lease {
    let spec = previous.and_then(|lease| lease.spec.clone()).unwrap_or_default();
    let metadata = match previous {
        Some(lease) => lease.metadata.clone(),
        None => ObjectMeta {
            name: Some(settings.name.clone()),
            ..ObjectMeta::default()
        },
    };
    Lease {
        metadata,
        spec: Some(LeaseSpec {
            holder_identity: Some(settings.identity.clone()),
            lease_duration_seconds: i32::try_from(settings.duration.as_secs()).ok(),
            acquire_time: Some(MicroTime(now)),
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(spec.lease_transitions.map_or(0, |n| n.saturating_add(1))),
            ..spec
        }),
    }
}

impl HeldLease {
    /// Renews until the lease is lost or `shutdown` comes. Returns whether it was lost; otherwise it was given back, so
    /// that the next replica need not wait.
    pub async fn hold(mut self, shutdown: &Shutdown) -> HoldEnd {
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(self.renewed.tokio + self.settings.interval) => {}
                () = shutdown.requested() => {
                    self.release().await;
                    return HoldEnd::Released;
                }
            }
            let left = self.settings.usable().saturating_sub(self.renewed.elapsed());
            // Nothing is sent when there is no time left: the process was paused, and somebody else may hold it.
            if left.is_zero() || tokio::time::timeout(left, self.renew()).await != Ok(true) {
                self.leadership.set(Hold::None);
                return HoldEnd::Lost;
            }
        }
    }

    /// Renews once, trying again for as long as the caller waits.
    async fn renew(&mut self) -> bool {
        loop {
            let sent = SuspendAwareInstant::now();
            let mut lease = self.lease.clone();
            if let Some(spec) = &mut lease.spec {
                spec.renew_time = Some(MicroTime(self.clock.now()));
            }
            let params = PostParams::default();
            match self.api.replace(&self.settings.name, &params, &lease).await {
                Ok(lease) => {
                    self.lease = lease;
                    self.renewed = sent;
                    self.leadership.set(Hold::For(self.settings.usable(), sent));
                    return true;
                }
                // Also after a renewal of ours whose answer was lost: the object tells whose it is.
                Err(error) if classify(&error) == ErrorClass::Conflict => match self.api.get(&self.settings.name).await
                {
                    Ok(lease) if self.is_ours(&lease) => self.lease = lease,
                    Ok(_) => return false,
                    Err(_) => {}
                },
                Err(error) => tracing::warn!(class = classify(&error).as_str(), %error, "cannot renew the lease"),
            }
            tokio::time::sleep(self.settings.interval / 5).await;
        }
    }

    fn is_ours(&self, lease: &Lease) -> bool {
        lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()) == Some(self.settings.identity.as_str())
    }

    async fn release(&mut self) {
        self.leadership.set(Hold::None);
        let mut lease = self.lease.clone();
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = None;
        }
        let params = PostParams::default();
        let replaced = self.api.replace(&self.settings.name, &params, &lease);
        // A courtesy: without it the next replica waits out the duration.
        if let Ok(Err(error)) = tokio::time::timeout(self.settings.interval, replaced).await {
            tracing::warn!(%error, "cannot give the lease back");
        }
    }
}

/// Was the lease lost?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldEnd {
    /// Somebody else may hold it.
    Lost,
    /// It was given back.
    Released,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_that_the_machine_was_suspended_counts() {
        let now = SuspendAwareInstant::now();
        assert!(now.boot > Duration::ZERO, "the system tells");
        let minute = Duration::from_secs(60);
        let leadership = Leadership::pending();
        leadership.set(Hold::For(minute, now));
        assert!(leadership.remaining().is_some_and(|left| left > minute / 2));
        // As if the clock of tokio had stood still for a minute.
        let suspended = SuspendAwareInstant {
            boot: now.boot.saturating_sub(minute),
            ..now
        };
        leadership.set(Hold::For(minute, suspended));
        assert_eq!(leadership.remaining(), None);
        assert!(!leadership.is_current());
    }
}
