//! Whose turn it is to ask for room under the quotas of a namespace.
//!
//! A quota does not report when it has room again. If every waiting object asked after every end of a pod, 1,000
//! objects would send half a million requests. So they stand in line, the oldest first:
//!
//! - A pod that ends gives one object its turn. If that object is refused, the next one in line with a *different*
//!   request gets the turn, because it may need less.
//! - A slow timer gives the first in line a turn, because quotas also change in ways that no pod of Legion shows. If
//!   that object gets its pod, the next one gets a turn immediately.
//!
//! The line is rebuilt from the statuses after a restart. Nothing is lost with it except time.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use legion_plan::training::QuotaWait;
use legion_runtime::retry::Backoff;
use tokio::time::Instant;

use crate::{key::Key, reconcile::queue::Queue};

/// From the end of a pod to the next request. The quota controller counts the ended pod in this time.
const SETTLE: Duration = Duration::from_secs(1);
/// From a turn that was in vain to the next turn by the timer. The room may only not have been counted yet.
const AGAIN: Duration = Duration::from_secs(5);
/// Between two turns by the timer.
const PROBE: Backoff = Backoff {
    first: Duration::from_secs(30),
    limit: Duration::from_secs(600),
};

/// Objects that wait for room, by namespace.
#[derive(Debug, Default)]
pub(crate) struct QuotaLines(Mutex<HashMap<Arc<str>, Line>>);

