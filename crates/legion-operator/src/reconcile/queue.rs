//! The work queue of one kind: which objects must be reconciled, and when.
//!
//! Two workers never reconcile the same object at the same time. A change during a reconciliation requeues the object.
//! An object is due at one time only, the earliest requested one. No requeue is lost, and nothing grows with deleted
//! objects.
//!
//! New objects come before others. When many arrive together, work starts for all of them before the result of the
//! first is written. By then this often saves a write.

use std::{
    cmp,
    collections::{BTreeSet, HashMap},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use prometheus_client::metrics::histogram::Histogram;
use tokio::{sync::Notify, time::Instant};

use crate::key::Key;

/// A work queue, shared by its producers and workers.
#[derive(Debug)]
pub(crate) struct Queue {
    kind: &'static str,
    state: Mutex<QueueState>,
    changed: Notify,
    waits: Histogram,
}

/// The objects that wait in a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backlog {
    /// Number of objects that are due and wait.
    pub(crate) due: usize,
    /// How long the first of them has been due.
    pub(crate) oldest: Duration,
    /// Number of objects that are being reconciled.
    pub(crate) running: usize,
    /// Time since the last reconciliation started.
    pub(crate) idle: Duration,
}

/// At most this many new objects run before one that is not new.
const OTHERS_EVERY: u32 = 8;

#[derive(Debug, Default)]
struct QueueState {
    /// Objects by the time at which they are due, the earliest first.
    due: BTreeSet<(Instant, Key)>,
    /// The same for new objects.
    new: BTreeSet<(Instant, Key)>,
    /// Number of new objects since the last other one.
    streak: u32,
    /// Both by key.
    when: HashMap<Key, Due>,
    /// Objects that are being reconciled, and when they must be reconciled again.
    running: HashMap<Key, Option<Instant>>,
    /// When the last reconciliation started. `None` while no worker runs.
    taken: Option<Instant>,
}

/// When an object is due.
#[derive(Clone, Copy, Debug)]
struct Due {
    at: Instant,
    new: bool,
}

impl QueueState {
    fn set(&mut self, new: bool) -> &mut BTreeSet<(Instant, Key)> {
        if new { &mut self.new } else { &mut self.due }
    }

    fn schedule(&mut self, key: Key, at: Instant, new: bool) {
        if let Some(again) = self.running.get_mut(&key) {
            *again = Some(again.map_or(at, |earlier| earlier.min(at)));
            return;
        }
        let asked = Due { at, new };
        let due = match self.when.get(&key).copied() {
            None => asked,
            Some(held) if held.at <= at && (held.new || !new) => return,
            Some(held) => {
                self.set(held.new).remove(&(held.at, key.clone()));
                Due {
                    at: cmp::min(held.at, at),
                    new: held.new || new,
                }
            }
        };
        self.set(due.new).insert((due.at, key.clone()));
        self.when.insert(key, due);
    }

    fn take(&mut self, now: Instant) -> Result<(Key, Duration), Option<Instant>> {
        let first = |set: &BTreeSet<(Instant, Key)>| set.first().map(|(at, _)| *at);
        let (other, new) = (first(&self.due), first(&self.new));
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let take_new = match (is_due(other), is_due(new)) {
            (false, false) => return Err(other.into_iter().chain(new).min()),
            (true, true) => self.streak + 1 < OTHERS_EVERY,
            (_, new) => new,
        };
        // The set has a first element, as seen above.
        let Some((at, key)) = self.set(take_new).pop_first() else {
            return Err(None);
        };
        self.streak = if take_new { self.streak.saturating_add(1) } else { 0 };
        self.when.remove(&key);
        self.running.insert(key.clone(), None);
        self.taken = Some(now);
        Ok((key, now - at))
    }
}

impl Queue {
    /// Creates an empty queue. `waits` observes how long each object waited.
    #[must_use]
    pub(crate) fn new(kind: &'static str, waits: Histogram) -> Self {
        Self {
            kind,
            state: Mutex::default(),
            changed: Notify::new(),
            waits,
        }
    }

