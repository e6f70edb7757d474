//! The volumes of an attempt's pod.

use k8s_openapi::{
    api::core::v1::{
        EmptyDirVolumeSource, HostPathVolumeSource, PersistentVolumeClaimVolumeSource, SecretVolumeSource, Volume,
        VolumeMount,
    },
    apimachinery::pkg::api::resource::Quantity,
};

use super::{
    inputs::StorageMount,
    kind::PodSettings,
    parts::{at, mount, read_only},
};

/// Name of the volume with a ConfigMap source.
pub(crate) const CONFIG_SOURCE: &str = "config-source";

/// The volumes that every pod of a run has.
pub(super) fn own_volumes(pod: &PodSettings<'_>) -> Vec<Volume> {
    let mut volumes = vec![
        empty_dir("bin", None, None),
        empty_dir("run", None, None),
        empty_dir("work", None, pod.workspace_size.cloned()),
        empty_dir("scratch", None, None),
    ];
    if let Some(size) = pod.shared_memory {
        volumes.push(empty_dir("shm", Some("Memory"), Some(size.clone())));
    }
    volumes
}

fn empty_dir(name: &str, medium: Option<&str>, size_limit: Option<Quantity>) -> Volume {
    Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource {
            medium: medium.map(str::to_owned),
            size_limit,
            ..EmptyDirVolumeSource::default()
        }),
        ..Volume::default()
    }
}

/// A place that `fetch` reads from or `publish` writes to.
pub(crate) struct Slot<'a> {
    pub(crate) name: &'a str,
    pub(crate) secret: Option<&'a str>,
    pub(crate) storage: Option<&'a StorageMount>,
    pub(crate) writable: bool,
}

impl Slot<'_> {
    pub(super) fn mounts(&self) -> Vec<VolumeMount> {
        let secret = self.secret.map(|_| {
            read_only(mount(
                &format!("secret-{}", self.name),
                &format!("{}/{}", at::SECRETS, self.name),
            ))
        });
        let storage = self.storage.map(|_| {
            let mount = mount(
                &format!("storage-{}", self.name),
                &format!("{}/{}", at::STORAGE, self.name),
            );
            if self.writable { mount } else { read_only(mount) }
        });
        secret.into_iter().chain(storage).collect()
    }

    pub(super) fn volumes(&self) -> Vec<Volume> {
        let secret = self.secret.map(|secret| Volume {
            name: format!("secret-{}", self.name),
            secret: Some(SecretVolumeSource {
                secret_name: Some(secret.to_owned()),
                // `fetch` checks every key and names what is missing. The kubelet would only write an event.
                optional: Some(true),
                ..SecretVolumeSource::default()
            }),
            ..Volume::default()
        });
        let storage = self.storage.map(|storage| self.storage_volume(storage));
        secret.into_iter().chain(storage).collect()
    }

    fn storage_volume(&self, storage: &StorageMount) -> Volume {
        let mut volume = Volume {
            name: format!("storage-{}", self.name),
            ..Volume::default()
        };
        match storage {
            StorageMount::Claim(claim) => {
                volume.persistent_volume_claim = Some(PersistentVolumeClaimVolumeSource {
                    claim_name: claim.clone(),
                    read_only: None,
                });
            }
            StorageMount::Directory(path) => {
                let type_ = if self.writable { "DirectoryOrCreate" } else { "" };
                volume.host_path = Some(HostPathVolumeSource {
                    path: path.clone(),
                    type_: Some(type_.to_owned()),
                });
            }
        }
        volume
    }
}

/// Returns the field of the spec that a volume comes from.
pub(super) fn field_of_volume(volume: &str) -> Option<String> {
    let fixed = match volume {
        "work" => "spec.workspace",
        "shm" => "spec.sharedMemory",
        CONFIG_SOURCE => "spec.source.configMap",
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

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("work", Some("spec.workspace"))]
    #[case("shm", Some("spec.sharedMemory"))]
    #[case("config-source", Some("spec.source.configMap"))]
    #[case("storage-source", Some("spec.source"))]
    #[case("secret-output", Some("spec.output"))]
    #[case("storage-data-2", Some("spec.data[2]"))]
    #[case("bin", None)]
    #[case("storage-other", None)]
    fn volumes_come_from_fields(#[case] volume: &str, #[case] field: Option<&str>) {
        assert_eq!(field_of_volume(volume).as_deref(), field);
    }
}
