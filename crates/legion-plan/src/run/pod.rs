//! The pod of an attempt.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, EnvVar, Pod, PodOS, PodSecurityContext, PodSpec, SeccompProfile, Volume, VolumeMount},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use legion_api::{names::ObjectName, resources::Resources};
use legion_protocol::env;

use super::{
    attempt::Attempt,
    containers::{FETCH, PUBLISH},
    labels,
    parts::{at, mount, read_only, requirements, restricted, some_list, variable},
    volumes::{CONFIG_SOURCE, Slot, own_volumes},
};

/// The parts of a pod that the kind of the run decides.
pub(crate) struct PodParts<'a> {
    /// The main container.
    pub(crate) main: Container,
    /// The task document of `fetch`, as JSON.
    pub(crate) fetch_task: String,
    /// The task document of `publish`, as JSON.
    pub(crate) publish_task: String,
    /// The pinned inputs, as JSON.
    pub(crate) inputs: String,
    /// [`Attempt::shape`]
    pub(crate) shape: String,
    /// The volume [`CONFIG_SOURCE`] of a ConfigMap source.
    pub(crate) config_source: Option<Volume>,
    /// The places that `fetch` reads from.
    pub(crate) sources: Vec<Slot<'a>>,
    /// The place that `publish` writes to.
    pub(crate) output: Slot<'a>,
}

/// Builds the pod. Every mistake that a user can make was refused earlier.
pub(crate) fn build(attempt: &Attempt<'_>, parts: PodParts<'_>) -> Pod {
    Pod {
        metadata: metadata(attempt, &parts),
        spec: Some(pod_spec(attempt, parts)),
        status: None,
    }
}

fn metadata(attempt: &Attempt<'_>, parts: &PodParts<'_>) -> ObjectMeta {
    let Attempt { object, run, pod, .. } = attempt;
    let text = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    // A sidecar that never ends would keep the pod from ending. Users who want one set this in podMetadata.
    let mut all_labels = BTreeMap::from([text("sidecar.istio.io/inject", "false")]);
    all_labels.extend(pod.labels.cloned().unwrap_or_default());
    all_labels.extend([
        text("app.kubernetes.io/name", object.kind.application),
        text("app.kubernetes.io/instance", object.name),
        text("app.kubernetes.io/managed-by", labels::MANAGER),
        text("app.kubernetes.io/part-of", "legion"),
        text(object.kind.owner_label, object.name),
        text(labels::RUN, &run.id),
        text(labels::ATTEMPT, &run.attempt.to_string()),
    ]);
    let mut annotations = BTreeMap::from([
        text("kubectl.kubernetes.io/default-container", object.kind.container),
        text("sidecar.istio.io/inject", "false"),
        text("linkerd.io/inject", "disabled"),
    ]);
    annotations.extend(pod.annotations.cloned().unwrap_or_default());
    annotations.extend([
        text(labels::SEQUENCE, &run.sequence.to_string()),
        text(labels::GENERATION, &run.generation.to_string()),
        text(labels::INPUTS, &parts.inputs),
        text(labels::SHAPE, &parts.shape),
        text(labels::OPERATOR, &attempt.settings.platform_namespace),
    ]);
    ObjectMeta {
        name: Some(attempt.pod_name()),
        namespace: Some(object.namespace.to_owned()),
        labels: Some(all_labels),
        annotations: Some(annotations),
        owner_references: Some(vec![OwnerReference {
            api_version: format!("{}/{}", legion_api::GROUP, legion_api::VERSION),
            kind: object.kind.kind.to_owned(),
            name: object.name.to_owned(),
            uid: object.uid.to_owned(),
            controller: Some(true),
            // The owner's deletion does not have to wait for its pods.
            block_owner_deletion: None,
        }]),
        ..ObjectMeta::default()
    }
}