    /// The kind of the objects.
    pub(crate) fn kind(&self) -> &'static str {
        self.kind
    }

    /// Starts the work. Objects that were due before count as due from now on: a standby replica only collects them.
    pub(crate) fn open(&self) {
        let now = Instant::now();
        let mut state = self.state();
        state.taken = Some(now);
        for new in [false, true] {
            let later = state.set(new).split_off(&(now, Key::new("", "")));
            for (_, key) in std::mem::replace(state.set(new), later) {
                state.when.insert(key.clone(), Due { at: now, new });
                state.set(new).insert((now, key));
            }
        }
    }

    /// Returns the backlog. It is empty while no worker runs.
    #[must_use]
    pub(crate) fn backlog(&self) -> Backlog {
        let now = Instant::now();
        let state = self.state();
        let Some(taken) = state.taken else {
            return Backlog::default();
        };
        let due = |set: &BTreeSet<(Instant, Key)>| set.iter().take_while(|(at, _)| *at <= now).count();
        let firsts = [&state.due, &state.new].map(|set| set.first().map(|(at, _)| *at));
        let oldest = firsts.into_iter().flatten().min().unwrap_or(now);
        Backlog {
            due: due(&state.due) + due(&state.new),
            oldest: now.saturating_duration_since(oldest),
            running: state.running.len(),
            idle: now - taken,
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requeues an object for now.
    pub(crate) fn add(&self, key: Key) {
        self.add_after(key, Duration::ZERO);
    }

    /// Queues an object that was never reconciled, for now.
    pub(crate) fn add_new(&self, key: Key) {
        self.state().schedule(key, Instant::now(), true);
        self.changed.notify_one();
    }

    /// Requeues an object after a delay, unless it is due earlier.
    pub(crate) fn add_after(&self, key: Key, delay: Duration) {
        self.state().schedule(key, Instant::now() + delay, false);
        self.changed.notify_one();
    }

    /// Waits for the next due object. The caller must call [`Queue::done`] afterwards.
    pub(crate) async fn next(&self) -> Key {
        loop {
            // Created before the check, so that no addition in between is missed.
            let changed = self.changed.notified();
            let wait = match self.state().take(Instant::now()) {
                Ok((key, waited)) => {
                    self.waits.observe(waited.as_secs_f64());
                    // Another worker may wait for what is due next.
                    self.changed.notify_one();
                    return key;
                }
                Err(wait) => wait,
            };
            match wait {
                Some(at) => tokio::select! {
                    () = changed => {}
                    () = tokio::time::sleep_until(at) => {}
                },
                None => changed.await,
            }
        }
    }

    /// Ends a reconciliation. The object is due again after `again`, or now if it changed meanwhile.
    pub(crate) fn done(&self, key: Key, again: Option<Duration>) {
        let mut state = self.state();
        let asked = state.running.remove(&key).flatten();
        let again = again.map(|delay| Instant::now() + delay);
        if let Some(at) = asked.into_iter().chain(again).min() {
            state.schedule(key, at, false);
        }
        drop(state);
        self.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Queue {
        /// Returns whether nothing is due, now or later, and nothing is running.
        fn is_empty(&self) -> bool {
            let state = self.state();
            state.when.is_empty() && state.running.is_empty()
        }
    }

    fn key(name: &str) -> Key {
        Key::new("ns", name)
    }

    fn queue() -> Queue {
        Queue::new("Kind", Histogram::new([1.0]))
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_time_counts_and_an_object_is_due_once() {
        let queue = queue();
        let start = Instant::now();
        queue.add_after(key("a"), Duration::from_secs(10));
        queue.add_after(key("a"), Duration::from_secs(3));
        queue.add_after(key("a"), Duration::from_secs(5));
        queue.add_after(key("b"), Duration::from_secs(4));
        assert_eq!(queue.next().await, key("a"));
        assert_eq!(start.elapsed().as_secs(), 3);
        assert_eq!(queue.next().await, key("b"));
        assert_eq!(start.elapsed().as_secs(), 4);
        queue.done(key("a"), None);
        queue.done(key("b"), None);
        assert!(queue.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn new_objects_come_first_and_others_get_their_turn() {
        let queue = queue();
        for name in ["other-1", "other-2", "queued-again"] {
            queue.add(key(name));
        }
        tokio::time::advance(Duration::from_secs(1)).await;
        for number in 0..15 {
            queue.add_new(key(&format!("new-{number:02}")));
        }
        queue.add_new(key("queued-again"));
        let mut taken = Vec::new();
        while !queue.is_empty() {
            let key = queue.next().await;
            taken.push(key.name.to_string());
            queue.done(key, None);
        }
        let new = (0..15).map(|number| format!("new-{number:02}"));
        // It has been due for the longest time, and counts as new now.
        let mut expected = vec!["queued-again".to_owned()];
        expected.extend(new);
        expected.insert(7, "other-1".to_owned());
        expected.insert(15, "other-2".to_owned());
        assert_eq!(taken, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_is_never_handed_out_twice_at_the_same_time() {
        let queue = queue();
        queue.add(key("a"));
        assert_eq!(queue.next().await, key("a"));
        queue.add(key("a"));
        assert!(
            tokio::time::timeout(Duration::from_secs(60), queue.next())
                .await
                .is_err()
        );
        queue.done(key("a"), Some(Duration::from_secs(3600)));
        assert_eq!(
            queue.next().await,
            key("a"),
            "the change that came meanwhile wins over the later requeue"
        );
        queue.done(key("a"), None);
        assert!(queue.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_waits_is_woken_by_an_earlier_object() {
        let queue = std::sync::Arc::new(queue());
        queue.add_after(key("late"), Duration::from_secs(100));
        let waiting = tokio::spawn({
            let queue = queue.clone();
            async move { queue.next().await }
        });
        tokio::time::advance(Duration::from_secs(1)).await;
        queue.add(key("now"));
        assert_eq!(waiting.await.unwrap(), key("now"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_backlog_counts_from_when_work_begins() {
        let queue = queue();
        let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
        for name in ["a", "b"] {
            queue.add(key(name));
        }
        queue.add_after(key("later"), minute * 10);
        tokio::time::advance(minute).await;
        assert_eq!(queue.backlog(), Backlog::default(), "a standby replica has no backlog");
        queue.open();
        tokio::time::advance(second).await;
        let expected = Backlog {
            due: 2,
            oldest: second,
            running: 0,
            idle: second,
        };
        assert_eq!(queue.backlog(), expected);
        assert_eq!(queue.next().await, key("a"));
        let expected = Backlog {
            due: 1,
            running: 1,
            idle: Duration::ZERO,
            ..expected
        };
        assert_eq!(queue.backlog(), expected);
        assert_eq!(queue.next().await, key("b"));
        queue.done(key("a"), None);
        queue.done(key("b"), None);
        tokio::time::advance(minute).await;
        let idle = Backlog {
            idle: minute,
            ..Backlog::default()
        };
        assert_eq!(queue.backlog(), idle, "what is due later is no backlog");
    }
}
