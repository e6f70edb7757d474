//! Leader election with a `coordination.k8s.io/v1` Lease.
//!
//! The lease is acquired and renewed by compare-and-swap on its resourceVersion, so only one of two concurrent writes
//! can succeed. As in client-go, a candidate measures the lease duration with its own clock, from the moment when it
//! observed the last renewal. The clocks of the replicas may differ.
//!
//! A candidate watches the lease and acquires a released lease immediately. Otherwise it waits until the lease duration
//! has passed without a renewal.
//!
//! A lease alone does not fence writes, because a leader may be paused in the middle of one. Therefore
//! `Leadership::remaining` ends (client-go's renew deadline) before a candidate may take over, and it is the deadline
//! of each write. Each write of the operator also carries its own precondition.

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

/// Settings of leader election.
#[derive(Clone, Debug)]
pub struct LeaseSettings {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// Identity of this replica, unique among the replicas, for instance the name of the pod.
    pub identity: String,
    /// The lease duration of client-go: a candidate may take over after this time without a renewal.
    pub duration: Duration,
    /// Time between two renewals (client-go's retry period). A failed request is repeated after a fifth of it.
    pub interval: Duration,
}

impl LeaseSettings {
    /// Returns settings with the default times: a lease duration of 15 s and a renewal every 5 s (0.2 requests per
    /// second).
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

    /// Returns the renew deadline of client-go: the time after *sending* the last renewal when the leader stops. The
    /// last third of the lease duration is left for requests in flight.
    fn renew_deadline(&self) -> Duration {
        self.duration * 2 / 3
    }
}

/// An instant on two clocks: tokio's clock, and the boot-time clock, which also counts while the machine is suspended.
///
/// A virtual machine that was suspended and resumed must notice that its lease has expired. The monotonic clock of
/// Linux does not count that time.
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

/// Returns the time since boot, including the time when the machine was suspended. Always zero if the system has no
/// such clock.
fn since_boot() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer refers to our own timespec, and the call fills it.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    if result != 0 {
        return Duration::ZERO;
    }
    let (seconds, nanoseconds) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Duration::new(seconds.unwrap_or_default(), nanoseconds.unwrap_or_default())
}

/// The permission of this replica to write. Clones share the same state.
#[derive(Clone, Debug)]
pub struct Leadership(Arc<Mutex<Hold>>);

#[derive(Clone, Copy, Debug)]
enum Hold {
    /// There is only one replica.
    Always,
    /// The leader, until this renew deadline after the last renewal.
    For(Duration, SuspendAwareInstant),
    /// Not the leader.
    None,
}

impl Leadership {
    /// Returns the leadership of a process that is not the leader yet. It must not write.
    #[must_use]
    pub fn pending() -> Self {
        Self(Arc::new(Mutex::new(Hold::None)))
    }

    /// Makes this process the leader for good, without a lease. Only for a process without other replicas.
    pub fn lead_unconditionally(&self) {
        self.set(Hold::Always);
    }

    /// Returns whether this replica may write now.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.remaining().is_some()
    }

    /// Returns the time until this replica must stop writing, unless it renews its lease. `None` when it must not
    /// write.
    pub(crate) fn remaining(&self) -> Option<Duration> {
        match *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Hold::Always => Some(Duration::MAX),
            Hold::For(deadline, since) => deadline.checked_sub(since.elapsed()).filter(|left| !left.is_zero()),
            Hold::None => None,
        }
    }

    /// Completes when this replica must stop writing. A renewal extends the wait.
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

/// A lease held by this replica.
#[derive(Debug)]
pub struct HeldLease {
    api: Api<Lease>,
    settings: LeaseSettings,
    clock: SharedClock,
    lease: Lease,
    renewed: SuspendAwareInstant,
    leadership: Leadership,
}

/// Waits until the lease is free or expired, and acquires it. Then `leadership` is current. Returns `None` when
/// `shutdown` came first.
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
        observed: None,
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
                        candidate.acquire(lease.as_ref()).await
                    }
                    Some(Ok(_)) => Ok(None),
                    // Without a watch, the candidate polls the lease.
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
                    tracing::warn!(class = classify(&error).as_str(), %error, "cannot acquire the lease");
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
    /// The last observed resourceVersion of the lease, and the time when that version expires.
    observed: Option<(Option<String>, Instant)>,
}

impl Candidate {
    /// Completes when the observed lease has expired. Never completes before a lease was observed.
    async fn holder_expired(&self) {
        match &self.observed {
            Some((_, expiry)) => tokio::time::sleep_until(*expiry).await,
            None => std::future::pending().await,
        }
    }

