//! The pod of an attempt.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, EnvVar, Pod, PodOS, PodSecurityContext, PodSpec, SeccompProfile, VolumeMount},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use legion_api::resources::Resources;
use legion_protocol::env;
use serde_json::json;

use super::{
    attempt::Attempt,
    labels,
    parts::{at, confined, mount, read_only, requirements, some_list, variable},
};
use crate::training::tasks;

pub(crate) const FETCH: &str = "fetch";
pub(crate) const TRAINER: &str = "trainer";
pub(crate) const PUBLISH: &str = "publish";

impl Attempt<'_> {
    /// Builds the pod. Whatever a user can get wrong was refused before.
    pub(crate) fn pod(&self) -> Pod {
        Pod {
            metadata: self.metadata(),
            spec: Some(self.pod_spec()),
            status: None,
        }
    }

    fn metadata(&self) -> ObjectMeta {
        let given = self.spec.pod_metadata.clone().unwrap_or_default();
        let text = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        // A sidecar that never ends would keep the pod from ending; who wants one says so in podMetadata.
        let mut all_labels = BTreeMap::from([text("sidecar.istio.io/inject", "false")]);
        all_labels.extend(given.labels);
        all_labels.extend([
            text("app.kubernetes.io/name", "legion-training"),
            text("app.kubernetes.io/instance", self.name),
            text("app.kubernetes.io/managed-by", labels::MANAGER),
            text("app.kubernetes.io/part-of", "legion"),
            text(labels::TRAINING, self.name),
            text(labels::RUN, &self.run.id),
            text(labels::ATTEMPT, &self.run.attempt.to_string()),
        ]);
        let mut annotations = BTreeMap::from([
            text("kubectl.kubernetes.io/default-container", TRAINER),
            text("sidecar.istio.io/inject", "false"),
            text("linkerd.io/inject", "disabled"),
        ]);
        annotations.extend(given.annotations);
        annotations.extend([
            text(labels::SEQUENCE, &self.run.sequence.to_string()),
            text(labels::GENERATION, &self.run.generation.to_string()),
            text(labels::INPUTS, &self.inputs.to_json()),
            text(labels::SHAPE, &self.shape()),
        ]);
        ObjectMeta {
            name: Some(self.pod_name()),
            namespace: Some(self.namespace.to_owned()),
            labels: Some(all_labels),
            annotations: Some(annotations),
            owner_references: Some(vec![OwnerReference {
                api_version: format!("{}/{}", legion_api::GROUP, legion_api::VERSION),
                kind: "ModelTraining".to_owned(),
                name: self.name.to_owned(),
                uid: self.uid.to_owned(),
                controller: Some(true),
                // Deleting the training need not wait for its pods.
                block_owner_deletion: None,
            }]),
            ..ObjectMeta::default()
        }
    }

    fn pod_spec(&self) -> PodSpec {
        let spec = self.spec;
        let text = |name: &legion_api::names::ObjectName| name.to_string();
        let identity = self.settings.identity;
        PodSpec {
            restart_policy: Some("Never".to_owned()),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            os: Some(PodOS {
                name: "linux".to_owned(),
            }),
            active_deadline_seconds: Some(self.deadline_seconds()),
            termination_grace_period_seconds: Some(self.pod_grace_seconds()),
            security_context: Some(PodSecurityContext {
                run_as_non_root: Some(true),
                run_as_user: identity.map(|identity| identity.uid),
                run_as_group: identity.map(|identity| identity.gid),
                fs_group: identity.map(|identity| identity.fs_group),
                // Without it the kubelet walks a whole volume of data before every start.
                fs_group_change_policy: identity.map(|_| "OnRootMismatch".to_owned()),
                seccomp_profile: Some(SeccompProfile {
                    type_: "RuntimeDefault".to_owned(),
                    localhost_profile: None,
                }),
                ..PodSecurityContext::default()
            }),
            node_selector: (!spec.node_selector.is_empty()).then(|| spec.node_selector.clone()),
            tolerations: some_list(&spec.tolerations),
            affinity: spec.affinity.clone(),
            priority_class_name: spec.priority_class_name.as_ref().map(text),
            scheduler_name: spec.scheduler_name.as_ref().map(text),
            runtime_class_name: spec.runtime_class_name.as_ref().map(text),
            service_account_name: spec.service_account_name.as_ref().map(text),
            image_pull_secrets: some_list(&spec.image_pull_secrets),
            init_containers: Some(vec![self.fetch()]),
            containers: vec![self.trainer(), self.publish()],
            volumes: Some(self.volumes()),
            ..PodSpec::default()
        }
    }

    fn fetch(&self) -> Container {
        let mut mounts = vec![
            mount("bin", at::BIN),
            mount("run", at::RUN),
            mount("work", at::WORK),
            mount("scratch", at::SCRATCH),
        ];
        if self.spec.source.config_map.is_some() {
            mounts.push(read_only(mount("config-source", at::SOURCE_CONFIG)));
        }
        for slot in self.slots() {
            mounts.extend(slot.mounts());
        }
        let mut variables = self.agent_env(&json!(tasks::fetch(self)).to_string());
        variables.push(variable(env::BIN, at::BIN));
        variables.push(variable(env::SOURCE_CONFIG, at::SOURCE_CONFIG));
        self.agent(FETCH, variables, mounts, &self.settings.fetch_resources)
    }

    fn publish(&self) -> Container {
        let mut mounts = vec![
            mount("run", at::RUN),
            mount("work", at::WORK),
            mount("scratch", at::SCRATCH),
        ];
        mounts.extend(self.output_slot().mounts());
        let variables = self.agent_env(&json!(tasks::publish(self)).to_string());
        self.agent(PUBLISH, variables, mounts, &self.settings.publish_resources)
    }

    fn agent_env(&self, task: &str) -> Vec<EnvVar> {
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

    /// Where the toolchain finds things in the workspace.
    fn layout_env(&self) -> Vec<EnvVar> {
        let source = match self.work_dir().as_str() {
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

    fn agent(&self, name: &str, env: Vec<EnvVar>, volume_mounts: Vec<VolumeMount>, resources: &Resources) -> Container {
        Container {
            name: name.to_owned(),
            image: Some(self.settings.agent_image.clone()),
            command: Some(vec!["legion-agent".to_owned(), name.to_owned()]),
            env: Some(env),
            volume_mounts: Some(volume_mounts),
            resources: Some(requirements(resources)),
            security_context: Some(confined(true)),
            termination_message_path: Some(at::TERMINATION_LOG.to_owned()),
            termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
            ..Container::default()
        }
    }

    fn trainer(&self) -> Container {
        let tool = &self.inputs.toolchain;
        let spec = self.spec;
        let command = [format!("{}/legion-entry", at::BIN), "--".to_owned()];
        let command = command
            .into_iter()
            .chain(tool.command.iter().cloned())
            .chain(spec.args.iter().cloned());
        let number = |seconds: i64| seconds.to_string();
        let timeout = i64::try_from(spec.timeout.as_secs_ceil()).unwrap_or(i64::MAX);
        let mut variables = vec![
            variable(env::PROTOCOL, &legion_protocol::PROTOCOL_VERSION.to_string()),
            variable(env::RUN, at::RUN),
            variable(env::WORK, at::WORK),
        ];
        variables.extend(self.layout_env());
        variables.extend([
            variable(env::TIMEOUT_SECONDS, &number(timeout)),
            variable(env::GRACE_SECONDS, &number(self.grace_seconds())),
            variable(env::LOG_LIMIT_BYTES, &self.settings.log_limit_bytes.to_string()),
            variable("HOME", &format!("{}/home", at::WORK)),
            variable("TMPDIR", &format!("{}/tmp", at::WORK)),
        ]);
        // Of equal names the last counts: the training's win over the toolchain's. Legion's own were refused in both.
        let given = tool
            .env
            .iter()
            .filter(|base| !spec.env.iter().any(|over| over.name == base.name))
            .chain(&spec.env);
        for more in given {
            variables.retain(|variable| variable.name != more.name);
            variables.push(more.clone());
        }
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
            name: TRAINER.to_owned(),
            image: Some(tool.image.clone()),
            command: Some(command.collect()),
            env: Some(variables),
            volume_mounts: Some(mounts),
            resources: Some(requirements(&resources)),
            security_context: Some(confined(tool.read_only_root_filesystem)),
            termination_message_path: Some(at::TERMINATION_LOG.to_owned()),
            termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
            ..Container::default()
        }
    }
}
