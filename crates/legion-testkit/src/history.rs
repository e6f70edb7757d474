//! A record of all versions of pods and trainings, and the invariants for them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt as _,
    runtime::watcher::{self, Event, watcher},
};
use legion_api::ModelTraining;
use tokio::task::JoinHandle;

/// A watch event of a pod.
#[derive(Clone, Debug)]
pub enum PodEvent {
    /// The pod exists in this version.
    Is(Box<Pod>),
    /// The pod was deleted.
    Gone(Box<Pod>),
}

#[derive(Default)]
struct HistoryState {
    pods: Vec<PodEvent>,
    trainings: Vec<ModelTraining>,
}

/// A recorder with watches without faults.
pub struct History {
    state: Arc<Mutex<HistoryState>>,
    tasks: [JoinHandle<()>; 2],
}

impl History {
    /// Starts recording.
    #[must_use]
    pub fn record(client: Client) -> Self {
        let state = Arc::new(Mutex::new(HistoryState::default()));
        let pods = {
            let (state, api) = (state.clone(), Api::<Pod>::all(client.clone()));
            tokio::spawn(async move {
                let mut events = std::pin::pin!(watcher(api, watcher::Config::default()));
                while let Some(event) = events.next().await {
                    match event {
                        Ok(Event::Apply(pod) | Event::InitApply(pod)) => {
                            lock(&state).pods.push(PodEvent::Is(pod.into()))
                        }
                        Ok(Event::Delete(pod)) => lock(&state).pods.push(PodEvent::Gone(pod.into())),
                        _ => {}
                    }
                }
            })
        };
        let trainings = {
            let (state, api) = (state.clone(), Api::<ModelTraining>::all(client));
            tokio::spawn(async move {
                let mut events = std::pin::pin!(watcher(api, watcher::Config::default()));
                while let Some(event) = events.next().await {
                    if let Ok(Event::Apply(training) | Event::InitApply(training)) = event {
                        lock(&state).trainings.push(training);
                    }
                }
            })
        };
        Self {
            state,
            tasks: [pods, trainings],
        }
    }

    /// Stops recording.
    pub fn stop(&self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }

    /// Returns all events of pods.
    #[must_use]
    pub fn pods(&self) -> Vec<PodEvent> {
        lock(&self.state).pods.clone()
    }

    /// Returns every version of every training.
    #[must_use]
    pub fn trainings(&self) -> Vec<ModelTraining> {
        lock(&self.state).trainings.clone()
    }

    /// Returns the number of pods that each training ever had.
    #[must_use]
    pub fn pods_created(&self) -> BTreeMap<String, usize> {
        let mut uids: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for event in self.pods() {
            let (PodEvent::Is(pod) | PodEvent::Gone(pod)) = event;
            if let Some(training) = owner(&pod) {
                uids.entry(training).or_default().insert(pod.uid().unwrap_or_default());
            }
        }
        uids.into_iter()
            .map(|(training, uids)| (training, uids.len()))
            .collect()
    }

    /// Checks the invariants at every point in time. Returns a text for each violation.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        let mut violations = self.two_pods_of_a_run();
        violations.extend(self.inconsistent_statuses());
        violations
    }

    /// Invariant: at every version of every pod, at most one pod of a training is active.
    fn two_pods_of_a_run(&self) -> Vec<String> {
        let mut active: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut violations = Vec::new();
        for event in self.pods() {
            let (pod, is_active) = match &event {
                PodEvent::Is(pod) => (pod, !has_ended(pod)),
                PodEvent::Gone(pod) => (pod, false),
            };
            let Some(training) = owner(pod) else { continue };
            let pods = active.entry(training.clone()).or_default();
            if is_active {
                pods.insert(pod.name_any());
            } else {
                pods.remove(&pod.name_any());
            }
            if pods.len() > 1 {
                violations.push(format!(
                    "{training} has {} active pods at the same time: {pods:?}",
                    pods.len()
                ));
            }
        }
        violations
    }

    /// Invariants of the status: a run ends only once, attempts and sequences never decrease, and conditions observe a
    /// generation that exists.
    fn inconsistent_statuses(&self) -> Vec<String> {
        let mut last: BTreeMap<String, ModelTraining> = BTreeMap::new();
        let mut violations = Vec::new();
        for training in self.trainings() {
            let uid = training.uid().unwrap_or_default();
            let name = training.name_any();
            let run = training.status.as_ref().and_then(|status| status.run.as_ref());
            let before = last.get(&uid).and_then(|before| before.status.as_ref()?.run.as_ref());
            if let (Some(before), Some(run)) = (before, run) {
                if (run.sequence, run.attempt.max(0)) < (before.sequence, 0) {
                    violations.push(format!(
                        "{name}: run {} came after run {}",
                        run.sequence, before.sequence
                    ));
                }
                if run.id == before.id && run.attempt < before.attempt {
                    violations.push(format!(
                        "{name}: attempt {} came after attempt {}",
                        run.attempt, before.attempt
                    ));
                }
                if run.id == before.id && before.result.is_some() && run.result != before.result {
                    violations.push(format!(
                        "{name}: run {} ended twice: {:?}, {:?}",
                        run.id, before.result, run.result
                    ));
                }
            }
            if before.is_some() && run.is_none() {
                violations.push(format!("{name}: the status lost its run"));
            }
            let observed = training.status.as_ref().and_then(|status| status.observed_generation);
            if observed > training.metadata.generation {
                violations.push(format!(
                    "{name}: observed a generation that does not exist: {observed:?}"
                ));
            }
            last.insert(uid, training);
        }
        violations
    }
}

fn lock(state: &Mutex<HistoryState>) -> MutexGuard<'_, HistoryState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns `namespace/name/uid` of the training that controls the pod.
fn owner(pod: &Pod) -> Option<String> {
    let owner = pod
        .owner_references()
        .iter()
        .find(|owner| owner.kind == "ModelTraining")?;
    Some(format!(
        "{}/{}/{}",
        pod.namespace().unwrap_or_default(),
        owner.name,
        owner.uid
    ))
}

/// Returns whether no container of the pod can run any more.
fn has_ended(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref()).unwrap_or_default();
    matches!(phase, "Succeeded" | "Failed")
}