    fn retry_in(&mut self, pause: Duration) {
        let version = self.observed.take().and_then(|(version, _)| version);
        self.observed = Some((version, Instant::now() + pause));
    }

    /// Reads the lease, and acquires it if it is free or expired.
    async fn try_acquire(&mut self) -> Result<Option<HeldLease>, kube::Error> {
        let current = self.api.get_opt(&self.settings.name).await?;
        match current {
            Some(current) if !self.is_free(&current) => Ok(None),
            current => self.acquire(current.as_ref()).await,
        }
    }

    /// Writes this replica into the lease, which was free or expired when it was read.
    async fn acquire(&self, current: Option<&Lease>) -> Result<Option<HeldLease>, kube::Error> {
        let sent = SuspendAwareInstant::now();
        let wanted = claim(&self.settings, current, self.clock.now());
        let params = PostParams::default();
        let written = match current {
            None => self.api.create(&params, &wanted).await,
            Some(_) => self.api.replace(&self.settings.name, &params, &wanted).await,
        };
        match written {
            Ok(lease) => {
                self.leadership.set(Hold::For(self.settings.renew_deadline(), sent));
                Ok(Some(HeldLease {
                    api: self.api.clone(),
                    clock: self.clock.clone(),
                    leadership: self.leadership.clone(),
                    settings: self.settings.clone(),
                    lease,
                    renewed: sent,
                }))
            }
            // Another candidate was faster.
            Err(error) if matches!(classify(&error), ErrorClass::Conflict | ErrorClass::AlreadyExists) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns whether the lease has no other holder or has expired.
    fn is_free(&mut self, lease: &Lease) -> bool {
        let spec = lease.spec.as_ref();
        let holder = spec
            .and_then(|spec| spec.holder_identity.as_deref())
            .unwrap_or_default();
        // With our own identity, this replica held the lease before a restart. No two replicas share an identity.
        if holder.is_empty() || holder == self.settings.identity {
            return true;
        }
        let version = &lease.metadata.resource_version;
        let now = Instant::now();
        if let Some((observed, expiry)) = &self.observed
            && observed == version
        {
            return *expiry <= now;
        }
        // Use the lease duration of the holder, which may run with other settings.
        let lease_duration = spec
            .and_then(|spec| spec.lease_duration_seconds)
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map(Duration::from_secs);
        self.observed = Some((version.clone(), now + lease_duration.unwrap_or(self.settings.duration)));
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
    /// Renews the lease until it is lost or `shutdown` comes. On shutdown it releases the lease, so that the next
    /// replica need not wait.
    pub async fn hold(mut self, shutdown: &Shutdown) -> HoldEnd {
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(self.renewed.tokio + self.settings.interval) => {}
                () = shutdown.requested() => {
                    self.release().await;
                    return HoldEnd::Released;
                }
            }
            let left = self.settings.renew_deadline().saturating_sub(self.renewed.elapsed());
            // After the renew deadline, send nothing: the process was paused, and another replica may be the leader.
            if left.is_zero() || tokio::time::timeout(left, self.renew()).await != Ok(true) {
                self.leadership.set(Hold::None);
                return HoldEnd::Lost;
            }
        }
    }

    /// Renews the lease once, with retries. The caller limits the time. Returns false when another replica holds it.
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
                    self.leadership.set(Hold::For(self.settings.renew_deadline(), sent));
                    return true;
                }
                // The answer to an earlier renewal of ours may have been lost. Read the lease to find its holder.
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
        // Best effort: without a release, the next replica waits for the lease duration.
        if let Ok(Err(error)) = tokio::time::timeout(self.settings.interval, replaced).await {
            tracing::warn!(%error, "cannot release the lease");
        }
    }
}

/// The reason why a replica stopped holding the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldEnd {
    /// It was not renewed in time, or another replica holds it.
    Lost,
    /// This replica released it.
    Released,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_while_the_machine_is_suspended_counts() {
        let now = SuspendAwareInstant::now();
        assert!(now.boot > Duration::ZERO, "the system has a boot-time clock");
        let minute = Duration::from_secs(60);
        let leadership = Leadership::pending();
        leadership.set(Hold::For(minute, now));
        assert!(leadership.remaining().is_some_and(|left| left > minute / 2));
        // As if tokio's clock had stopped for a minute while the machine was suspended.
        let suspended = SuspendAwareInstant {
            boot: now.boot.saturating_sub(minute),
            ..now
        };
        leadership.set(Hold::For(minute, suspended));
        assert_eq!(leadership.remaining(), None);
        assert!(!leadership.is_current());
    }
}
