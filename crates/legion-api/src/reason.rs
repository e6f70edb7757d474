//! The list of reasons. Condition reasons, event reasons, metric labels and the reference docs all use it.

use std::fmt;

/// A class of reasons. It decides the status of conditions, and the section of the reference docs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReasonKind {
    /// The resource is what its spec asks for.
    Success,
    /// Work is in progress, and nothing is wrong.
    Progress,
    /// Something outside the resource is missing or refuses. The resource continues when that changes.
    Waiting,
    /// The spec is wrong. Only a change of the resource helps.
    Invalid,
    /// The run has failed, and no attempt follows.
    Failure,
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident: $kind:ident, $remedy:literal;)+) => {
        /// Why a condition has its status. The name is stable, because dashboards and scripts compare it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Reason {
            /// Every reason, in the order of the reference docs.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// Returns the text in conditions, in PascalCase.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)+ }
            }

            /// Returns the class of the reason.
            #[must_use]
            pub const fn kind(self) -> ReasonKind {
                match self { $(Self::$name => ReasonKind::$kind,)+ }
            }

            /// Returns the meaning, from the docs of the variant.
            #[must_use]
            pub fn meaning(self) -> String {
                let lines: &[&str] = match self { $(Self::$name => &[$($doc),+],)+ };
                lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
            }

            /// Returns what a user can do when the message has nothing more specific. It is empty when there is nothing
            /// to do.
            #[must_use]
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$name => $remedy,)+ }
            }
        }
    };
}

