//! A status that was lost, wholly or in part: what the pods still show of the run.
//!
//! A status is lost when someone removes it, or when a backup brings back an older one. Its pods name run, attempt and
//! pinned inputs. The run therefore goes on from its latest pod.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use legion_api::run::RunStatus;

use super::{kind::RunObject, labels, lines};
use crate::conditions::seconds;

/// The identity of a pod's attempt.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LaterPod<'a> {
    pod: &'a Pod,
    run: &'a str,
    attempt: i32,
    sequence: i64,
}

/// Returns the latest pod among `own_pods` that is of a later run or attempt than the status allows.
///
/// A run's first attempt may have its pod before the status reports the run. Every later attempt is claimed in the
/// status before its pod exists, and so is every later run.
pub(crate) fn later_pod<'a>(
    object: &RunObject<'a>,
    own_pods: impl Iterator<Item = &'a Arc<Pod>>,
) -> Option<LaterPod<'a>> {
    let recorded = object.run.map_or(0, |run| run.sequence);
    let next = recorded.saturating_add(1);
    let number = |pod: &Pod, key: &str| labels::annotation(pod, key).and_then(|text| text.parse::<i64>().ok());
    own_pods
        .filter_map(|pod| {
            let (run, attempt) = labels::identity(pod, object.name)?;
            let current = object.run.filter(|recorded| recorded.id == run);
            let sequence = current.map_or_else(|| number(pod, labels::SEQUENCE).unwrap_or(next), |run| run.sequence);
            let later = match current {
                Some(current) => attempt > current.attempt,
                None => sequence > next || (sequence == next && attempt > 1),
            };
            // After the object was read live no generation is later than its own.
            let of_later_spec = !object.confirmed && number(pod, labels::GENERATION) > Some(object.generation);
            (later || of_later_spec).then_some(LaterPod {
                pod,
                run,
                attempt,
                sequence,
            })
        })
        .max_by_key(|pod| (pod.sequence, pod.attempt))
}

impl LaterPod<'_> {
    /// Returns the status of the pod's run. `recorded` is the status of that run or of an earlier one.
    pub(crate) fn run(&self, recorded: Option<&RunStatus>) -> RunStatus {
        let recorded = recorded.filter(|run| run.id == self.run);
        let annotation = |key: &str| labels::annotation(self.pod, key);
        let generation = annotation(labels::GENERATION).and_then(|text| text.parse().ok());
        RunStatus {
            id: self.run.to_owned(),
            sequence: self.sequence,
            generation: generation.unwrap_or_default(),
            attempt: self.attempt,
            pod: self.pod.metadata.name.clone(),
            pod_uid: None,
            started_at: recorded
                .and_then(|run| run.started_at.clone())
                .or_else(|| self.pod.metadata.creation_timestamp.as_ref().map(|at| seconds(at.0))),
            inputs: annotation(labels::INPUTS)
                .and_then(|text| serde_json::from_str(text).ok())
                .map_or_else(Vec::new, |inputs| lines::to_lines(&inputs)),
            not_before: None,
            ..recorded.cloned().unwrap_or_default()
        }
    }
}
