//! A training as a kind of run.

use legion_api::{ModelTrainingSpec, Reason};

use super::labels;
use crate::run::{
    inputs::normal,
    kind::{PodSettings, RunKind, RunPolicy},
};

pub(super) static TRAINING: RunKind = RunKind {
    kind: "ModelTraining",
    application: "legion-training",
    owner_label: labels::TRAINING,
    container: "trainer",
    step: "train",
    code: "the training code",
    running: Reason::Training,
    failed: Reason::TrainerFailed,
    not_started: "TrainerNotStarted",
};

pub(super) fn policy(spec: &ModelTrainingSpec) -> RunPolicy {
    RunPolicy {
        suspend: spec.suspend,
        retries: spec.retries,
        timeout: spec.timeout,
        start_timeout: spec.start_timeout,
        grace_period: spec.grace_period,
        ttl_after_finished: spec.ttl_after_finished,
    }
}

pub(super) fn pod_settings(spec: &ModelTrainingSpec) -> PodSettings<'_> {
    PodSettings {
        node_selector: &spec.node_selector,
        tolerations: &spec.tolerations,
        affinity: spec.affinity.as_ref(),
        priority_class_name: spec.priority_class_name.as_ref(),
        scheduler_name: spec.scheduler_name.as_ref(),
        runtime_class_name: spec.runtime_class_name.as_ref(),
        service_account_name: spec.service_account_name.as_ref(),
        image_pull_secrets: &spec.image_pull_secrets,
        labels: spec.pod_metadata.as_ref().map(|metadata| &metadata.labels),
        annotations: spec.pod_metadata.as_ref().map(|metadata| &metadata.annotations),
        workspace_size: spec.workspace.as_ref().map(|workspace| &workspace.size),
        shared_memory: spec.shared_memory.as_ref(),
    }
}

/// Returns `spec.workDir` in its normal form; empty for the source root.
pub(super) fn work_dir(spec: &ModelTrainingSpec) -> String {
    spec.work_dir.as_deref().map(normal).unwrap_or_default()
}
