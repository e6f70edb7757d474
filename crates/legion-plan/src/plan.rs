//! What a decision looks like, what became of it, and the one way in which a status is written.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use legion_api::{Problem, Reason};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// A decision about one resource: what to read, what to do, what to say.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan<S> {
    /// What must be read before anything can be decided. While this is not empty everything else is empty: read, put the
    /// answers into the World and decide again.
    pub needs: Vec<Need>,
    /// What to do, in this order. Stop at the first action that does not go through.
    pub actions: Vec<Action>,
    /// The status that the resource should have; `None` leaves it as it is.
    pub status: Option<S>,
    /// When the status is to be written.
    pub write: Write,
    /// What is wrong, in the words that conditions and APIs use.
    pub problems: Vec<Problem>,
    /// Events to publish with the status that is planned.
    pub events: Vec<EventNote>,
    /// When to look again although nothing happens.
    pub requeue_at: Option<Timestamp>,
    /// When to try again should an action be refused or not be possible yet.
    pub retry_at: Option<Timestamp>,
    /// Why each thing was decided, for `explain` and for debug logs.
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
    /// Whether there is nothing to read, to do, to say or to wait for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.needs.is_empty() && self.actions.is_empty() && self.status.is_none() && self.requeue_at.is_none()
    }

    /// Looks again at `at`, or earlier if that was asked for already.
    pub(crate) fn look_again(&mut self, at: Timestamp) {
        self.requeue_at = Some(self.requeue_at.map_or(at, |earlier| earlier.min(at)));
    }

    pub(crate) fn note(&mut self, text: impl Into<Note>) {
        self.why.push(text.into());
    }
}

/// A line of why.
pub type Note = std::borrow::Cow<'static, str>;

/// Something that the watches cannot tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Need {
    /// The content of the ConfigMap source: GET it and put [`crate::training::ConfigMapView::Read`] (or `Absent`) into
    /// the World.
    ConfigMap {
        /// Its name.
        name: String,
    },
    /// Why the volumes of a pod are not mounted, which a kubelet tells in events only: put the answer into
    /// `World::mounts`.
    Mounts {
        /// The pod's name.
        pod: String,
        /// Its uid.
        uid: String,
    },
    /// A live GET of a pod that the watch no longer shows (losing a label looks like a deletion): put the answer into
    /// `World::probed`.
    Pod {
        /// Its name.
        name: String,
    },
}

/// Something to do. Pods are created and deleted, never changed.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// POST the pod. On AlreadyExists: GET it and judge it by [`crate::training::judge_existing`].
    CreatePod {
        /// The pod.
        pod: Box<Pod>,
        /// For every attempt but the first: GET the training before, and go on only if it still has this
        /// resourceVersion. An attempt that was claimed in an outdated view must not start beside a later one.
        only_at: Option<String>,
    },
    /// DELETE the pod with a uid precondition. 404 and 409 (another uid) mean that it is gone.
    DeletePod {
        /// Its name.
        name: String,
        /// Its uid.
        uid: String,
        /// Why, for the log and `explain`.
        why: Note,
    },
}

/// When a status is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// Now.
    Now,
    /// Not before this time, unless an action is refused: the state is expected to pass by itself, and a write would say
    /// nothing that lasts. The plan's `requeue_at` is not later.
    NotBefore(Timestamp),
}

/// An event to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventNote {
    /// `Warning` rather than `Normal`.
    pub warning: bool,
    /// The reason.
    pub reason: Reason,
    /// In words.
    pub message: String,
}

/// What became of a plan's actions.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    /// One result for each action that was tried, in order.
    pub results: Vec<StepResult>,
}

/// What became of one action.
#[derive(Debug, Clone, PartialEq)]
pub enum StepResult {
    /// The pod was created, or was there already and is ours.
    Created,
    /// The pod is deleted, or its deletion has begun.
    Deleted,
    /// Not done, because the view was outdated or a pod of that name is still ending: look again when something changes.
    NotYet,
    /// A pod of that name exists and is not ours.
    NameTaken,
    /// The API server refused for good, until something changes: 403, 400, 422, 404 of the namespace.
    Refused(ApiError),
    /// It failed again and again for a reason that should pass (429, 5xx, timeouts, lost connections). The driver goes on
    /// trying; what fails only once or twice does not appear here.
    Failed(ApiError),
}

/// An answer of the API server that is no success.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApiError {
    /// HTTP status code.
    pub code: u16,
    /// `reason` of the Status object: `Forbidden`, `Invalid`, ...
    pub reason: String,
    /// `message` of the Status object.
    pub message: String,
}

/// A status write: a JSON merge patch for the `status` subresource. It carries the resourceVersion that it was computed
/// from, so that it cannot overwrite what it did not see.
#[derive(Debug, Clone, PartialEq)]
pub struct StatusPatch {
    /// The body of the patch.
    pub body: Value,
    /// Events to publish once it is written.
    pub events: Vec<EventNote>,
}

/// The patch that makes `old` into `new`; `None` when they are equal ignoring time.
pub(crate) fn status_patch<S: Serialize + PartialEq>(
    resource_version: Option<&str>,
    old: Option<&S>,
    new: &S,
) -> Option<StatusPatch> {
    if old == Some(new) {
        return None;
    }
    // Statuses are plain data with string keys: they always serialise.
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

/// Times that follow from a decision, and the resourceVersion of a source whose content is the same: a difference in them
/// alone is no news.
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

/// The JSON merge patch (RFC 7396) that turns `old` into `new`. Keys that a newer operator wrote and this one does not
/// know are not in either, hence left alone.
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
            Some(before @ Value::Object(_)) if value.is_object() => {
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
    fn a_patch_removes_replaces_and_leaves_alone() {
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
    fn times_alone_are_no_news() {
        let old = json!({"conditions": [{"type": "Ready", "lastTransitionTime": "a"}], "run": {"notBefore": "x"}});
        let new = json!({"conditions": [{"type": "Ready", "lastTransitionTime": "b"}], "run": {"notBefore": "y"}});
        assert_eq!(status_patch(None, Some(&old), &new), None);
        // A time that appears or goes is news.
        let new = json!({"conditions": [{"type": "Ready", "lastTransitionTime": "b"}], "run": {}});
        assert!(status_patch(None, Some(&old), &new).is_some());
    }
}
