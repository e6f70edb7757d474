//! The task documents of the agent's containers.

use legion_api::{ModelTrainingSpec, training::Goal};
use legion_protocol::{
    PROTOCOL_VERSION, WIRE_VERSION,
    task::{FetchTask, PublishTask, SourceTask, message_budget},
    training::{TrainingDocument, WireData, WireGoal, WireModel, WireObjective, WireSource},
};

use super::{inputs::Inputs, kind::work_dir};
use crate::run::attempt::Attempt;

/// Containers of the pod as Legion creates it: `fetch`, `trainer`, `publish`. Injected containers share the same 12
/// KiB. A message that is cut because of them has a wrong checksum.
const CONTAINERS: usize = 3;

fn budget() -> u32 {
    u32::try_from(message_budget(CONTAINERS)).unwrap_or(u32::MAX)
}

/// Converts a count of the API. It is never negative.
fn count(number: i64) -> u32 {
    u32::try_from(number.max(0)).unwrap_or(u32::MAX)
}

fn model(spec: &ModelTrainingSpec) -> WireModel {
    WireModel {
        name: spec.model.name.to_string(),
        version: spec.model.version.clone(),
    }
}

fn objective(spec: &ModelTrainingSpec) -> Option<WireObjective> {
    spec.objective.as_ref().map(|objective| WireObjective {
        metric: objective.metric.clone(),
        goal: match objective.goal {
            Goal::Maximize => WireGoal::Maximize,
            Goal::Minimize => WireGoal::Minimize,
        },
    })
}

fn source_facts(inputs: &Inputs) -> WireSource {
    let (reference, commit, digest) = match &inputs.source.task {
        SourceTask::Git { reference, commit, .. } => (reference.clone(), commit.clone(), String::new()),
        SourceTask::ConfigMap { digest, .. } => (String::new(), String::new(), digest.clone()),
        SourceTask::ObjectStore { .. } | SourceTask::Volume { .. } => Default::default(),
    };
    let uri = if inputs.source.uri.is_empty() {
        &inputs.source.name
    } else {
        &inputs.source.uri
    };
    WireSource {
        kind: inputs.source.task.kind(),
        uri: uri.clone(),
        reference,
        commit,
        digest,
    }
}

pub(super) fn fetch(attempt: &Attempt<'_>, spec: &ModelTrainingSpec, inputs: &Inputs) -> FetchTask {
    let object = attempt.object;
    let data_facts = inputs.data.iter().map(|data| WireData {
        name: data.task.name.clone(),
        uri: data.task.uri.clone(),
        local_path: data.task.local_path.clone(),
        ..WireData::default()
    });
    FetchTask {
        version: WIRE_VERSION,
        training: TrainingDocument {
            protocol: PROTOCOL_VERSION,
            name: object.name.to_owned(),
            namespace: object.namespace.to_owned(),
            uid: object.uid.to_owned(),
            run_id: attempt.run.id.clone(),
            sequence: count(attempt.run.sequence),
            attempt: count(attempt.run.attempt.into()),
            pod: attempt.pod_name(),
            model: model(spec),
            format: inputs.toolchain.format.clone(),
            entrypoint: spec.entrypoint.clone(),
            args: spec.args.clone(),
            arguments: inputs.arguments.clone(),
            hyper_parameters: spec.hyper_parameters.clone(),
            objective: objective(spec),
            work_dir: work_dir(spec),
            source: source_facts(inputs),
            data: data_facts.collect(),
        },
        source: inputs.source.task.clone(),
        data: inputs.data.iter().map(|data| data.task.clone()).collect(),
        output: inputs.output.task.clone(),
        limits: attempt.settings.fetch_limits,
        message_budget: budget(),
    }
}

pub(super) fn publish(attempt: &Attempt<'_>, spec: &ModelTrainingSpec, inputs: &Inputs) -> PublishTask {
    let object = attempt.object;
    PublishTask {
        version: WIRE_VERSION,
        name: object.name.to_owned(),
        namespace: object.namespace.to_owned(),
        uid: object.uid.to_owned(),
        run_id: attempt.run.id.clone(),
        sequence: count(attempt.run.sequence),
        attempt: count(attempt.run.attempt.into()),
        model: model(spec),
        format: inputs.toolchain.format.clone(),
        objective: objective(spec),
        output: inputs.output.task.clone(),
        limits: attempt.settings.publish_limits,
        grace_seconds: u32::try_from(attempt.pod_grace_seconds()).unwrap_or(u32::MAX),
        message_budget: budget(),
    }
}
