//! The one list of reasons: condition reasons, event reasons, metric labels and the reference docs all come from here.

use std::fmt;

/// What kind of matter a reason stands for; decides how conditions are set and what the reference docs say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReasonKind {
    /// The resource is what its spec asks for.
    Success,
    /// Work is under way; nothing is wrong.
    Progress,
    /// Something outside the resource is missing or refuses; it heals by itself when that appears.
    Waiting,
    /// The spec itself is wrong: only a change of the resource helps.
    Invalid,
    /// The run has failed for good.
    Failure,
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident: $kind:ident, $remedy:literal;)+) => {
        /// Why a condition has its status. PascalCase, stable: dashboards and scripts compare it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Reason {
            /// Every reason, in the order of the reference docs.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// As it stands in a condition.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)+ }
            }

            /// What kind of matter it is.
            #[must_use]
            pub const fn kind(self) -> ReasonKind {
                match self { $(Self::$name => ReasonKind::$kind,)+ }
            }

            /// What it means, from the docs of the variant.
            #[must_use]
            pub fn meaning(self) -> String {
                let lines: &[&str] = match self { $(Self::$name => &[$($doc),+],)+ };
                lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
            }

            /// What a user can do about it when the message has nothing more specific; empty where there is nothing to do.
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
    /// The pod is scheduled: images are pulled and volumes are mounted.
    Starting: Progress, "";
    /// `fetch` gets the source and the data.
    Fetching: Progress, "";
    /// The trainer runs.
    Training: Progress, "";
    /// `publish` checks, packs and uploads what the trainer wrote.
    Publishing: Progress, "";
    /// An attempt ended without a result; the next one is being prepared or waits out its back-off.
    Retrying: Progress, "";
    /// The pod of an earlier run or attempt is being ended before the next one starts.
    Replacing: Progress, "";
    /// The training is suspended: no pod runs.
    Suspended: Waiting, "set spec.suspend to false";

    /// The toolchain is registered neither in the namespace nor in the platform's namespace.
    ToolchainNotFound: Waiting, "register the ToolchainIntegration, or name one that `kubectl get ti -A` shows";
    /// The toolchain exists but its own Ready condition is not True.
    ToolchainNotReady: Waiting, "mend the ToolchainIntegration: `kubectl describe ti` names the field";
    /// A connection that the resource names does not exist in its namespace.
    ConnectionNotFound: Waiting, "create the Connection in the namespace of the training";
    /// A connection exists but its own Ready condition is not True.
    ConnectionNotReady: Waiting, "mend the Connection: `kubectl describe conn` names the field";
    /// A connection is of a type that cannot serve this purpose.
    ConnectionTypeMismatch: Waiting, "name a Connection of a type that fits";
    /// Connections of type `local` are served by `legionctl local` only.
    LocalConnectionNotAllowed: Waiting, "use a Connection of type s3 or pvc on a cluster";
    /// The ConfigMap that holds the source does not exist, or lacks a key.
    SourceNotFound: Waiting, "create the ConfigMap in the namespace of the training";
    /// A Secret, or a key of it, that a connection names does not exist; tried again with back-off, because the operator
    /// itself may not read Secrets.
    SecretMissing: Waiting, "create the Secret with the key that the message names";
    /// The training names no output and the namespace has no default output.
    DefaultOutputMissing: Waiting, "set spec.output, or annotate one Connection of the namespace with legion-platform.org/default-output: \"true\" (see examples/default-output/pvc.yaml)";
    /// The training names no output and the namespace has several default outputs.
    DefaultOutputAmbiguous: Waiting, "set spec.output, or leave the annotation legion-platform.org/default-output on one Connection only";
    /// No node can take the pod yet.
    Unschedulable: Waiting, "compare spec.resources, nodeSelector, tolerations and affinity with the nodes";
    /// An image cannot be pulled.
    ImageNotPulled: Waiting, "check the image reference and spec.imagePullSecrets";
    /// A volume or its object is not there yet.
    VolumeNotMounted: Waiting, "make the volume or claim available, or change what names it; the pod's events tell more";
    /// A container cannot be created as configured.
    ContainerNotCreated: Waiting, "see the pod's events for the setting that is refused";
    /// A ResourceQuota of the namespace refuses the pod; tried again on a timer and when a pod of the namespace ends.
    QuotaExceeded: Waiting, "raise the ResourceQuota, lower spec.resources, or wait for other pods to end";
    /// Admission refuses the pod.
    AdmissionRefused: Waiting, "change what the message names: Pod Security, a policy or a webhook refuses the pod";
    /// An object of somebody else bears the name of the run's pod.
    PodNameTaken: Waiting, "delete or rename the pod that is not Legion's";
    /// The node of the running pod does not answer; the pod is waited for.
    NodeLost: Waiting, "bring the node back, or delete its Node object; with `kubectl delete pod --force` the run goes on elsewhere";
    /// The API server fails at what the operator asks, for a reason that should pass; tried again with back-off.
    ApiUnavailable: Waiting, "see the message; if it stays, look at the API server and at the webhooks that it calls";
    /// The API server does not let the operator do what it must.
    Forbidden: Waiting, "grant the operator what the message names (the chart's RBAC does)";

    /// A field of the spec is wrong in a way that the schema cannot express.
    InvalidSpec: Invalid, "change the field that the message names";
    /// `spec.arguments` does not fit the toolchain's schema.
    InvalidArguments: Invalid, "change spec.arguments as the message says";
    /// `spec.hyperParameters` does not fit the toolchain's schema.
    InvalidHyperParameters: Invalid, "change spec.hyperParameters as the message says";
    /// The object does not fit the types of its kind: it was written before the schema forbade it.
    InvalidObject: Invalid, "change the field that the message names";

    /// The training code ended with an error.
    TrainerFailed: Failure, "read the log: `legionctl logs NAME`, or status.log.uri";
    /// The training code used more memory than its limit.
    OutOfMemory: Failure, "raise spec.resources.limits.memory or make the training use less, then ask for a new run: change spec.trigger";
    /// The training code ran longer than `spec.timeout`.
    DeadlineExceeded: Failure, "raise spec.timeout or make the training shorter, then ask for a new run: change spec.trigger";
    /// The pod exceeded its own limits and was evicted.
    Evicted: Failure, "raise spec.workspace.size or spec.resources or write less, then ask for a new run: change spec.trigger";
    /// Source or data could not be fetched.
    FetchFailed: Failure, "mend what the message names, then ask for a new run: change spec.trigger";
    /// What the trainer wrote could not be published.
    PublishFailed: Failure, "mend what the message names, then ask for a new run: change spec.trigger";
    /// The trainer ended well but left nothing that can be published.
    OutputInvalid: Failure, "make the training write its model as the toolchain documents";
    /// The toolchain refused the project or its settings before training.
    ToolchainRefused: Failure, "change the field that the message names";
    /// The pod did not start within `spec.startTimeout`, as often as allowed.
    StartTimeout: Failure, "see the message for what it waited for, raise spec.startTimeout if the cluster is only slow, then ask for a new run: change spec.trigger";
    /// The pod was interrupted from outside more often than allowed.
    TooManyDisruptions: Failure, "find out what ends the pods (drain, preemption, node failure), then ask for a new run: change spec.trigger";
    /// The kubelet refused the pod more often than allowed.
    PodRejected: Failure, "see the message for the kubelet's reason, then ask for a new run: change spec.trigger";
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

/// A text that is no [`Reason`] of this version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown reason {0:?}")]
pub struct UnknownReason(pub String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_well_formed_and_has_a_meaning_and_where_needed_a_remedy() {
        for &reason in Reason::ALL {
            let name = reason.as_str();
            assert!(
                name.starts_with(|c: char| c.is_ascii_uppercase()) && name.chars().all(|c| c.is_ascii_alphanumeric()),
                "{name}"
            );
            assert_eq!(name.parse::<Reason>(), Ok(reason));
            assert!(reason.meaning().ends_with('.'), "{name}: {:?}", reason.meaning());
            let silent = matches!(reason.kind(), ReasonKind::Success | ReasonKind::Progress);
            assert_eq!(reason.remedy().is_empty(), silent, "{name} needs a remedy, or none");
        }
    }
}