/// An object: its kind and key.
type Id = (&'static str, Key);

#[derive(Debug)]
struct Line {
    /// Those that wait, the oldest first.
    waiting: BTreeMap<(Timestamp, Id), Waiter>,
    /// Since when each waits.
    since: HashMap<Id, Timestamp>,
    /// When the timer gives the next turn.
    probe_at: Instant,
    /// Number of consecutive turns by the timer that were in vain.
    probes: u32,
}

#[derive(Debug)]
struct Waiter {
    queue: Arc<Queue>,
    request: String,
    turn: Option<Turn>,
}

/// A turn of one object.
#[derive(Clone, Debug, Default)]
struct Turn {
    /// Whether the timer began it, and not a pod that ended.
    by_timer: bool,
    /// Requests that were refused in this turn. An equal one is not tried.
    refused: Vec<String>,
}

impl Turn {
    fn of_timer() -> Self {
        Self {
            by_timer: true,
            ..Self::default()
        }
    }
}

impl Line {
    fn new() -> Self {
        Self {
            waiting: BTreeMap::new(),
            since: HashMap::new(),
            probe_at: Instant::now() + PROBE.first,
            probes: 0,
        }
    }

    fn waiter(&mut self, id: &Id) -> Option<&mut Waiter> {
        let since = *self.since.get(id)?;
        self.waiting.get_mut(&(since, id.clone()))
    }

    fn remove(&mut self, id: &Id) -> Option<Waiter> {
        let since = self.since.remove(id)?;
        self.waiting.remove(&(since, id.clone()))
    }

    /// Gives a turn to the first in line after `after` that has none and whose request was not refused in this turn.
    /// Returns whether there is one.
    fn give(&mut self, turn: Turn, after: Bound<(Timestamp, Id)>, delay: Duration) -> bool {
        let mut later = self.waiting.range_mut((after, Bound::Unbounded));
        let next = later.find(|(_, waiter)| waiter.turn.is_none() && !turn.refused.contains(&waiter.request));
        let Some(((_, (_, key)), waiter)) = next else {
            return false;
        };
        waiter.turn = Some(turn);
        waiter.queue.add_after(key.clone(), delay);
        true
    }

    fn is_first(&self, id: &Id) -> bool {
        self.waiting
            .first_key_value()
            .is_some_and(|((_, first), _)| first == id)
    }

    /// Returns whether the timer gives an object its turn now.
    fn is_turn_by_timer(&self, id: &Id) -> bool {
        self.is_first(id) && self.probe_at <= Instant::now()
    }

    fn is_turn(&self, id: &Id) -> bool {
        let Some(since) = self.since.get(id) else { return true };
        let has_turn = || {
            self.waiting
                .get(&(*since, id.clone()))
                .is_some_and(|waiter| waiter.turn.is_some())
        };
        has_turn() || self.is_turn_by_timer(id)
    }

    /// Takes the turn of an object: the one it was given, or the timer's.
    fn take(&mut self, id: &Id) -> Option<Turn> {
        if let Some(turn) = self.waiter(id)?.turn.take() {
            return Some(turn);
        }
        self.is_turn_by_timer(id).then(Turn::of_timer)
    }

    fn refused(&mut self, id: &Id) {
        let Some(mut turn) = self.take(id) else { return };
        let Some(since) = self.since.get(id).copied() else {
            return;
        };
        let by_timer = turn.by_timer;
        let request = self.waiter(id).map(|waiter| waiter.request.clone());
        turn.refused.extend(request);
        if self.give(turn, Bound::Excluded((since, id.clone())), Duration::ZERO) {
            return;
        }
        let delay = if by_timer {
            self.probes = self.probes.saturating_add(1);
            PROBE.delay(id.1.namespace.as_ref(), self.probes)
        } else {
            self.probes = 0;
            AGAIN
        };
        self.probe_at = Instant::now() + delay;
        if let Some(((_, (_, key)), waiter)) = self.waiting.first_key_value() {
            waiter.queue.add_after(key.clone(), delay);
        }
    }

    fn created(&mut self, id: &Id) {
        let turn = self.take(id);
        self.remove(id);
        if turn.is_some_and(|turn| turn.by_timer) {
            // How much room there is, only a request shows. Ask until one is refused.
            self.probes = 0;
            self.probe_at = Instant::now() + PROBE.first;
            self.give(Turn::of_timer(), Bound::Unbounded, Duration::ZERO);
        }
    }
}

impl QuotaLines {
    fn with_line<T>(&self, namespace: &Arc<str>, change: impl FnOnce(&mut Line) -> T) -> Option<T> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let line = lines.get_mut(namespace)?;
        let result = change(line);
        if line.waiting.is_empty() {
            lines.remove(namespace);
        }
        Some(result)
    }

    /// Puts an object into the line of its namespace, or takes it out. A turn that it has not used goes to the next.
    pub(crate) fn place(&self, queue: &Arc<Queue>, key: &Key, wait: Option<QuotaWait>) {
        let id = (queue.kind(), key.clone());
        let before = self.with_line(&key.namespace, |line| line.remove(&id)).flatten();
        let turn = before.and_then(|waiter| waiter.turn);
        let Some(QuotaWait { since, request }) = wait else {
            if let Some(turn) = turn {
                self.with_line(&key.namespace, |line| line.give(turn, Bound::Unbounded, Duration::ZERO));
            }
            return;
        };
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let line = lines.entry(key.namespace.clone()).or_insert_with(Line::new);
        line.since.insert(id.clone(), since);
        let waiter = Waiter {
            queue: queue.clone(),
            request,
            turn,
        };
        line.waiting.insert((since, id), waiter);
    }

    /// A pod of the namespace has ended.
    pub(crate) fn freed(&self, namespace: &Arc<str>) {
        self.with_line(namespace, |line| line.give(Turn::default(), Bound::Unbounded, SETTLE));
    }

    /// Returns whether an object may ask for room: it has its turn, or it is not in line.
    pub(crate) fn is_turn(&self, kind: &'static str, key: &Key) -> bool {
        let id = (kind, key.clone());
        self.with_line(&key.namespace, |line| line.is_turn(&id)).unwrap_or(true)
    }

    /// The pod of an object was refused.
    pub(crate) fn refused(&self, kind: &'static str, key: &Key) {
        let id = (kind, key.clone());
        self.with_line(&key.namespace, |line| line.refused(&id));
    }

    /// The pod of an object was created.
    pub(crate) fn created(&self, kind: &'static str, key: &Key) {
        let id = (kind, key.clone());
        self.with_line(&key.namespace, |line| line.created(&id));
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::histogram::Histogram;

    use super::*;

    struct Probe {
        lines: QuotaLines,
        queue: Arc<Queue>,
    }

    fn key(name: &str) -> Key {
        Key::new("ns", name)
    }

    impl Probe {
        fn new() -> Self {
            Self {
                lines: QuotaLines::default(),
                queue: Arc::new(Queue::new("Kind", Histogram::new([1.0]))),
            }
        }

        fn wait(&self, name: &str, since: i64, request: &str) {
            let wait = QuotaWait {
                since: Timestamp::from_second(since).unwrap(),
                request: request.to_owned(),
            };
            self.lines.place(&self.queue, &key(name), Some(wait));
        }

        /// Returns the names of those whose turn it is.
        fn turns(&self, names: &[&'static str]) -> Vec<&'static str> {
            let is_turn = |name: &&&str| self.lines.is_turn("Kind", &key(name));
            names.iter().filter(is_turn).copied().collect()
        }

        fn refuse(&self, name: &str) {
            self.lines.refused("Kind", &key(name));
        }

        fn create(&self, name: &str) {
            self.lines.created("Kind", &key(name));
            self.lines.place(&self.queue, &key(name), None);
        }

        fn free(&self) {
            self.lines.freed(&Arc::from("ns"));
        }
    }

    const ALL: [&str; 4] = ["a", "b", "c", "d"];

    #[tokio::test(start_paused = true)]
    async fn as_many_get_a_turn_as_pods_ended_and_the_oldest_is_first() {
        let probe = Probe::new();
        assert_eq!(probe.turns(&ALL), ALL, "one that does not wait may ask");
        for (name, since) in [("a", 3), ("b", 1), ("c", 2), ("d", 4)] {
            probe.wait(name, since, "pods=1");
        }
        assert_eq!(probe.turns(&ALL), [""; 0]);
        probe.free();
        assert_eq!(probe.turns(&ALL), ["b"]);
        probe.free();
        assert_eq!(probe.turns(&ALL), ["b", "c"]);
        assert_eq!(probe.queue.backlog().due, 0, "the quota has not counted them yet");
        probe.create("b");
        assert_eq!(probe.turns(&ALL), ["b", "c"], "it is not in line any more");
        // A turn that is not used is not lost.
        probe.lines.place(&probe.queue, &key("c"), None);
        assert_eq!(probe.turns(&["a", "d"]), ["a"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_turn_goes_to_the_next_different_request_and_then_to_the_timer() {
        let probe = Probe::new();
        for (name, since, request) in [
            ("a", 1, "gpu=8"),
            ("b", 2, "gpu=8"),
            ("c", 3, "gpu=1"),
            ("d", 4, "gpu=8"),
        ] {
            probe.wait(name, since, request);
        }
        probe.free();
        probe.refuse("a");
        assert_eq!(probe.turns(&ALL), ["c"]);
        probe.refuse("c");
        assert_eq!(probe.turns(&ALL), [""; 0], "d needs what a was refused");
        tokio::time::advance(AGAIN).await;
        assert_eq!(probe.turns(&ALL), ["a"], "the timer");
        // Each turn of the timer that is in vain makes the next one later, up to ten minutes.
        let mut waits = Vec::new();
        for _ in 0..8 {
            probe.refuse("a");
            probe.refuse("c");
            let mut seconds = 0;
            while probe.turns(&ALL).is_empty() {
                tokio::time::advance(Duration::from_secs(1)).await;
                seconds += 1;
            }
            waits.push(seconds);
        }
        assert!(waits[..5].is_sorted() && waits[0] <= 30 && waits[7] <= 600, "{waits:?}");
        assert!(waits[7] >= 450, "{waits:?}");
        // One that gets its pod by the timer passes the turn on.
        probe.create("a");
        assert_eq!(probe.turns(&["b", "c", "d"]), ["b"]);
        probe.create("b");
        assert_eq!(probe.turns(&["c", "d"]), ["c"]);
        probe.refuse("c");
        assert_eq!(probe.turns(&["c", "d"]), ["d"]);
        probe.refuse("d");
        assert_eq!(probe.turns(&["c", "d"]), [""; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_kept_of_a_namespace_without_a_line() {
        let probe = Probe::new();
        probe.wait("a", 1, "pods=1");
        probe.create("a");
        probe.free();
        assert!(probe.lines.0.lock().unwrap().is_empty());
    }
}
