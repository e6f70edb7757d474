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

use tokio::{sync::Notify, time::Instant};

use crate::key::Key;

/// A work queue. Shared by its producers and workers.
#[derive(Debug, Default)]
pub struct Queue {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Who is due when, the earliest first.
    due: BTreeSet<(Instant, Key)>,
    /// The same by key.
    when: HashMap<Key, Instant>,
    /// Who is being looked at, and when it asked to be due again.
    running: HashMap<Key, Option<Instant>>,
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

    fn take(&mut self, now: Instant) -> Result<Key, Option<Instant>> {
        match self.due.first() {
            Some((at, _)) if *at <= now => {}
            other => return Err(other.map(|(at, _)| *at)),
        }
        // Just seen to be there.
        let Some((_, key)) = self.due.pop_first() else {
            return Err(None);
        };
        self.when.remove(&key);
        self.running.insert(key.clone(), None);
        Ok(key)
    }
}

impl Queue {
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
                Ok(key) => {
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

    #[tokio::test(start_paused = true)]
    async fn the_earliest_time_counts_and_an_object_is_due_once() {
        let queue = Queue::default();
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
        let queue = Queue::default();
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
        let queue = std::sync::Arc::new(Queue::default());
        queue.add_after(key("late"), Duration::from_secs(100));
        let waiting = tokio::spawn({
            let queue = queue.clone();
            async move { queue.next().await }
        });
        tokio::time::advance(Duration::from_secs(1)).await;
        queue.add(key("now"));
        assert_eq!(waiting.await.unwrap(), key("now"));
    }
}
