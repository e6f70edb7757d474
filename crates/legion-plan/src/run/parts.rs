//! Parts of pods.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Capabilities, EnvVar, ResourceRequirements, SecurityContext, VolumeMount},
    apimachinery::pkg::api::resource::Quantity,
};
use legion_api::resources::Resources;

/// Mount paths of the volumes. Processes learn them from environment variables only. A node without mount namespaces
/// may therefore use other paths.
pub(crate) mod at {
    pub(crate) const BIN: &str = "/legion/bin";
    pub(crate) const RUN: &str = "/legion/run";
    pub(crate) const WORK: &str = "/legion/work";
    pub(crate) const SCRATCH: &str = "/legion/scratch";
    pub(crate) const SOURCE_CONFIG: &str = "/legion/source-config";
    pub(crate) const SECRETS: &str = "/legion/secrets";
    pub(crate) const STORAGE: &str = "/legion/storage";
    pub(crate) const SHM: &str = "/dev/shm";
    pub(crate) const TERMINATION_LOG: &str = "/dev/termination-log";
}

pub(crate) fn some_list<T: Clone>(list: &[T]) -> Option<Vec<T>> {
    (!list.is_empty()).then(|| list.to_vec())
}

pub(crate) fn variable(name: &str, value: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: Some(value.to_owned()),
        value_from: None,
    }
}

pub(crate) fn mount(name: &str, path: &str) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        ..VolumeMount::default()
    }
}

pub(crate) fn read_only(mount: VolumeMount) -> VolumeMount {
    VolumeMount {
        read_only: Some(true),
        ..mount
    }
}

pub(crate) fn requirements(resources: &Resources) -> ResourceRequirements {
    let list = |list: &BTreeMap<String, Quantity>| (!list.is_empty()).then(|| list.clone());
    ResourceRequirements {
        requests: list(&resources.requests),
        limits: list(&resources.limits),
        claims: None,
    }
}

/// Returns the security context of a container under Pod Security `restricted`.
pub(crate) fn restricted(read_only_root_filesystem: bool) -> SecurityContext {
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
