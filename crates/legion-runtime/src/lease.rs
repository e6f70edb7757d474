//! Which of several replicas writes.
//!
//! A `coordination.k8s.io/v1` Lease, taken and renewed by compare-and-swap on its resourceVersion: two replicas can never
//! both believe that their write won. As in client-go, a challenger measures the holder's silence with its own clock,
//! from the moment it saw the last renewal, so that clocks need not agree.
//!
//! A lease alone fences nothing: a holder may be paused in mid-write. So [`Leadership::is_current`] turns false before a
//! challenger may take over, and beyond that every write of the operator carries a precondition of its own.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, api::PostParams};
use tokio::time::Instant;

use crate::{
    SharedClock, Shutdown,
    retry::{Class, classify},
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
    /// How often the holder renews, and how often a challenger looks.
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

/// Whether this replica may write. Cloning gives another view of the same.
#[derive(Clone, Debug)]
pub struct Leadership(Arc<Mutex<Hold>>);

#[derive(Clone, Copy, Debug)]
enum Hold {
    /// There is one replica only.
    Always,
    /// Held until then, unless renewed.
    Until(Instant),
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
    pub fn make_sole(&self) {
        self.set(Hold::Always);
    }

    /// May this replica write now?
    #[must_use]
    pub fn is_current(&self) -> bool {
        match *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Hold::Always => true,
            Hold::Until(end) => Instant::now() < end,
            Hold::None => false,
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
    renewed: Instant,
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
    let api = Api::namespaced(client, &settings.namespace);
    let mut challenger = Challenger {
        api,
        settings,
        clock,
        leadership,
        seen: None,
    };
    loop {
        match challenger.attempt().await {
            Ok(Some(held)) => {
                tracing::info!(lease = held.settings.name, identity = held.settings.identity, "leading");
                return Some(held);
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(class = classify(&error).as_str(), %error, "cannot take the lease"),
        }
        tokio::select! {
            () = tokio::time::sleep(challenger.settings.interval) => {}
            () = shutdown.requested() => return None,
        }
    }
}

struct Challenger {
    api: Api<Lease>,
    settings: LeaseSettings,
    clock: SharedClock,
    leadership: Leadership,
    /// The version of the lease that was seen last, and since when.
    seen: Option<(Option<String>, Instant)>,
}

impl Challenger {
    async fn attempt(&mut self) -> Result<Option<HeldLease>, kube::Error> {
        let sent = Instant::now();
        let now = self.clock.now();
        let taken = match self.api.get_opt(&self.settings.name).await? {
            None => {
                self.api
                    .create(&PostParams::default(), &claim(&self.settings, None, now))
                    .await
            }
            Some(current) if self.is_free(&current) => {
                self.api
                    .replace(
                        &self.settings.name,
                        &PostParams::default(),
                        &claim(&self.settings, Some(&current), now),
                    )
                    .await
            }
            Some(_) => return Ok(None),
        };
        match taken {
            Ok(lease) => {
                self.leadership.set(Hold::Until(sent + self.settings.usable()));
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
            Err(error) if matches!(classify(&error), Class::Conflict | Class::AlreadyExists) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn is_free(&mut self, lease: &Lease) -> bool {
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.unwrap_or_default();
        // Our own name: this replica held it before it was restarted, and one identity runs once.
        if holder.is_empty() || holder == self.settings.identity {
            return true;
        }
        let version = lease.metadata.resource_version.clone();
        let since = match &self.seen {
            Some((seen, since)) if *seen == version => *since,
            _ => {
                let now = Instant::now();
                self.seen = Some((version, now));
                now
            }
        };
        // The holder's own duration counts: it may have been started with another setting.
        let promised = spec
            .lease_duration_seconds
            .and_then(|s| u64::try_from(s).ok())
            .map(Duration::from_secs);
        since.elapsed() >= promised.unwrap_or(self.settings.duration)
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
    pub async fn hold(mut self, shutdown: &Shutdown) -> Lost {
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(self.renewed + self.settings.interval) => {}
                () = shutdown.requested() => {
                    self.release().await;
                    return Lost::No;
                }
            }
            if let Lost::Yes = self.renew().await {
                self.leadership.set(Hold::None);
                return Lost::Yes;
            }
        }
    }

    /// Renews once, trying again while there is time.
    async fn renew(&mut self) -> Lost {
        loop {
            let sent = Instant::now();
            let end = self.renewed + self.settings.usable();
            let mut lease = self.lease.clone();
            if let Some(spec) = &mut lease.spec {
                spec.renew_time = Some(MicroTime(self.clock.now()));
            }
            let params = PostParams::default();
            let answer = tokio::time::timeout_at(end, self.api.replace(&self.settings.name, &params, &lease)).await;
            match answer {
                Ok(Ok(lease)) => {
                    self.lease = lease;
                    self.renewed = sent;
                    self.leadership.set(Hold::Until(sent + self.settings.usable()));
                    return Lost::No;
                }
                // Also after a renewal of ours whose answer was lost: the object tells whose it is.
                Ok(Err(error)) if classify(&error) == Class::Conflict => {
                    match self.api.get(&self.settings.name).await {
                        Ok(lease) if self.is_ours(&lease) => self.lease = lease,
                        Ok(_) => return Lost::Yes,
                        Err(_) => {}
                    }
                }
                Ok(Err(error)) => tracing::warn!(class = classify(&error).as_str(), %error, "cannot renew the lease"),
                Err(_) => return Lost::Yes,
            }
            let pause = self.settings.interval / 5;
            if Instant::now() + pause >= end {
                return Lost::Yes;
            }
            tokio::time::sleep(pause).await;
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
pub enum Lost {
    /// Somebody else may hold it.
    Yes,
    /// It was given back.
    No,
}
