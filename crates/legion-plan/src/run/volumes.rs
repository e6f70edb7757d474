//! The volumes of an attempt's pod.

use k8s_openapi::{
    api::core::v1::{
        ConfigMapVolumeSource, EmptyDirVolumeSource, HostPathVolumeSource, KeyToPath,
        PersistentVolumeClaimVolumeSource, SecretVolumeSource, Volume, VolumeMount,
    },
    apimachinery::pkg::api::resource::Quantity,
};

use super::{
    attempt::Attempt,
    parts::{at, mount, read_only, some_list},
};
use crate::training::inputs::{Mount, secret_of};

impl Attempt<'_> {
    pub(crate) fn volumes(&self) -> Vec<Volume> {
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

    pub(crate) fn slots(&self) -> Vec<Slot<'_>> {
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

    pub(crate) fn output_slot(&self) -> Slot<'_> {
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
pub(crate) struct Slot<'a> {
    name: &'a str,
    secret: Option<&'a str>,
    mount: Option<&'a Mount>,
    writable: bool,
}

impl Slot<'_> {
    pub(crate) fn mounts(&self) -> Vec<VolumeMount> {
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
pub(crate) fn field_of_volume(volume: &str) -> Option<String> {
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
