//! The pod of an attempt.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        Capabilities, ConfigMapVolumeSource, Container, EmptyDirVolumeSource, EnvVar, HostPathVolumeSource, KeyToPath,
        PersistentVolumeClaimVolumeSource, Pod, PodOS, PodSecurityContext, PodSpec, ResourceRequirements,
        SeccompProfile, SecretVolumeSource, SecurityContext, Volume, VolumeMount,
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{ObjectMeta, OwnerReference},
    },
};
use legion_api::{ModelTrainingSpec, resources::Resources, training::RunStatus};
use legion_protocol::env;
use serde_json::json;

use super::{
    fields::{self, Effect},
    inputs::{Inputs, Mount, normal, secret_of},
    labels, tasks,
};
use crate::{Settings, hash};

pub(super) const FETCH: &str = "fetch";
pub(super) const TRAINER: &str = "trainer";
pub(super) const PUBLISH: &str = "publish";

/// Where volumes are mounted. Processes learn of these through environment variables only, so that a node without mount
/// namespaces may put them elsewhere.
mod at {
    pub(super) const BIN: &str = "/legion/bin";
    pub(super) const RUN: &str = "/legion/run";
    pub(super) const WORK: &str = "/legion/work";
    pub(super) const SCRATCH: &str = "/legion/scratch";
    pub(super) const SOURCE_CONFIG: &str = "/legion/source-config";
    pub(super) const SECRETS: &str = "/legion/secrets";
    pub(super) const STORAGE: &str = "/legion/storage";
    pub(super) const SHM: &str = "/dev/shm";
    pub(super) const TERMINATION_LOG: &str = "/dev/termination-log";
}

/// What `publish` may take after the training code was given its grace period, when the pod is ended from outside: time
/// to notice the end and to upload the log.
const PUBLISH_GRACE_SECONDS: i64 = 15;

/// Everything that the pod of an attempt is built from.
#[derive(Clone, Copy)]
pub(super) struct Attempt<'a> {
    pub spec: &'a ModelTrainingSpec,
    pub namespace: &'a str,
    pub name: &'a str,
    pub uid: &'a str,
    pub run: &'a RunStatus,
    pub inputs: &'a Inputs,
    pub settings: &'a Settings,
}

impl Attempt<'_> {
    pub(super) fn pod_name(&self) -> String {
        labels::pod_name(self.name, &self.run.id, self.run.attempt)
    }

    /// `spec.workDir` in its normal form; empty for the source root.
    pub(super) fn work_dir(&self) -> String {
        self.spec.work_dir.as_deref().map(normal).unwrap_or_default()
    }

    fn grace_seconds(&self) -> i64 {
        i64::try_from(self.spec.grace_period.as_secs_ceil()).unwrap_or(3600)
    }

    pub(super) fn pod_grace_seconds(&self) -> i64 {
        self.grace_seconds() + PUBLISH_GRACE_SECONDS
    }

    /// The pod's own deadline: a backstop for when everything else has failed, always finite.
    fn deadline_seconds(&self) -> i64 {
        let spec = self.spec;
        let allowances = [spec.start_timeout, spec.timeout].map(|span| span.as_secs_ceil());
        let total = allowances
            .iter()
            .fold(self.settings.publish_allowance.as_secs(), |sum, more| {
                sum.saturating_add(*more)
            });
        // The API server accepts at most this many seconds.
        i64::try_from(total)
            .unwrap_or(i64::MAX)
            .saturating_add(self.pod_grace_seconds())
            .clamp(1, i32::MAX.into())
    }

    /// A hash of what shapes the pod. When a pod cannot start and would be shaped otherwise by now, it is made anew.
    pub(super) fn shape(&self) -> String {
        // A spec is plain data with string keys: it always serialises.
        let spec = serde_json::to_value(self.spec).unwrap_or_default();
        let spec = hash::canonical(&fields::part(&spec, Effect::NextAttempt));
        let hash = hash::short(
            "legion-shape/1",
            &[&spec, &self.inputs.to_json(), &self.settings.agent_image],
        );
        format!("{hash:016x}")
    }

    /// Builds the pod. Whatever a user can get wrong was refused before.
    pub(super) fn pod(&self) -> Pod {
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

    fn volumes(&self) -> Vec<Volume> {
        let empty = |name: &str, medium: Option<&str>, size_limit: Option<Quantity>| Volume {
            name: name.to_owned(),
            empty_dir: Some(EmptyDirVolumeSource {
                medium: medium.map(str::to_owned),
                size_limit,
                ..EmptyDirVolumeSource::default()
            }),
            ..Volume::default()
        };
        let mut volumes = vec![
            empty("bin", None, None),
            empty("run", None, None),
            empty(
                "work",
                None,
                self.spec.workspace.as_ref().map(|workspace| workspace.size.clone()),
            ),
            empty("scratch", None, None),
        ];
        if let Some(size) = &self.spec.shared_memory {
            volumes.push(empty("shm", Some("Memory"), Some(size.clone())));
        }
        if let Some(source) = &self.spec.source.config_map {
            let item = |item: &legion_api::training::ConfigMapItem| KeyToPath {
                key: item.key.clone(),
                path: item.path.clone(),
                ..KeyToPath::default()
            };
            volumes.push(Volume {
                name: "config-source".to_owned(),
                config_map: Some(ConfigMapVolumeSource {
                    name: source.name.to_string(),
                    items: some_list(&source.items.iter().map(item).collect::<Vec<_>>()),
                    // A missing one would keep the pod from starting without a word; `fetch` says what is missing.
                    optional: Some(true),
                    ..ConfigMapVolumeSource::default()
                }),
                ..Volume::default()
            });
        }
        volumes.extend(self.slots().into_iter().flat_map(Slot::volumes));
        volumes
    }

    fn slots(&self) -> Vec<Slot<'_>> {
        let inputs = self.inputs;
        let source = Slot {
            name: "source",
            secret: inputs.source.secret(),
            mount: inputs.source.mount.as_ref(),
            writable: false,
        };
        let data = inputs.data.iter().map(|data| Slot {
            name: &data.task.slot,
            secret: secret_of(&data.task.store),
            mount: data.mount.as_ref(),
            writable: false,
        });
        std::iter::once(source)
            .chain(data)
            .chain([self.output_slot()])
            .collect()
    }

    fn output_slot(&self) -> Slot<'_> {
        let output = &self.inputs.output;
        Slot {
            name: "output",
            secret: secret_of(&output.task.store),
            mount: output.mount.as_ref(),
            writable: true,
        }
    }
}

