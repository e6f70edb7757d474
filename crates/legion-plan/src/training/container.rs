//! The container `trainer`, and what else the pod of a training has.

use k8s_openapi::api::core::v1::{ConfigMapVolumeSource, Container, EnvVar, KeyToPath, Pod, Volume};
use legion_api::{ModelTrainingSpec, resources::Resources, training::ConfigMapItem};
use legion_protocol::env;
use serde_json::json;

use super::{fields, inputs::Inputs, kind::work_dir, tasks};
use crate::run::{
    attempt::Attempt,
    parts::{at, mount, read_only, requirements, restricted, some_list, variable},
    pod::{self, PodParts},
    volumes::CONFIG_SOURCE,
};

/// Builds the pod of an attempt.
pub(super) fn pod(attempt: &Attempt<'_>, spec: &ModelTrainingSpec, inputs: &Inputs) -> Pod {
    let parts = PodParts {
        main: trainer(attempt, spec, inputs),
        fetch_task: json!(tasks::fetch(attempt, spec, inputs)).to_string(),
        publish_task: json!(tasks::publish(attempt, spec, inputs)).to_string(),
        inputs: inputs.to_json(),
        shape: shape(attempt, spec, inputs),
        config_source: config_source(spec),
        sources: inputs.sources(),
        output: inputs.output_slot(),
    };
    pod::build(attempt, parts)
}

/// Returns the hash of the pod's configuration.
pub(super) fn shape(attempt: &Attempt<'_>, spec: &ModelTrainingSpec, inputs: &Inputs) -> String {
    // A spec is plain data with string keys: it always serializes.
    let spec = serde_json::to_value(spec).unwrap_or_default();
    attempt.shape(
        &fields::part(&spec, fields::FieldEffect::NextAttempt),
        &inputs.to_json(),
    )
}

fn trainer(attempt: &Attempt<'_>, spec: &ModelTrainingSpec, inputs: &Inputs) -> Container {
    let tool = &inputs.toolchain;
    let command = [format!("{}/legion-entry", at::BIN), "--".to_owned()];
    let command = command
        .into_iter()
        .chain(tool.command.iter().cloned())
        .chain(spec.args.iter().cloned());
    let mut mounts = vec![
        read_only(mount("bin", at::BIN)),
        mount("run", at::RUN),
        mount("work", at::WORK),
    ];
    if spec.shared_memory.is_some() {
        mounts.push(mount("shm", at::SHM));
    }
    let none = Resources::default();
    let resources = tool
        .resources
        .as_ref()
        .unwrap_or(&none)
        .merged(spec.resources.as_ref().unwrap_or(&none));
    Container {
        name: attempt.object.kind.container.to_owned(),
        image: Some(tool.image.clone()),
        command: Some(command.collect()),
        env: Some(variables(attempt, spec, &tool.env)),
        volume_mounts: Some(mounts),
        resources: Some(requirements(&resources)),
        security_context: Some(restricted(tool.read_only_root_filesystem)),
        termination_message_path: Some(at::TERMINATION_LOG.to_owned()),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..Container::default()
    }
}

fn variables(attempt: &Attempt<'_>, spec: &ModelTrainingSpec, of_toolchain: &[EnvVar]) -> Vec<EnvVar> {
    let number = |seconds: i64| seconds.to_string();
    let timeout = i64::try_from(spec.timeout.as_secs_ceil()).unwrap_or(i64::MAX);
    let mut variables = vec![
        variable(env::PROTOCOL, &legion_protocol::PROTOCOL_VERSION.to_string()),
        variable(env::RUN, at::RUN),
        variable(env::WORK, at::WORK),
    ];
    variables.extend(layout(spec));
    variables.extend([
        variable(env::TIMEOUT_SECONDS, &number(timeout)),
        variable(env::GRACE_SECONDS, &number(attempt.grace_seconds())),
        variable(env::LOG_LIMIT_BYTES, &attempt.settings.log_limit_bytes.to_string()),
        variable("HOME", &format!("{}/home", at::WORK)),
        variable("TMPDIR", &format!("{}/tmp", at::WORK)),
    ]);
    // The training's variables replace the toolchain's. Legion's own variables were refused in both.
    let given = of_toolchain
        .iter()
        .filter(|base| !spec.env.iter().any(|over| over.name == base.name))
        .chain(&spec.env);
    for more in given {
        variables.retain(|variable| variable.name != more.name);
        variables.push(more.clone());
    }
    variables
}

/// The paths in the workspace, for the toolchain.
fn layout(spec: &ModelTrainingSpec) -> Vec<EnvVar> {
    let source = match work_dir(spec).as_str() {
        "" => format!("{}/source", at::WORK),
        below => format!("{}/source/{below}", at::WORK),
    };
    vec![
        variable(env::SOURCE, &source),
        variable(env::DATA, &format!("{}/data", at::WORK)),
        variable(env::OUTPUT, &format!("{}/output", at::WORK)),
        variable(env::TRAINING, &format!("{}/{}", at::RUN, env::files::TRAINING)),
        variable(env::EVENTS, &format!("{}/{}", at::RUN, env::files::EVENTS)),
        variable(env::RESULT, &format!("{}/{}", at::RUN, env::files::RESULT)),
    ]
}

fn config_source(spec: &ModelTrainingSpec) -> Option<Volume> {
    let source = spec.source.config_map.as_ref()?;
    let item = |item: &ConfigMapItem| KeyToPath {
        key: item.key.clone(),
        path: item.path.clone(),
        ..KeyToPath::default()
    };
    Some(Volume {
        name: CONFIG_SOURCE.to_owned(),
        config_map: Some(ConfigMapVolumeSource {
            name: source.name.to_string(),
            items: some_list(&source.items.iter().map(item).collect::<Vec<_>>()),
            // A missing ConfigMap would keep the pod from starting without any report. `fetch` names what is missing.
            optional: Some(true),
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    })
}
