//! Why the API server refused a pod.

use legion_api::Reason;

use crate::{conditions::Explanation, plan::ApiError};

/// Precedes the quota, the requested and the allowed amounts in the message of a refused pod.
const EXCEEDS: &str = " exceeds ResourceQuota ";

/// Returns what a refused pod has requested, and of which quota, from the message of [`explain`]. Equal texts are
/// refused for as long as the other.
pub(crate) fn quota_request(message: &str) -> Option<&str> {
    Some(message.split_once(EXCEEDS)?.1)
}

/// Explains an error of the API server. The message stays the same while the cause stays the same.
pub(super) fn explain(error: &ApiError, pod: &str) -> Explanation {
    let message = error.message.as_str();
    if let Some((_, quota)) = message.split_once("exceeded quota: ") {
        // `NAME, requested: cpu=2, used: cpu=7, limited: cpu=8`: the used amount changes all the time.
        let stable: Vec<&str> = split_quota(quota)
            .into_iter()
            .filter(|part| !part.starts_with("used:"))
            .collect();
        return Explanation::new(
            Reason::QuotaExceeded,
            format!("pod {pod}{EXCEEDS}{}", stable.join(", ")),
        );
    }
    let lacks_permission = error.code == 403 && message.contains(" cannot ") && message.contains(" resource ");
    if lacks_permission {
        return Explanation::new(
            Reason::Forbidden,
            format!("the operator is not allowed to create pods: {message}"),
        );
    }
    let (reason, field) = cause(message);
    Explanation::new(reason, format!("{field}pod {pod} was refused: {message}"))
}

/// Returns the reason of a refusal that is no exceeded quota, and the field at fault with a colon. The texts are those
/// of the API server's own admission plugins. What they do not know is left to policies and webhooks.
fn cause(message: &str) -> (Reason, &'static str) {
    let has = |text: &str| message.contains(text);
    if has("failed quota: ") && has("must specify ") {
        (Reason::ResourcesMissing, "spec.resources: ")
    } else if has(" usage per Container is ") || has(" usage per Pod is ") || has(" limit to request ratio per ") {
        (Reason::LimitRangeExceeded, "spec.resources: ")
    } else if has("error looking up service account ") {
        (Reason::PodReferenceNotFound, "spec.serviceAccountName: ")
    } else if has("no PriorityClass with name ") {
        (Reason::PodReferenceNotFound, "spec.priorityClassName: ")
    } else if has("RuntimeClass ") && has("not found") {
        (Reason::PodReferenceNotFound, "spec.runtimeClassName: ")
    } else {
        (Reason::AdmissionRefused, "")
    }
}

