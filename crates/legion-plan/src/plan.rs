//! The form of a decision and of its outcome, and the only code that writes a status.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use legion_api::{Problem, Reason};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// A decision about one resource: what to read, what to do, what to report.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan<S> {
    /// What must be read before a decision is possible. While this is not empty, everything else is empty. The caller
    /// reads, puts the answers into the World and decides again.
    pub needs: Vec<Need>,
    /// What to do, in this order. The caller stops at the first action without success.
    pub actions: Vec<Action>,
    /// The new status. `None` leaves the status as it is.
    pub status: Option<S>,
    /// When the status is to be written.
    pub write: Write,
    /// What is wrong with the resource.
    pub problems: Vec<Problem>,
    /// Events to publish with the planned status.
    pub events: Vec<EventNote>,
    /// The time of the next reconciliation without any event.
    pub requeue_at: Option<Timestamp>,
    /// The time of the next attempt when an action is refused or not possible yet.
    pub retry_at: Option<Timestamp>,
    /// Why each part was decided, for debug logs.
    pub why: Vec<Note>,
}

impl<S> Default for Plan<S> {
    fn default() -> Self {
        Self {
            needs: Vec::new(),
            actions: Vec::new(),
            status: None,
            write: Write::Now,
            problems: Vec::new(),
            events: Vec::new(),
            requeue_at: None,
            retry_at: None,
            why: Vec::new(),
        }
    }
}

impl<S> Plan<S> {
    /// Returns whether there is nothing to read, to do, to report or to wait for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.needs.is_empty() && self.actions.is_empty() && self.status.is_none() && self.requeue_at.is_none()
    }

    /// Requeues at `at`, or at an earlier time that was set before.
    pub(crate) fn requeue_by(&mut self, at: Timestamp) {
        self.requeue_at = Some(self.requeue_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// Returns a plan that only reads.
    pub(crate) fn reading(need: Need) -> Self {
        Self {
            needs: vec![need],
            ..Self::default()
        }
    }

    pub(crate) fn note(&mut self, text: impl Into<Note>) {
        self.why.push(text.into());
    }
}

impl Plan<()> {
    /// Adds the status of a kind.
    pub(crate) fn with_status<S>(self, status: S) -> Plan<S> {
        let Self {
            needs,
            actions,
            status: _,
            write,
            problems,
            events,
            requeue_at,
            retry_at,
            why,
        } = self;
        Plan {
            needs,
            actions,
            status: Some(status),
            write,
            problems,
            events,
            requeue_at,
            retry_at,
            why,
        }
    }
}

/// A line of [`Plan::why`].
pub type Note = std::borrow::Cow<'static, str>;

/// Something that the watches do not show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Need {
    /// The content of the ConfigMap source. The answer to the GET (`Read` or `Absent`) belongs in `World::config_map`.
    ConfigMap {
        /// Its name.
        name: String,
    },
    /// A live GET of the object itself: one of its pods is of a later run or attempt than its status allows. If the API
    /// server has another version of the object, decide about that one instead. Otherwise set `World::confirmed`: the
    /// status was lost.
    Object,
    /// Why the volumes of a pod are not mounted. A kubelet reports this in events only. The answer belongs in
    /// `World::mounts`.
    Mounts {
        /// The pod's name.
        pod: String,
        /// Its uid.
        uid: String,
    },
    /// A live GET of a pod that the watch no longer shows, because losing a label looks like a deletion. The answer
    /// belongs in `World::probed`.
    Pod {
        /// Its name.
        name: String,
    },
}

/// Something to do. Pods are created and deleted, never changed.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// POST the pod. On AlreadyExists: GET it and pass it to the kind's `classify_existing`.
    CreatePod {
        /// The pod.
        pod: Box<Pod>,
        /// Set for every attempt but the first: GET the pod's owner first, and continue only if it still has this
        /// resourceVersion. An attempt that was claimed from an outdated cache must not start beside a later one.
        only_at: Option<String>,
    },
    /// DELETE the pod with a uid precondition. 404 and 409 (another uid) mean that it no longer exists.
    DeletePod {
        /// Its name.
        name: String,
        /// Its uid.
        uid: String,
        /// Why, for the log.
        why: Note,
    },
}

/// When a status is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// Immediately.
    Now,
    /// Not before this time, unless an action is refused. The state is expected to pass soon and is not worth a write.
    /// The plan's `requeue_at` is not later.
    NotBefore(Timestamp),
}

/// An event to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventNote {
    /// `Warning` rather than `Normal`.
    pub warning: bool,
    /// The reason.
    pub reason: Reason,
    /// The message, for people.
    pub message: String,
}

/// The results of a plan's actions.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    /// One result for each tried action, in order.
    pub results: Vec<StepResult>,
}

/// The result of one action.
#[derive(Debug, Clone, PartialEq)]
pub enum StepResult {
    /// The pod was created, or it existed already and is Legion's.
    Created,
    /// The pod is deleted, or is being deleted.
    Deleted,
    /// Not done, because the cache was outdated or a pod of that name is still ending. An event will follow.
    NotYet,
    /// A pod of that name exists and is not Legion's.
    NameTaken,
    /// The API server refused, and will refuse until something changes: 403, 400, 422, 404 of the namespace.
    Refused(ApiError),
    /// It failed repeatedly for a reason that should pass (429, 5xx, timeouts, lost connections). The driver keeps
    /// trying. One or two failures do not appear here.
    Failed(ApiError),
}

