//! What the operator may ask of the API server: every verb on every resource that its code uses, and no other.
//!
//! The chart's roles are generated from this table, and the end-to-end suite compares it with the audit log. A request
//! that is not in the table would be refused. A row that no request needs is one permission too many.

use std::{borrow::Cow, sync::LazyLock};

pub use legion_runtime::requests::Verb;

use crate::{kinds, metrics::Metrics};

/// The namespaces in which a permission holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Each namespace that is served.
    Served,
    /// Each namespace that is served, and the platform's: objects there serve all the others.
    Anywhere,
    /// The platform's namespace only.
    Platform,
}

/// One permission.
#[derive(Clone, Debug)]
pub struct Access {
    /// The namespaces.
    pub place: Place,
    /// API group. Empty for the core group.
    pub group: &'static str,
    /// Plural of the resource, followed by a slash and the subresource if there is one.
    pub resource: Cow<'static, str>,
    /// The verbs.
    pub verbs: &'static [Verb],
    /// Holds only for the object with the name of the lease.
    pub only_lease: bool,
    /// What the operator needs it for.
    pub why: Cow<'static, str>,
}

impl Access {
    fn new(
        place: Place,
        group: &'static str,
        resource: impl Into<Cow<'static, str>>,
        verbs: &'static [Verb],
        why: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            place,
            group,
            resource: resource.into(),
            verbs,
            only_lease: false,
            why: why.into(),
        }
    }
}

const OURS: &str = legion_api::GROUP;
const LEASES: &str = "coordination.k8s.io";
const READ: &[Verb] = &[Verb::Get, Verb::List, Verb::Watch];
const PODS: &[Verb] = &[Verb::Get, Verb::List, Verb::Watch, Verb::Create, Verb::Delete];
const ONE_LEASE: &[Verb] = &[Verb::Get, Verb::List, Verb::Watch, Verb::Update];

/// Every permission of the operator. It also requests the paths of [`DISCOVERY`], which every client may do.
pub static TABLE: LazyLock<Vec<Access>> = LazyLock::new(|| {
    let mut table = Vec::new();
    // Kinds refer to those that were added before them. The table begins with what most users know.
    for (resource, in_platform_namespace) in kinds().into_iter().rev() {
        let place = if in_platform_namespace {
            Place::Anywhere
        } else {
            Place::Served
        };
        let why = format!("Watches {resource}. Reads one again after a conflict.");
        table.push(Access::new(place, OURS, resource, READ, why));
        let why = "Writes their status. The operator never writes a spec.";
        table.push(Access::new(
            place,
            OURS,
            format!("{resource}/status"),
            &[Verb::Patch],
            why,
        ));
    }
    table.extend([
        Access::new(
            Place::Served,
            "",
            "pods",
            PODS,
            "Creates one pod for each attempt of a run. The operator never changes a pod.",
        ),
        Access::new(
            Place::Served,
            "",
            "configmaps",
            READ,
            "Watches their metadata to notice that a source has changed. Reads the content of sources.",
        ),
        Access::new(
            Place::Served,
            "",
            "events",
            &[Verb::List],
            "Finds out from the kubelet's events why a volume cannot be mounted.",
        ),
        Access::new(
            Place::Anywhere,
            "events.k8s.io",
            "events",
            &[Verb::Create],
            "Reports what happened, for `kubectl describe`.",
        ),
        Access::new(
            Place::Platform,
            LEASES,
            "leases",
            &[Verb::Create],
            "Creates the lease that decides which of several replicas acts.",
        ),
        Access {
            only_lease: true,
            ..Access::new(
                Place::Platform,
                LEASES,
                "leases",
                ONE_LEASE,
                "Acquires, renews and releases this lease, and notices that another replica released it.",
            )
        },
    ]);
    table
});

/// Paths that the operator requests and that are no resources. Every authenticated client has the cluster's role
/// `system:discovery`, which allows them.
pub const DISCOVERY: &[&str] = &["/apis/legion-platform.org/v1alpha1"];

/// The plural of each kind, and whether its objects in the platform's namespace serve every namespace. The registry is
/// built for its names only.
fn kinds() -> Vec<(&'static str, bool)> {
    let registry = kinds::registry(&legion_plan::Settings::new("", ""), &Metrics::new(&[]));
    let kinds = registry.kinds().iter();
    kinds
        .map(|kind| (kind.resource(), kind.in_platform_namespace()))
        .collect()
}

/// The plural of every resource of the table.
pub(crate) fn resources() -> &'static [&'static str] {
    static RESOURCES: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
        let mut resources: Vec<_> = TABLE
            .iter()
            .map(|access| access.resource.split('/').next().unwrap_or_default())
            .collect();
        resources.sort_unstable();
        resources.dedup();
        resources
    });
    &RESOURCES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_no_wildcard_no_spec_and_nothing_twice() {
        let mut seen = std::collections::BTreeSet::new();
        for access in TABLE.iter() {
            assert_ne!(access.resource, "secrets");
            for text in [access.group, &access.resource] {
                assert!(!text.contains('*'), "{access:?}");
            }
            assert!(!access.why.is_empty(), "{access:?} has no reason");
            let ours_to_write = access.resource.ends_with("/status") || access.group != OURS;
            for verb in access.verbs {
                let reads = matches!(verb, Verb::Get | Verb::List | Verb::Watch);
                assert!(reads || ours_to_write, "{access:?} writes what belongs to users");
                assert!(seen.insert((access.group, &access.resource, *verb)), "{access:?}");
            }
        }
        assert!(
            DISCOVERY
                .iter()
                .all(|path| path.contains(OURS) && path.ends_with(legion_api::VERSION))
        );
    }
}
