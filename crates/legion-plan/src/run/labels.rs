//! How a pod says which training, run and attempt it belongs to.

use k8s_openapi::api::core::v1::Pod;

/// Label with the name of the training.
pub const TRAINING: &str = "legion-platform.org/training";
/// Label with the id of the run.
pub const RUN: &str = "legion-platform.org/run";
/// Label with the number of the attempt.
pub const ATTEMPT: &str = "legion-platform.org/attempt";
/// Annotation with the number of the run.
pub const SEQUENCE: &str = "legion-platform.org/sequence";
/// Annotation with the training's generation that the pod was made for.
pub const GENERATION: &str = "legion-platform.org/generation";
/// Annotation with the inputs that the run is pinned to, as JSON.
pub const INPUTS: &str = "legion-platform.org/inputs";
/// Annotation with a hash of what shaped the pod: a pod that cannot start is made anew when it would be shaped otherwise.
pub const SHAPE: &str = "legion-platform.org/shape";
/// `app.kubernetes.io/managed-by` of every pod.
pub const MANAGER: &str = "legion-operator";

/// An annotation's value.
pub(crate) fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// Whether a pod is controlled by the object with that uid.
pub(crate) fn is_owned(pod: &Pod, uid: &str) -> bool {
    let owners = pod.metadata.owner_references.as_deref().unwrap_or_default();
    !uid.is_empty()
        && owners
            .iter()
            .any(|owner| owner.controller == Some(true) && owner.uid == uid)
}

/// Name of the pod of an attempt.
#[must_use]
pub fn pod_name(training: &str, run: &str, attempt: i32) -> String {
    format!("{training}-{run}-{attempt}")
}

/// The run and the attempt that a pod was made for, by its name: a pod keeps that when somebody changes its labels.
pub(crate) fn identity<'a>(pod: &'a Pod, training: &str) -> Option<(&'a str, i32)> {
    let rest = pod
        .metadata
        .name
        .as_deref()?
        .strip_prefix(training)?
        .strip_prefix('-')?;
    let (run, attempt) = rest.split_once('-')?;
    Some((run, attempt.parse().ok()?))
}