/// An error answer of the API server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApiError {
    /// The HTTP status code.
    pub code: u16,
    /// `reason` of the Status object: `Forbidden`, `Invalid`, ...
    pub reason: String,
    /// `message` of the Status object.
    pub message: String,
}

/// A status write: a JSON merge patch for the `status` subresource. It contains the resourceVersion that it was
/// computed from. A patch of an outdated status is therefore refused.
#[derive(Debug, Clone, PartialEq)]
pub struct StatusPatch {
    /// The body of the patch.
    pub body: Value,
    /// Events to publish after the write.
    pub events: Vec<EventNote>,
}

/// Returns the patch from `old` to `new`, or `None` when they are equal ignoring times.
pub(crate) fn status_patch<S: Serialize + PartialEq>(
    resource_version: Option<&str>,
    old: Option<&S>,
    new: &S,
) -> Option<StatusPatch> {
    if old == Some(new) {
        return None;
    }
    // Statuses are plain data with string keys: they always serialize.
    let old = old.and_then(|old| serde_json::to_value(old).ok()).unwrap_or_default();
    let new = serde_json::to_value(new).unwrap_or_default();
    if equal_ignoring_time(&old, &new) {
        return None;
    }
    let status = merge_diff(&old, &new);
    Some(StatusPatch {
        body: json!({ "metadata": { "resourceVersion": resource_version }, "status": status }),
        events: Vec::new(),
    })
}

/// Times that follow from a decision, and the resourceVersion of a source with the same content. A difference in these
/// alone is not worth a write.
const IGNORED: [&str; 6] = [
    "sourceVersion",
    "lastTransitionTime",
    "since",
    "notBefore",
    "startedAt",
    "finishedAt",
];

fn equal_ignoring_time(old: &Value, new: &Value) -> bool {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            old.len() == new.len()
                && new.iter().all(|(key, new)| {
                    old.get(key)
                        .is_some_and(|old| IGNORED.contains(&key.as_str()) || equal_ignoring_time(old, new))
                })
        }
        (Value::Array(old), Value::Array(new)) => {
            old.len() == new.len() && old.iter().zip(new).all(|(old, new)| equal_ignoring_time(old, new))
        }
        _ => old == new,
    }
}

/// Returns the JSON merge patch (RFC 7396) from `old` to `new`. Keys of a newer operator that this one does not know
/// are in neither, and stay as they are.
fn merge_diff(old: &Value, new: &Value) -> Value {
    let (Value::Object(old), Value::Object(new)) = (old, new) else {
        return new.clone();
    };
    let mut diff = Map::new();
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        diff.insert(key.clone(), Value::Null);
    }
    for (key, value) in new {
        match old.get(key) {
            Some(before) if before == value => {}
            Some(before @ Value::Object(_)) => {
                diff.insert(key.clone(), merge_diff(before, value));
            }
            _ => {
                diff.insert(key.clone(), value.clone());
            }
        }
    }
    Value::Object(diff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_removes_replaces_and_keeps() {
        let old = json!({"a": 1, "b": {"c": 1, "d": 2}, "e": [1], "gone": true});
        let new = json!({"a": 1, "b": {"c": 3}, "e": [1, 2], "f": "new"});
        let patch = status_patch(Some("7"), Some(&old), &new).unwrap();
        assert_eq!(
            patch.body,
            json!({"metadata": {"resourceVersion": "7"},
                   "status": {"b": {"c": 3, "d": null}, "e": [1, 2], "f": "new", "gone": null}})
        );
    }

    #[test]
    fn an_object_that_becomes_something_else_is_replaced() {
        let patch = |old: Value, new: Value| status_patch(None, Some(&old), &new).unwrap().body["status"].clone();
        assert_eq!(patch(json!({"a": {"b": 1}}), json!({"a": [1]})), json!({"a": [1]}));
        assert_eq!(patch(json!({"a": [1]}), json!({"a": {"b": 1}})), json!({"a": {"b": 1}}));
    }

    #[test]
    fn a_plan_with_any_part_is_not_empty() {
        let empty = Plan::<()>::default;
        assert!(empty().is_empty());
        let action = Action::DeletePod {
            name: "a".into(),
            uid: "u".into(),
            why: "".into(),
        };
        let mut waits = empty();
        waits.requeue_by(Timestamp::UNIX_EPOCH);
        for plan in [
            Plan::reading(Need::Object),
            Plan {
                actions: vec![action],
                ..empty()
            },
            empty().with_status(()),
            waits,
        ] {
            assert!(!plan.is_empty(), "{plan:?}");
        }
        let mut noted = empty();
        noted.note("because");
        assert_eq!(noted.why, ["because"]);
    }

    #[test]
    fn times_alone_are_not_written() {
        let old = json!({"conditions": [{"type": "Ready", "lastTransitionTime": "a"}], "run": {"notBefore": "x"}});
        let new = json!({"conditions": [{"type": "Ready", "lastTransitionTime": "b"}], "run": {"notBefore": "y"}});
        assert_eq!(status_patch(None, Some(&old), &new), None);
        // A time that appears or disappears is worth a write.
        let new = json!({"conditions": [{"type": "Ready", "lastTransitionTime": "b"}], "run": {}});
        assert!(status_patch(None, Some(&old), &new).is_some());
    }
}
