//! The work queue of one kind: which objects must be looked at, and when.
//!
//! An object is never looked at by two workers at once; a change that comes meanwhile makes it due again. An object may
//! be due at one time only: the earliest that anybody asked for. Nothing here can lose a wake-up, and nothing grows with
//! objects that are gone.
//!
//! Objects that are new come before others: when many come at once, work begins for all of them before what became of the
//! first is written down, which by then is often one write less.

use std::{
    cmp,
    collections::{BTreeSet, HashMap},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use prometheus_client::metrics::histogram::Histogram;
use tokio::{sync::Notify, time::Instant};

use crate::key::Key;

/// A work queue. Context by its producers and workers.
#[derive(Debug)]
pub(crate) struct Queue {
    kind: &'static str,
    state: Mutex<State>,
    changed: Notify,
    waits: Histogram,
}

/// What there is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backlog {
    /// How many objects are due and wait.
    pub(crate) due: usize,
    /// For how long the first of them has been due.
    pub(crate) oldest: Duration,
    /// How many are being looked at.
    pub(crate) running: usize,
    /// For how long none was taken up.
    pub(crate) idle: Duration,
}

/// So many objects are taken up, at most, until it is the turn of one that is not new.
const OTHERS_EVERY: u32 = 8;

#[derive(Debug, Default)]
struct State {
    /// Who is due when, the earliest first.
    due: BTreeSet<(Instant, Key)>,
    /// The same of objects that are new.
    new: BTreeSet<(Instant, Key)>,
    /// How many new ones were taken up since the last other one.
    streak: u32,
    /// Both by key.
    when: HashMap<Key, Due>,
    /// Who is being looked at, and when it asked to be due again.
    running: HashMap<Key, Option<Instant>>,
    /// When the last one was taken up; none while nobody works.
    taken: Option<Instant>,
}

/// When an object is due.
#[derive(Clone, Copy, Debug)]
struct Due {
    at: Instant,
    new: bool,
}

impl State {
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
        // Just seen to be there.
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
    /// An empty queue; `waits` is told how long each object waited.
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

    /// Work begins now. What was due before has not waited until now: a replica that stands by collects what it would do.
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

    /// What there is to do; nothing while nobody works.
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

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes an object due now.
    pub(crate) fn add(&self, key: Key) {
        self.add_after(key, Duration::ZERO);
    }

    /// Makes an object due now that nobody has looked at yet.
    pub(crate) fn add_new(&self, key: Key) {
        self.state().schedule(key, Instant::now(), true);
        self.changed.notify_one();
    }

    /// Makes an object due in a while, unless it is due earlier anyway.
    pub(crate) fn add_after(&self, key: Key, delay: Duration) {
        self.state().schedule(key, Instant::now() + delay, false);
        self.changed.notify_one();
    }

    /// Waits for the next due object. Whoever gets it calls [`Queue::done`] afterwards.
    pub(crate) async fn next(&self) -> Key {
        loop {
            // Made before looking, so that what is added in between is not missed.
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

    /// The object was looked at; it is due again after `again`, or when it changed meanwhile.
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
        /// Is nothing due, now or later, and nothing running?
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
        for name in ["other-1", "other-2", "told-again"] {
            queue.add(key(name));
        }
        tokio::time::advance(Duration::from_secs(1)).await;
        for number in 0..15 {
            queue.add_new(key(&format!("new-{number:02}")));
        }
        queue.add_new(key("told-again"));
        let mut taken = Vec::new();
        while !queue.is_empty() {
            let key = queue.next().await;
            taken.push(key.name.to_string());
            queue.done(key, None);
        }
        let new = (0..15).map(|number| format!("new-{number:02}"));
        // It has been due for longest, and counts as new by now.
        let mut expected = vec!["told-again".to_owned()];
        expected.extend(new);
        expected.insert(7, "other-1".to_owned());
        expected.insert(15, "other-2".to_owned());
        assert_eq!(taken, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_is_never_handed_out_twice_at_once() {
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
        assert_eq!(
            queue.backlog(),
            Backlog::default(),
            "a replica that stands by is behind with nothing"
        );
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