reasons! {
    /// The resource is valid and usable.
    Valid: Success, "";
    /// The run has succeeded and its artifact is stored.
    RunSucceeded: Success, "";

    /// The pod was created and is not yet scheduled.
    PodCreated: Progress, "";
    /// The pod is scheduled. Images are being pulled and volumes are being mounted.
    Starting: Progress, "";
    /// `fetch` is getting the source and the data.
    Fetching: Progress, "";
    /// The trainer is running.
    Training: Progress, "";
    /// `publish` is checking, packing and uploading the trainer's output.
    Publishing: Progress, "";
    /// An attempt ended without a result. The next one is being prepared or waits for its back-off.
    Retrying: Progress, "";
    /// The pod of an earlier run or attempt is being deleted before the next one starts.
    Replacing: Progress, "";
    /// The training is suspended. No pod runs.
    Suspended: Waiting, "set spec.suspend to false";

    /// The toolchain is registered neither in the namespace nor in the platform's namespace.
    ToolchainNotFound: Waiting, "register the ToolchainIntegration, or name one that `kubectl get ti -A` shows";
    /// The toolchain exists, but its Ready condition is not True.
    ToolchainNotReady: Waiting, "fix the ToolchainIntegration: `kubectl describe ti` names the field";
    /// A named connection does not exist in the namespace.
    ConnectionNotFound: Waiting, "create the Connection in the namespace of the training";
    /// A connection exists, but its Ready condition is not True.
    ConnectionNotReady: Waiting, "fix the Connection: `kubectl describe conn` names the field";
    /// A connection has a type that the field does not accept.
    ConnectionTypeMismatch: Waiting, "name a Connection of one of these types";
    /// Connections of type `local` work with `legionctl local` only.
    LocalConnectionNotAllowed: Waiting, "use a Connection of type s3 or pvc on a cluster";
    /// The ConfigMap with the source does not exist, or lacks a key.
    SourceNotFound: Waiting, "create the ConfigMap in the namespace of the training";
    /// The Secret of a connection, or a key of it, does not exist. Attempts follow with back-off, because the operator
    /// itself may not read Secrets.
    SecretMissing: Waiting, "create the Secret with the key that the message names";
    /// The training names no output and the namespace has no default output.
    DefaultOutputMissing: Waiting, "set spec.output, or annotate one Connection of the namespace with legion-platform.org/default-output: \"true\" (see examples/default-output/pvc.yaml)";
    /// The training names no output and the namespace has several default outputs.
    DefaultOutputAmbiguous: Waiting, "set spec.output, or leave the annotation legion-platform.org/default-output on one Connection only";
    /// No node is suitable for the pod yet.
    Unschedulable: Waiting, "compare spec.resources, nodeSelector, tolerations and affinity with the nodes";
    /// An image cannot be pulled.
    ImageNotPulled: Waiting, "check the image reference and spec.imagePullSecrets";
    /// A volume or its object does not exist yet, or cannot be mounted.
    VolumeNotMounted: Waiting, "make the volume or claim available, or change the field. The pod's events have details";
    /// A container cannot be created as configured.
    ContainerNotCreated: Waiting, "see the pod's events for the refused setting";
    /// A ResourceQuota of the namespace refuses the pod. Legion tries again on a timer, and when a pod of the namespace
    /// ends.
    QuotaExceeded: Waiting, "raise the ResourceQuota, lower spec.resources, or wait for other pods to end";
    /// A ResourceQuota of the namespace refuses a pod that does not specify some requests or limits.
    ResourcesMissing: Waiting, "set what the message names in spec.resources, or create a LimitRange with defaults in the namespace";
    /// A LimitRange of the namespace refuses the pod.
    LimitRangeExceeded: Waiting, "set spec.resources within what `kubectl describe limitrange` shows, or change the LimitRange";
    /// A ServiceAccount, PriorityClass or RuntimeClass that the pod refers to does not exist.
    PodReferenceNotFound: Waiting, "create what the message names, or change the field";
    /// Admission refuses the pod.
    AdmissionRefused: Waiting, "change what the message names: Pod Security, a policy or a webhook refuses the pod";
    /// A pod that Legion did not create has the name of the run's pod.
    PodNameTaken: Waiting, "delete or rename the other pod";
    /// The node of the running pod does not answer. Legion waits for the pod.
    NodeLost: Waiting, "bring the node back, or delete its Node object. After `kubectl delete pod --force` the run continues on another node";
    /// Requests to the API server fail for a reason that should pass. Legion tries again with back-off.
    ApiUnavailable: Waiting, "see the message. If it stays, check the API server and its webhooks";
    /// The operator lacks a permission.
    Forbidden: Waiting, "grant the operator what the message names (the chart's RBAC does)";

    /// A field of the spec is wrong, and the schema cannot express the rule.
    InvalidSpec: Invalid, "change the field that the message names";
    /// `spec.arguments` does not match the toolchain's schema.
    InvalidArguments: Invalid, "change spec.arguments as the message says";
    /// `spec.hyperParameters` does not match the toolchain's schema.
    InvalidHyperParameters: Invalid, "change spec.hyperParameters as the message says";
    /// The object does not match the types of its kind. It was written before the schema forbade it.
    InvalidObject: Invalid, "change the field that the message names";

    /// The training code ended with an error.
    TrainerFailed: Failure, "read the log: `kubectl logs -n NAMESPACE POD -c CONTAINER`, or status.log.uri";
    /// The training code used more memory than its limit.
    OutOfMemory: Failure, "raise spec.resources.limits.memory or make the training use less, then request a new run: change spec.trigger";
    /// The training code ran longer than `spec.timeout`.
    DeadlineExceeded: Failure, "raise spec.timeout or make the training shorter, then request a new run: change spec.trigger";
    /// The pod exceeded its limits and was evicted.
    Evicted: Failure, "raise spec.workspace.size or spec.resources or write less, then request a new run: change spec.trigger";
    /// Source or data could not be fetched.
    FetchFailed: Failure, "fix what the message names, then request a new run: change spec.trigger";
    /// The trainer's output could not be published.
    PublishFailed: Failure, "fix what the message names, then request a new run: change spec.trigger";
    /// The trainer succeeded, but its output cannot be published.
    OutputInvalid: Failure, "make the training write its model as the toolchain documents";
    /// The toolchain refused the project or its settings before training.
    ToolchainRefused: Failure, "change the field that the message names";
    /// The software or a service that the training code needs could not be made available.
    EnvironmentFailed: Failure, "fix what the message names, then request a new run: change spec.trigger";
    /// The toolchain itself failed.
    ToolchainFailed: Failure, "read the log: `kubectl logs -n NAMESPACE POD -c CONTAINER`, or status.log.uri; report it to the toolchain's authors";
    /// The pod did not start within `spec.startTimeout`, in all allowed attempts.
    StartTimeout: Failure, "see the message for the cause, raise spec.startTimeout if the cluster is only slow, then request a new run: change spec.trigger";
    /// The pod was interrupted from outside more often than allowed.
    TooManyDisruptions: Failure, "find out why the pods end (drain, preemption, node failure), then request a new run: change spec.trigger";
    /// The kubelet refused the pod more often than allowed.
    PodRejected: Failure, "see the message for the kubelet's reason, then request a new run: change spec.trigger";
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Reason {
    type Err = UnknownReason;

    fn from_str(s: &str) -> Result<Self, UnknownReason> {
        Self::ALL
            .iter()
            .copied()
            .find(|reason| reason.as_str() == s)
            .ok_or_else(|| UnknownReason(s.to_owned()))
    }
}

/// A text that is not a [`Reason`] of this version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown reason {0:?}")]
pub struct UnknownReason(pub String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_valid_name_a_meaning_and_a_remedy_where_needed() {
        for &reason in Reason::ALL {
            let name = reason.as_str();
            assert!(
                name.starts_with(|c: char| c.is_ascii_uppercase()) && name.chars().all(|c| c.is_ascii_alphanumeric()),
                "{name}"
            );
            assert_eq!(name.parse::<Reason>(), Ok(reason));
            assert!(reason.meaning().ends_with('.'), "{name}: {:?}", reason.meaning());
            let no_remedy = matches!(reason.kind(), ReasonKind::Success | ReasonKind::Progress);
            assert_eq!(reason.remedy().is_empty(), no_remedy, "{name} needs a remedy, or none");
        }
    }
}
