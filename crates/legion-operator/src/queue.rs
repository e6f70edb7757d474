//! The work queue of one kind: which objects must be looked at, and when.
//!
//! An object is never looked at by two workers at once; a change that comes meanwhile makes it due again. An object may
//! be due at one time only: the earliest that anybody asked for. Nothing here can lose a wake-up, and nothing grows with
//! objects that are gone.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use prometheus_client::metrics::histogram::Histogram;
use tokio::{sync::Notify, time::Instant};

use crate::key::Key;

/// A work queue. Shared by its producers and workers.
#[derive(Debug)]
pub struct Queue {
    state: Mutex<State>,
    changed: Notify,
    waits: Histogram,
}

/// What there is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// How many objects are due and wait.
    pub due: usize,
    /// For how long the first of them has been due.
    pub oldest: Duration,
    /// How many are being looked at.
    pub running: usize,
    /// For how long none was taken up.
    pub idle: Duration,
}

#[derive(Debug, Default)]
struct State {
    /// Who is due when, the earliest first.
    due: BTreeSet<(Instant, Key)>,
    /// The same by key.
    when: HashMap<Key, Instant>,
    /// Who is being looked at, and when it asked to be due again.
    running: HashMap<Key, Option<Instant>>,
    /// When the last one was taken up; none while nobody works.
    taken: Option<Instant>,
}

impl State {
    fn schedule(&mut self, key: Key, at: Instant) {
        if let Some(again) = self.running.get_mut(&key) {
            *again = Some(again.map_or(at, |earlier| earlier.min(at)));
            return;
        }
        match self.when.get(&key) {
            Some(earlier) if *earlier <= at => {}
            Some(later) => {
                self.due.remove(&(*later, key.clone()));
                self.due.insert((at, key.clone()));
                self.when.insert(key, at);
            }
            None => {
                self.due.insert((at, key.clone()));
                self.when.insert(key, at);
            }
        }
    }

    fn take(&mut self, now: Instant) -> Result<(Key, Duration), Option<Instant>> {
        match self.due.first() {
            Some((at, _)) if *at <= now => {}
            other => return Err(other.map(|(at, _)| *at)),
        }
        // Just seen to be there.
        let Some((at, key)) = self.due.pop_first() else {
            return Err(None);
        };
        self.when.remove(&key);
        self.running.insert(key.clone(), None);
        self.taken = Some(now);
        Ok((key, now - at))
    }
}

impl Queue {
    /// An empty queue; `waits` is told how long each object waited.
    #[must_use]
    pub fn new(waits: Histogram) -> Self {
        Self {
            state: Mutex::default(),
            changed: Notify::new(),
            waits,
        }
    }

    /// Work begins now. What was due before has not waited until now: a replica that stands by collects what it would do.
    pub fn open(&self) {
        let now = Instant::now();
        let mut state = self.state();
        state.taken = Some(now);
        let overdue: Vec<Key> = state
            .due
            .iter()
            .take_while(|(at, _)| *at < now)
            .map(|(_, key)| key.clone())
            .collect();
        for key in overdue {
            if let Some(at) = state.when.insert(key.clone(), now) {
                state.due.remove(&(at, key.clone()));
            }
            state.due.insert((now, key));
        }
    }

    /// What there is to do; nothing while nobody works.
    #[must_use]
    pub fn backlog(&self) -> Backlog {
        let now = Instant::now();
        let state = self.state();
        let Some(taken) = state.taken else {
            return Backlog::default();
        };
        let due = || state.due.iter().map(|(at, _)| *at).take_while(|at| *at <= now);
        Backlog {
            due: due().count(),
            oldest: due().next().map_or(Duration::ZERO, |at| now - at),
            running: state.running.len(),
            idle: now - taken,
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes an object due now.
    pub fn add(&self, key: Key) {
        self.add_after(key, Duration::ZERO);
    }

    /// Makes an object due in a while, unless it is due earlier anyway.
    pub fn add_after(&self, key: Key, delay: Duration) {
        self.state().schedule(key, Instant::now() + delay);
        self.changed.notify_one();
    }

    /// Waits for the next due object. Whoever gets it calls [`Queue::done`] afterwards.
    pub async fn next(&self) -> Key {
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
    pub fn done(&self, key: Key, again: Option<Duration>) {
        let mut state = self.state();
        let asked = state.running.remove(&key).flatten();
        let again = again.map(|delay| Instant::now() + delay);
        if let Some(at) = asked.into_iter().chain(again).min() {
            state.schedule(key, at);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// How many objects wait or are being looked at.
    #[must_use]
    pub fn len(&self) -> usize {
        let state = self.state();
        state.due.len() + state.running.len()
    }

    /// Is there nothing to look at, now or later?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::new("ns", name)
    }

    fn queue() -> Queue {
        Queue::new(Histogram::new([1.0]))
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
