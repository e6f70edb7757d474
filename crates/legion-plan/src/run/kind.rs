//! What differs between the kinds of runs, as data.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Affinity, LocalObjectReference, Toleration},
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::Condition},
};
use legion_api::{Reason, duration::Span, names::ObjectName, run::RunStatus};

/// A kind of objects that run.
#[derive(Debug)]
pub(crate) struct RunKind {
    /// The kind of the object that owns the pods.
    pub(crate) kind: &'static str,
    /// `app.kubernetes.io/name` of the pods.
    pub(crate) application: &'static str,
    /// Label of the pods with the name of their owner.
    pub(crate) owner_label: &'static str,
    /// Name of the main container, between `fetch` and `publish`.
    pub(crate) container: &'static str,
    /// The main container's step, as `status.failure.step` names it.
    pub(crate) step: &'static str,
    /// What runs in the main container, as messages name it.
    pub(crate) code: &'static str,
    /// The reason while the main container runs.
    pub(crate) running: Reason,
    /// The reason when the main container failed.
    pub(crate) failed: Reason,
    /// `status.failure.reason` when the main container could not be started.
    pub(crate) not_started: &'static str,
}

/// An object with runs: the parts that all kinds share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RunObject<'a> {
    pub(crate) kind: &'static RunKind,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    pub(crate) uid: &'a str,
    pub(crate) generation: i64,
    pub(crate) resource_version: Option<&'a str>,
    pub(crate) policy: RunPolicy,
    /// `status.observedGeneration`
    pub(crate) observed_generation: Option<i64>,
    /// `status.conditions`
    pub(crate) conditions: &'a [Condition],
    /// `status.run`
    pub(crate) run: Option<&'a RunStatus>,
    /// Whether the object was read live.
    pub(crate) confirmed: bool,
    /// Whether it is the object's turn to ask for room under the quotas of its namespace.
    pub(crate) quota_turn: bool,
}

/// The fields of a spec that decide how often and how long attempts run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RunPolicy {
    pub(crate) suspend: bool,
    pub(crate) retries: i32,
    pub(crate) timeout: Span,
    pub(crate) start_timeout: Span,
    pub(crate) grace_period: Span,
    pub(crate) ttl_after_finished: Span,
}

/// The fields of a spec that configure the pod.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PodSettings<'a> {
    pub(crate) node_selector: &'a BTreeMap<String, String>,
    pub(crate) tolerations: &'a [Toleration],
    pub(crate) affinity: Option<&'a Affinity>,
    pub(crate) priority_class_name: Option<&'a ObjectName>,
    pub(crate) scheduler_name: Option<&'a ObjectName>,
    pub(crate) runtime_class_name: Option<&'a ObjectName>,
    pub(crate) service_account_name: Option<&'a ObjectName>,
    pub(crate) image_pull_secrets: &'a [LocalObjectReference],
    /// `spec.podMetadata.labels`
    pub(crate) labels: Option<&'a BTreeMap<String, String>>,
    /// `spec.podMetadata.annotations`
    pub(crate) annotations: Option<&'a BTreeMap<String, String>>,
    /// `spec.workspace.size`
    pub(crate) workspace_size: Option<&'a Quantity>,
    /// `spec.sharedMemory`
    pub(crate) shared_memory: Option<&'a Quantity>,
}
