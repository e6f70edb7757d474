//! Other releases of the platform that serve the same trainings.
//!
//! Two releases with different Leases do not know of each other, and share the trainings at random. Each names itself
//! in the pods that it creates. A pod that another release has created since this process started shows that both act.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use legion_plan::training::labels::OPERATOR;
use prometheus_client::metrics::counter::Counter;

/// Notices pods of other releases.
pub(crate) struct OtherReleases {
    /// The platform's namespace, which is the name of a release.
    own: String,
    since: Timestamp,
    /// Those that were logged.
    reported: Mutex<BTreeSet<String>>,
    pods: Counter,
}

impl OtherReleases {
    /// `since` is the start of this process. `pods` counts the pods of other releases.
    pub(crate) fn new(own: &str, since: Timestamp, pods: Counter) -> Self {
        Self {
            own: own.to_owned(),
            since,
            reported: Mutex::default(),
            pods,
        }
    }

    /// Checks a pod that was not seen before. Returns the release that created it, if it is another one that acts now.
    /// Pods from before this process started are no sign: the platform may have moved.
    pub(crate) fn see<'a>(&self, pod: &'a Pod) -> Option<&'a str> {
        let release = pod.metadata.annotations.as_ref()?.get(OPERATOR)?;
        let created = pod.metadata.creation_timestamp.as_ref()?.0;
        if *release == self.own || created <= self.since {
            return None;
        }
        self.pods.inc();
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        if reported.insert(release.clone()) {
            tracing::error!(
                release,
                own = self.own,
                "another release of Legion serves the same trainings: give each release its own namespaces, or uninstall \
                 one of them"
            );
        }
        Some(release)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_new_pod_of_another_release_is_noticed() {
        let since = "2026-11-23T17:00:00Z".parse().unwrap();
        let releases = OtherReleases::new("legion-system", since, Counter::default());
        let pod = |release: &str, second: u32| -> Pod {
            let created = format!("2026-11-23T17:00:{second:02}Z");
            let annotations = json!({ OPERATOR: release });
            serde_json::from_value(json!({"metadata": {"annotations": annotations, "creationTimestamp": created}}))
                .unwrap()
        };
        assert_eq!(releases.see(&pod("legion-system", 9)), None);
        assert_eq!(releases.see(&pod("other", 0)), None, "it is from before");
        assert_eq!(releases.see(&Pod::default()), None);
        for second in 1..4 {
            assert_eq!(releases.see(&pod("other", second)), Some("other"));
        }
        assert_eq!(releases.pods.get(), 3);
        assert_eq!(releases.reported.lock().unwrap().len(), 1, "it is logged once");
    }
}
