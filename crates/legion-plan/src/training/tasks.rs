//! The documents that the agent's containers get.

use legion_api::{ModelTrainingSpec, training::Goal};
use legion_protocol::{
    PROTOCOL_VERSION, WIRE_VERSION,
    task::{FetchTask, PublishTask, SourceTask, message_budget},
    training::{DataFacts, Goal as WireGoal, ModelName, Objective, SourceFacts, TrainingDocument},
};

use super::inputs::Inputs;
use crate::run::attempt::Attempt;

/// Containers of the pod as Legion makes it: `fetch`, `trainer`, `publish`. What is injected takes from the same 12 KiB,
/// and a message that is cut for it is noticed by its checksum.
const CONTAINERS: usize = 3;

pub(crate) fn budget() -> u32 {
    u32::try_from(message_budget(CONTAINERS)).unwrap_or(u32::MAX)
}

/// A count of the API, which is never negative, as the wire has it.
fn count(number: i64) -> u32 {
    u32::try_from(number.max(0)).unwrap_or(u32::MAX)
}

fn model(spec: &ModelTrainingSpec) -> ModelName {
    ModelName {
        name: spec.model.name.to_string(),
        version: spec.model.version.clone(),
    }
}

fn objective(spec: &ModelTrainingSpec) -> Option<Objective> {
    spec.objective.as_ref().map(|objective| Objective {
        metric: objective.metric.clone(),
        goal: match objective.goal {
            Goal::Maximize => WireGoal::Maximize,
            Goal::Minimize => WireGoal::Minimize,
        },
    })
}

fn source_facts(inputs: &Inputs) -> SourceFacts {
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
    SourceFacts {
        kind: inputs.source.task.kind(),
        uri: uri.clone(),
        reference,
        commit,
        digest,
    }
}

/// The task of `fetch`.
pub(crate) fn fetch(attempt: &Attempt<'_>) -> FetchTask {
    let Attempt { spec, inputs, .. } = attempt;
    let data_facts = inputs.data.iter().map(|data| DataFacts {
        name: data.task.name.clone(),
        uri: data.task.uri.clone(),
        local_path: data.task.local_path.clone(),
        ..DataFacts::default()
    });
    FetchTask {
        version: WIRE_VERSION,
        training: TrainingDocument {
            protocol: PROTOCOL_VERSION,
            name: attempt.name.to_owned(),
            namespace: attempt.namespace.to_owned(),
            uid: attempt.uid.to_owned(),
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
            work_dir: attempt.work_dir(),
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

/// The task of `publish`.
pub(crate) fn publish(attempt: &Attempt<'_>) -> PublishTask {
    let Attempt { spec, inputs, .. } = attempt;
    PublishTask {
        version: WIRE_VERSION,
        name: attempt.name.to_owned(),
        namespace: attempt.namespace.to_owned(),
        uid: attempt.uid.to_owned(),
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
