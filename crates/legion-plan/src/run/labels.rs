//! Labels and annotations that identify a pod's run and attempt.

use k8s_openapi::api::core::v1::Pod;

/// Label with the id of the run.
pub const RUN: &str = "legion-platform.org/run";
/// Label with the number of the attempt.
pub const ATTEMPT: &str = "legion-platform.org/attempt";
/// Annotation with the number of the run.
pub(crate) const SEQUENCE: &str = "legion-platform.org/sequence";
/// Annotation with the owner's generation when the pod was created.
pub(crate) const GENERATION: &str = "legion-platform.org/generation";
/// Annotation with the pinned inputs of the run, as JSON.
pub(crate) const INPUTS: &str = "legion-platform.org/inputs";
/// Annotation with a hash of the pod's configuration. A pod that cannot start is recreated when this hash has changed.
pub(crate) const SHAPE: &str = "legion-platform.org/shape";
/// Annotation with the release that created the pod: the platform's namespace.
pub const OPERATOR: &str = "legion-platform.org/operator";
/// `app.kubernetes.io/managed-by` of every pod.
pub(crate) const MANAGER: &str = "legion-operator";

pub(crate) fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// Returns whether a pod is controlled by the object with that uid.
pub(crate) fn is_owned(pod: &Pod, uid: &str) -> bool {
    let owners = pod.metadata.owner_references.as_deref().unwrap_or_default();
    !uid.is_empty()
        && owners
            .iter()
            .any(|owner| owner.controller == Some(true) && owner.uid == uid)
}

/// Returns the name of an attempt's pod.
pub(crate) fn pod_name(owner: &str, run: &str, attempt: i32) -> String {
    format!("{owner}-{run}-{attempt}")
}

/// Returns the run and the attempt of a pod. They are read from its name, because labels can be changed.
pub(crate) fn identity<'a>(pod: &'a Pod, owner: &str) -> Option<(&'a str, i32)> {
    let rest = pod.metadata.name.as_deref()?.strip_prefix(owner)?.strip_prefix('-')?;
    let (run, attempt) = rest.split_once('-')?;
    Some((run, attempt.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(owners: &serde_json::Value) -> Pod {
        let metadata = json!({"name": "wine-0123abcd-2", "ownerReferences": owners, "annotations": {RUN: "0123abcd"}});
        serde_json::from_value(json!({"metadata": metadata})).unwrap()
    }

    #[test]
    fn only_the_controller_owns_a_pod() {
        let owner = |uid: &str, is_controller: bool| json!({"apiVersion": "v1", "kind": "X", "name": "wine", "uid": uid, "controller": is_controller});
        let of_both = pod(&json!([owner("other", true), owner("this", false)]));
        assert!(is_owned(&of_both, "other"));
        assert!(!is_owned(&of_both, "this"));
        assert!(!is_owned(&of_both, "third"));
        // An object without a uid is not stored yet, and owns nothing.
        assert!(!is_owned(&pod(&json!([owner("", true)])), ""));
        assert!(!is_owned(&pod(&json!([])), "this"));
    }

    #[test]
    fn a_pod_is_identified_by_its_name() {
        let pod = pod(&json!([]));
        assert_eq!(identity(&pod, "wine"), Some(("0123abcd", 2)));
        assert_eq!(pod_name("wine", "0123abcd", 2), "wine-0123abcd-2");
        // Another object whose name this one's begins with.
        assert_eq!(identity(&pod, "win"), None);
        assert_eq!(annotation(&pod, RUN), Some("0123abcd"));
        assert_eq!(annotation(&pod, SHAPE), None);
    }
}