/// One place that `fetch` reads from or `publish` writes to.
struct Slot<'a> {
    name: &'a str,
    secret: Option<&'a str>,
    mount: Option<&'a Mount>,
    writable: bool,
}

impl Slot<'_> {
    fn mounts(&self) -> Vec<VolumeMount> {
        let secret = self.secret.map(|_| {
            read_only(mount(
                &format!("secret-{}", self.name),
                &format!("{}/{}", at::SECRETS, self.name),
            ))
        });
        let storage = self.mount.map(|_| {
            let mount = mount(
                &format!("storage-{}", self.name),
                &format!("{}/{}", at::STORAGE, self.name),
            );
            if self.writable { mount } else { read_only(mount) }
        });
        secret.into_iter().chain(storage).collect()
    }

    fn volumes(self) -> Vec<Volume> {
        let secret = self.secret.map(|secret| Volume {
            name: format!("secret-{}", self.name),
            secret: Some(SecretVolumeSource {
                secret_name: Some(secret.to_owned()),
                // `fetch` checks every key and names what is missing; the kubelet would only write an event.
                optional: Some(true),
                ..SecretVolumeSource::default()
            }),
            ..Volume::default()
        });
        let storage = self.mount.map(|mount| {
            let mut volume = Volume {
                name: format!("storage-{}", self.name),
                ..Volume::default()
            };
            match mount {
                Mount::Claim(claim) => {
                    volume.persistent_volume_claim = Some(PersistentVolumeClaimVolumeSource {
                        claim_name: claim.clone(),
                        read_only: None,
                    });
                }
                Mount::Directory(path) => {
                    let type_ = if self.writable { "DirectoryOrCreate" } else { "" };
                    volume.host_path = Some(HostPathVolumeSource {
                        path: path.clone(),
                        type_: Some(type_.to_owned()),
                    });
                }
            }
            volume
        });
        secret.into_iter().chain(storage).collect()
    }
}

/// The field of the training that a volume of its pod comes from.
pub(super) fn field_of_volume(volume: &str) -> Option<String> {
    let fixed = match volume {
        "work" => "spec.workspace",
        "shm" => "spec.sharedMemory",
        "config-source" => "spec.source.configMap",
        _ => match volume
            .strip_prefix("storage-")
            .or_else(|| volume.strip_prefix("secret-"))?
        {
            "source" => "spec.source",
            "output" => "spec.output",
            data => return data.strip_prefix("data-").map(|index| format!("spec.data[{index}]")),
        },
    };
    Some(fixed.to_owned())
}

fn some_list<T: Clone>(list: &[T]) -> Option<Vec<T>> {
    (!list.is_empty()).then(|| list.to_vec())
}

fn variable(name: &str, value: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: Some(value.to_owned()),
        value_from: None,
    }
}

fn mount(name: &str, path: &str) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        ..VolumeMount::default()
    }
}

fn read_only(mount: VolumeMount) -> VolumeMount {
    VolumeMount {
        read_only: Some(true),
        ..mount
    }
}

fn requirements(resources: &Resources) -> ResourceRequirements {
    let list = |list: &BTreeMap<String, Quantity>| (!list.is_empty()).then(|| list.clone());
    ResourceRequirements {
        requests: list(&resources.requests),
        limits: list(&resources.limits),
        claims: None,
    }
}

/// What Pod Security `restricted` asks of a container.
fn confined(read_only_root_filesystem: bool) -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities {
            add: None,
            drop: Some(vec!["ALL".to_owned()]),
        }),
        read_only_root_filesystem: Some(read_only_root_filesystem),
        run_as_non_root: Some(true),
        ..SecurityContext::default()
    }
}
