//! What the operator asks of the API server: every verb on every resource that its code uses, and no other.
//!
//! The chart's roles are generated from this table, and the end-to-end suite compares it with the audit log: a request that
//! is not here would be refused, and a row that no request needs is a permission too many.

pub use legion_runtime::requests::Verb;

/// Where something is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In each namespace that is served.
    Served,
    /// In the platform's namespace, whether it is served or not: its toolchains serve all the others.
    Anywhere,
    /// In the platform's namespace only.
    Platform,
}

/// One permission.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// Where.
    pub place: Place,
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Plural of the resource, with its subresource behind a slash.
    pub resource: &'static str,
    /// What is done.
    pub verbs: &'static [Verb],
    /// Only with the object that bears the lease's name.
    pub only_lease: bool,
    /// What for.
    pub why: &'static str,
}

impl Access {
    const fn new(place: Place, group: &'static str, resource: &'static str, verbs: &'static [Verb]) -> Self {
        Self {
            place,
            group,
            resource,
            verbs,
            only_lease: false,
            why: "",
        }
    }

    const fn because(mut self, why: &'static str) -> Self {
        self.why = why;
        self
    }
}

const OURS: &str = legion_api::GROUP;
const READ: &[Verb] = &[Verb::Get, Verb::List, Verb::Watch];
const STATUS: &[Verb] = &[Verb::Patch];
const STATUS_WHY: &str = "Says what became of them; a spec is never written.";

/// Everything that the operator asks for. Besides, it asks what [`DISCOVERY`] says, which every client may.
pub const TABLE: &[Access] = &[
    Access::new(Place::Served, OURS, "modeltrainings", READ)
        .because("Follows trainings; reads one anew when a write met a newer version."),
    Access::new(Place::Served, OURS, "modeltrainings/status", STATUS).because(STATUS_WHY),
    Access::new(Place::Served, OURS, "connections", READ)
        .because("Follows connections; reads one anew when a write met a newer version."),
    Access::new(Place::Served, OURS, "connections/status", STATUS).because(STATUS_WHY),
    Access::new(Place::Anywhere, OURS, "toolchainintegrations", READ)
        .because("Follows toolchains; reads one anew when a write met a newer version."),
    Access::new(Place::Anywhere, OURS, "toolchainintegrations/status", STATUS).because(STATUS_WHY),
    Access::new(
        Place::Served,
        "",
        "pods",
        &[Verb::Get, Verb::List, Verb::Watch, Verb::Create, Verb::Delete],
    )
    .because("One pod for each attempt of a training; a pod is never changed."),
    Access::new(Place::Served, "", "configmaps", READ)
        .because("Follows metadata, to see that a source has changed; reads the content of sources."),
    Access::new(Place::Served, "", "events", &[Verb::List])
        .because("Finds the kubelet's words about a volume that cannot be mounted."),
    Access::new(Place::Anywhere, "events.k8s.io", "events", &[Verb::Create])
        .because("Tells what happened, for `kubectl describe`."),
    Access::new(Place::Platform, "coordination.k8s.io", "leases", &[Verb::Create])
        .because("Makes the lease by which one of several replicas acts."),
    Access {
        only_lease: true,
        ..Access::new(
            Place::Platform,
            "coordination.k8s.io",
            "leases",
            &[Verb::Get, Verb::List, Verb::Watch, Verb::Update],
        )
        .because("Takes the lease, renews it, gives it back, and sees that it was given back: this one only.")
    },
];

/// Paths that are no resources and that the operator asks for. The cluster's role `system:discovery`, which every
/// authenticated client has, lets them through.
pub const DISCOVERY: &[&str] = &["/apis/legion-platform.org/v1alpha1"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_no_wildcard_no_spec_and_nothing_twice() {
        let mut seen = std::collections::BTreeSet::new();
        for access in TABLE {
            assert_ne!(access.resource, "secrets");
            for text in [access.group, access.resource] {
                assert!(!text.contains('*'), "{access:?}");
            }
            assert!(!access.why.is_empty(), "{access:?} says what for");
            let ours_to_write = access.resource.ends_with("/status") || access.group != OURS;
            for verb in access.verbs {
                let reads = matches!(verb, Verb::Get | Verb::List | Verb::Watch);
                assert!(reads || ours_to_write, "{access:?} writes what belongs to users");
                assert!(seen.insert((access.group, access.resource, *verb)), "{access:?}");
            }
        }
        assert!(
            DISCOVERY
                .iter()
                .all(|path| path.contains(OURS) && path.ends_with(legion_api::VERSION))
        );
    }
}
