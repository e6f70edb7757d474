//! Settings of the operator. They are the same for every resource.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use legion_api::resources::Resources;
use legion_protocol::task::{FetchLimits, PublishLimits};

/// The settings that decisions depend on.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Namespace of the platform. Legion searches it for toolchains that a training's own namespace does not have.
    pub platform_namespace: String,
    /// Image of `legion-agent`, used for `fetch` and `publish`.
    pub agent_image: String,
    /// User and groups of every container of a pod. `None` where the cluster assigns them (OpenShift).
    pub identity: Option<Identity>,
    /// Whether connections of type `local` are allowed: only where pods share a file system with the user.
    pub allow_local_connections: bool,
    /// Compute resources of `fetch`.
    pub fetch_resources: Resources,
    /// Compute resources of `publish`.
    pub publish_resources: Resources,
    /// Limits of `fetch`.
    pub fetch_limits: FetchLimits,
    /// Limits of `publish`.
    pub publish_limits: PublishLimits,
    /// Size limit of the stored log, in bytes.
    pub log_limit_bytes: u64,
    /// Maximum time for `publish` after the main container has ended. It is part of the pod's own deadline.
    pub publish_allowance: Duration,
    /// Back-off before the second attempt. It doubles for each further attempt.
    pub backoff_base: Duration,
    /// Longest back-off.
    pub backoff_max: Duration,
    /// Maximum number of interruptions from outside per run.
    pub max_disruptions: i32,
    /// Maximum number of refusals by kubelets and of late starts per run.
    pub max_rejections: i32,
    /// Maximum number of failures of Legion's own steps per run, for reasons that may pass.
    pub max_step_failures: i32,
    /// Time until the status reports a state that usually passes soon.
    pub status_delay: Duration,
    /// Time until the next attempt to create a refused pod.
    pub refusal_retry: Duration,
}

/// User, group and file system group of all containers of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// `runAsUser`
    pub uid: i64,
    /// `runAsGroup`
    pub gid: i64,
    /// `fsGroup`
    pub fs_group: i64,
}

impl Settings {
    /// Returns the default settings for a platform namespace and an agent image.
    #[must_use]
    pub fn new(platform_namespace: impl Into<String>, agent_image: impl Into<String>) -> Self {
        let resources = |requests: [(&str, &str); 2], limits: [(&str, &str); 2]| {
            let list = |entries: [(&str, &str); 2]| {
                entries
                    .into_iter()
                    .map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned())))
                    .collect()
            };
            Resources {
                requests: list(requests),
                limits: list(limits),
            }
        };
        Self {
            platform_namespace: platform_namespace.into(),
            agent_image: agent_image.into(),
            identity: Some(Identity {
                uid: 65532,
                gid: 65532,
                fs_group: 65532,
            }),
            allow_local_connections: false,
            fetch_resources: resources(
                [("cpu", "50m"), ("memory", "64Mi")],
                [("cpu", "1"), ("memory", "512Mi")],
            ),
            publish_resources: resources(
                [("cpu", "10m"), ("memory", "16Mi")],
                [("cpu", "1"), ("memory", "256Mi")],
            ),
            fetch_limits: FetchLimits::default(),
            publish_limits: PublishLimits::default(),
            log_limit_bytes: 64 << 20,
            publish_allowance: Duration::from_secs(3600),
            backoff_base: Duration::from_secs(10),
            backoff_max: Duration::from_secs(600),
            max_disruptions: 20,
            max_rejections: 10,
            max_step_failures: 10,
            status_delay: Duration::from_secs(5),
            refusal_retry: Duration::from_secs(30),
        }
    }
}