fn pod_spec(attempt: &Attempt<'_>, parts: PodParts<'_>) -> PodSpec {
    let pod = attempt.pod;
    let text = |name: Option<&ObjectName>| name.map(ToString::to_string);
    PodSpec {
        restart_policy: Some("Never".to_owned()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        os: Some(PodOS {
            name: "linux".to_owned(),
        }),
        active_deadline_seconds: Some(attempt.deadline_seconds()),
        termination_grace_period_seconds: Some(attempt.pod_grace_seconds()),
        security_context: Some(security_context(attempt)),
        node_selector: (!pod.node_selector.is_empty()).then(|| pod.node_selector.clone()),
        tolerations: some_list(pod.tolerations),
        affinity: pod.affinity.cloned(),
        priority_class_name: text(pod.priority_class_name),
        scheduler_name: text(pod.scheduler_name),
        runtime_class_name: text(pod.runtime_class_name),
        service_account_name: text(pod.service_account_name),
        image_pull_secrets: some_list(pod.image_pull_secrets),
        init_containers: Some(vec![fetch(attempt, &parts)]),
        volumes: Some(volumes(attempt, &parts)),
        containers: {
            let publish = publish(attempt, &parts);
            vec![parts.main, publish]
        },
        ..PodSpec::default()
    }
}

fn security_context(attempt: &Attempt<'_>) -> PodSecurityContext {
    let identity = attempt.settings.identity;
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: identity.map(|identity| identity.uid),
        run_as_group: identity.map(|identity| identity.gid),
        fs_group: identity.map(|identity| identity.fs_group),
        // Without this the kubelet walks a whole volume of data before every start.
        fs_group_change_policy: identity.map(|_| "OnRootMismatch".to_owned()),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            localhost_profile: None,
        }),
        ..PodSecurityContext::default()
    }
}

fn volumes(attempt: &Attempt<'_>, parts: &PodParts<'_>) -> Vec<Volume> {
    let mut volumes = own_volumes(&attempt.pod);
    volumes.extend(parts.config_source.clone());
    let slots = parts.sources.iter().chain([&parts.output]);
    volumes.extend(slots.flat_map(Slot::volumes));
    volumes
}

fn fetch(attempt: &Attempt<'_>, parts: &PodParts<'_>) -> Container {
    let mut mounts = vec![
        mount("bin", at::BIN),
        mount("run", at::RUN),
        mount("work", at::WORK),
        mount("scratch", at::SCRATCH),
    ];
    if parts.config_source.is_some() {
        mounts.push(read_only(mount(CONFIG_SOURCE, at::SOURCE_CONFIG)));
    }
    // With the output: `fetch` fails early when it cannot be used.
    for slot in parts.sources.iter().chain([&parts.output]) {
        mounts.extend(slot.mounts());
    }
    let mut variables = agent_env(&parts.fetch_task);
    variables.push(variable(env::BIN, at::BIN));
    variables.push(variable(env::SOURCE_CONFIG, at::SOURCE_CONFIG));
    agent(attempt, FETCH, variables, mounts, &attempt.settings.fetch_resources)
}

fn publish(attempt: &Attempt<'_>, parts: &PodParts<'_>) -> Container {
    let mut mounts = vec![
        mount("run", at::RUN),
        mount("work", at::WORK),
        mount("scratch", at::SCRATCH),
    ];
    mounts.extend(parts.output.mounts());
    let variables = agent_env(&parts.publish_task);
    agent(attempt, PUBLISH, variables, mounts, &attempt.settings.publish_resources)
}

fn agent_env(task: &str) -> Vec<EnvVar> {
    vec![
        variable(env::TASK, task),
        variable(env::RUN, at::RUN),
        variable(env::WORK, at::WORK),
        variable(env::SECRETS, at::SECRETS),
        variable(env::STORAGE, at::STORAGE),
        variable(env::TERMINATION_LOG, at::TERMINATION_LOG),
        variable("HOME", at::SCRATCH),
        variable("TMPDIR", at::SCRATCH),
    ]
}

fn agent(
    attempt: &Attempt<'_>,
    name: &str,
    env: Vec<EnvVar>,
    volume_mounts: Vec<VolumeMount>,
    resources: &Resources,
) -> Container {
    Container {
        name: name.to_owned(),
        image: Some(attempt.settings.agent_image.clone()),
        command: Some(vec!["legion-agent".to_owned(), name.to_owned()]),
        env: Some(env),
        volume_mounts: Some(volume_mounts),
        resources: Some(requirements(resources)),
        security_context: Some(restricted(true)),
        termination_message_path: Some(at::TERMINATION_LOG.to_owned()),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..Container::default()
    }
}