/// Splits at the commas before `requested:`, `used:` and `limited:` only.
fn split_quota(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(at) = [", requested:", ", used:", ", limited:"]
        .iter()
        .filter_map(|mark| rest.find(mark))
        .min()
    {
        parts.push(&rest[..at]);
        rest = &rest[at + 2..];
    }
    parts.push(rest);
    parts
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(
        403,
        "pods \"a\" is forbidden: exceeded quota: gpu, requested: cpu=2,memory=1Gi, used: cpu=7,memory=1Gi, limited: cpu=8,memory=2Gi",
        Reason::QuotaExceeded,
        "pod p exceeds ResourceQuota gpu, requested: cpu=2,memory=1Gi, limited: cpu=8,memory=2Gi"
    )]
    #[case(
        403,
        "pods is forbidden: User \"legion\" cannot create resource \"pods\" in API group \"\" in the namespace \"a\"",
        Reason::Forbidden,
        "the operator is not allowed to create pods: pods is forbidden: User \"legion\" cannot create resource \"pods\" in API group \"\" in the namespace \"a\""
    )]
    #[case(
        403,
        "pods \"a\" is forbidden: violates PodSecurity \"restricted:latest\": x",
        Reason::AdmissionRefused,
        "pod p was refused: pods \"a\" is forbidden: violates PodSecurity \"restricted:latest\": x"
    )]
    #[case(
        403,
        "pods \"a\" is forbidden: failed quota: q: must specify limits.cpu for: trainer",
        Reason::ResourcesMissing,
        "spec.resources: pod p was refused: pods \"a\" is forbidden: failed quota: q: must specify limits.cpu for: trainer"
    )]
    #[case(
        403,
        "pods \"a\" is forbidden: [maximum cpu usage per Container is 1, but limit is 2, maximum memory usage per Pod is 1Gi, but limit is 2Gi]",
        Reason::LimitRangeExceeded,
        "spec.resources: pod p was refused: pods \"a\" is forbidden: [maximum cpu usage per Container is 1, but limit is 2, maximum memory usage per Pod is 1Gi, but limit is 2Gi]"
    )]
    #[case(
        403,
        "pods \"a\" is forbidden: cpu max limit to request ratio per Container is 2, but provided ratio is 4.000000",
        Reason::LimitRangeExceeded,
        "spec.resources: pod p was refused: pods \"a\" is forbidden: cpu max limit to request ratio per Container is 2, but provided ratio is 4.000000"
    )]
    #[case(
        403,
        "pods \"a\" is forbidden: error looking up service account lab/robot: serviceaccount \"robot\" not found",
        Reason::PodReferenceNotFound,
        "spec.serviceAccountName: pod p was refused: pods \"a\" is forbidden: error looking up service account lab/robot: serviceaccount \"robot\" not found"
    )]
    #[case(
        403,
        "pods \"a\" is forbidden: no PriorityClass with name high was found",
        Reason::PodReferenceNotFound,
        "spec.priorityClassName: pod p was refused: pods \"a\" is forbidden: no PriorityClass with name high was found"
    )]
    #[case(
        403,
        "pods \"a\" is forbidden: pod rejected: RuntimeClass \"kata\" not found",
        Reason::PodReferenceNotFound,
        "spec.runtimeClassName: pod p was refused: pods \"a\" is forbidden: pod rejected: RuntimeClass \"kata\" not found"
    )]
    #[case(
        422,
        "Pod \"a\" is invalid: spec.x: Invalid value",
        Reason::AdmissionRefused,
        "pod p was refused: Pod \"a\" is invalid: spec.x: Invalid value"
    )]
    #[case(
        403,
        "pods \"a\" is forbidden: no resource left",
        Reason::AdmissionRefused,
        "pod p was refused: pods \"a\" is forbidden: no resource left"
    )]
    #[case(
        403,
        "pods \"a\" is forbidden: it cannot run here",
        Reason::AdmissionRefused,
        "pod p was refused: pods \"a\" is forbidden: it cannot run here"
    )]
    #[case(
        500,
        "User \"legion\" cannot create resource \"pods\"",
        Reason::AdmissionRefused,
        "pod p was refused: User \"legion\" cannot create resource \"pods\""
    )]
    #[case(
        403,
        "pods \"a\" is forbidden: you must specify an owner",
        Reason::AdmissionRefused,
        "pod p was refused: pods \"a\" is forbidden: you must specify an owner"
    )]
    #[case(
        403,
        "pods \"a\" is forbidden: failed quota: q: it is not ready",
        Reason::AdmissionRefused,
        "pod p was refused: pods \"a\" is forbidden: failed quota: q: it is not ready"
    )]
    #[case(
        403,
        "pods \"a\" is forbidden: minimum cpu usage per Pod is 1, but request is 100m",
        Reason::LimitRangeExceeded,
        "spec.resources: pod p was refused: pods \"a\" is forbidden: minimum cpu usage per Pod is 1, but request is 100m"
    )]
    #[case(
        403,
        "pods \"a\" is forbidden: owner not found",
        Reason::AdmissionRefused,
        "pod p was refused: pods \"a\" is forbidden: owner not found"
    )]
    #[case(
        403,
        "pods \"a\" is forbidden: RuntimeClass \"kata\" is reserved",
        Reason::AdmissionRefused,
        "pod p was refused: pods \"a\" is forbidden: RuntimeClass \"kata\" is reserved"
    )]
    fn refusals_are_explained(#[case] code: u16, #[case] message: &str, #[case] reason: Reason, #[case] shown: &str) {
        let error = ApiError {
            code,
            reason: "Forbidden".into(),
            message: message.into(),
        };
        assert_eq!(explain(&error, "p"), Explanation::new(reason, shown));
    }

    #[test]
    fn the_request_of_a_refused_pod_does_not_contain_its_name() {
        let message = "pod p exceeds ResourceQuota gpu, requested: cpu=2, limited: cpu=8";
        assert_eq!(quota_request(message), Some("gpu, requested: cpu=2, limited: cpu=8"));
        assert_eq!(quota_request("pod p was refused"), None);
    }
}
