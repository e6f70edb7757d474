//! Resources as data: the description of every kind.

use std::fmt;

use crate::schema;

/// A subresource that a kind can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Subresource {
    /// `/status`: spec and status are written through different paths.
    Status,
    /// `/log` of pods.
    Log,
    /// `/eviction` of pods.
    Eviction,
    /// `/binding` of pods.
    Binding,
    /// `/finalize` of namespaces.
    Finalize,
    /// `/scale`: the replicas only.
    Scale,
}

/// The fields of an object that `/scale` shows, as dotted paths that start with a dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ScalePaths {
    /// The desired replicas.
    pub spec: String,
    /// The actual replicas.
    pub status: String,
    /// The selector of the counted pods.
    pub selector: Option<String>,
}

impl Subresource {
    /// Returns the last path segment.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Log => "log",
            Self::Eviction => "eviction",
            Self::Binding => "binding",
            Self::Finalize => "finalize",
            Self::Scale => "scale",
        }
    }
}

impl fmt::Display for Subresource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The required form of an object's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum NameRule {
    /// RFC 1123 subdomain: at most 253 characters, dots allowed.
    #[default]
    Subdomain,
    /// RFC 1123 label: at most 63 characters.
    Label,
}

/// A column of `kubectl get`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PrinterColumn {
    /// Heading.
    pub name: String,
    /// OpenAPI type. `date` columns are shown as ages.
    pub type_: String,
    /// OpenAPI format. It may be empty.
    pub format: String,
    /// Description of the column.
    pub description: String,
    /// Only `-o wide` shows columns with a priority above 0.
    pub priority: i32,
    /// JSONPath of the cell.
    pub json_path: String,
}

/// One resource in one version.
#[derive(Clone, Debug)]
pub(crate) struct ResourceInfo {
    /// API group. It is empty for the core group.
    pub group: String,
    /// API version.
    pub version: String,
    /// Kind.
    pub kind: String,
    /// Kind of a list.
    pub list_kind: String,
    /// Plural name, the path segment.
    pub plural: String,
    /// Singular name.
    pub singular: String,
    /// Short names for kubectl.
    pub short_names: Vec<String>,
    /// Categories (`kubectl get all`).
    pub categories: Vec<String>,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Subresources.
    pub subresources: Vec<Subresource>,
    /// Whether the server maintains `metadata.generation`.
    pub generation: bool,
    /// The form of names.
    pub name_rule: NameRule,
    /// Fields for field selectors besides `metadata.name` and `metadata.namespace`, as dotted paths.
    pub selectable_fields: Vec<String>,
    /// Columns of a CRD. The columns of built-in kinds are in code.
    pub printer_columns: Vec<PrinterColumn>,
    /// The fields behind `/scale`.
    pub scale: Option<ScalePaths>,
    /// Whether the kind comes from a CustomResourceDefinition.
    pub custom: bool,
}

impl ResourceInfo {
    /// Returns `group/version`, or only the version in the core group.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// Returns `plural.group`, or only the plural in the core group. Messages and CRD names use this form.
    pub(crate) fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.plural.clone()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// Returns the internal name of the group in Kubernetes' own programs.
    pub(crate) fn internal_group(&self) -> &str {
        self.group.split('.').next().filter(|g| !g.is_empty()).unwrap_or("core")
    }

    /// Returns whether the kind has this subresource.
    pub(crate) fn has(&self, subresource: Subresource) -> bool {
        self.subresources.contains(&subresource)
    }

    /// Returns group, version and kind for the schema functions.
    pub(crate) fn gvk(&self) -> schema::Gvk<'_> {
        schema::Gvk::new(&self.group, &self.version, &self.kind)
    }
}

struct BuiltIn {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    short_names: &'static [&'static str],
    categories: &'static [&'static str],
    namespaced: bool,
    subresources: &'static [Subresource],
    generation: bool,
    name_rule: NameRule,
    selectable_fields: &'static [&'static str],
}

const PLAIN: BuiltIn = BuiltIn {
    group: "",
    version: "v1",
    kind: "",
    plural: "",
    short_names: &[],
    categories: &[],
    namespaced: true,
    subresources: &[],
    generation: false,
    name_rule: NameRule::Subdomain,
    selectable_fields: &[],
};

/// The built-in kinds. A kind belongs in this table only if some code here implements its behavior.
const BUILT_INS: &[BuiltIn] = &[
    BuiltIn {
        kind: "ConfigMap",
        plural: "configmaps",
        short_names: &["cm"],
        ..PLAIN
    },
    BuiltIn {
        kind: "Event",
        plural: "events",
        short_names: &["ev"],
        selectable_fields: &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        ..PLAIN
    },
    BuiltIn {
        kind: "Namespace",
        plural: "namespaces",
        short_names: &["ns"],
        namespaced: false,
        subresources: &[Subresource::Status, Subresource::Finalize],
        name_rule: NameRule::Label,
        selectable_fields: &["status.phase"],
        ..PLAIN
    },
    BuiltIn {
        kind: "Node",
        plural: "nodes",
        short_names: &["no"],
        namespaced: false,
        subresources: &[Subresource::Status],
        selectable_fields: &["spec.unschedulable"],
        ..PLAIN
    },
    BuiltIn {
        kind: "PersistentVolumeClaim",
        plural: "persistentvolumeclaims",
        short_names: &["pvc"],
        subresources: &[Subresource::Status],
        ..PLAIN
    },
    BuiltIn {
        kind: "Pod",
        plural: "pods",
        short_names: &["po"],
        categories: &["all"],
        subresources: &[
            Subresource::Status,
            Subresource::Log,
            Subresource::Eviction,
            Subresource::Binding,
        ],
        generation: true,
        selectable_fields: &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
        ..PLAIN
    },
    BuiltIn {
        kind: "Secret",
        plural: "secrets",
        selectable_fields: &["type"],
        ..PLAIN
    },
    BuiltIn {
        kind: "ServiceAccount",
        plural: "serviceaccounts",
        short_names: &["sa"],
        ..PLAIN
    },
    BuiltIn {
        group: "apiextensions.k8s.io",
        kind: "CustomResourceDefinition",
        plural: "customresourcedefinitions",
        short_names: &["crd", "crds"],
        categories: &["api-extensions"],
        namespaced: false,
        subresources: &[Subresource::Status],
        generation: true,
        ..PLAIN
    },
    // Stored for clients that only write them. No controller rolls them out.
    BuiltIn {
        group: "apps",
        kind: "Deployment",
        plural: "deployments",
        short_names: &["deploy"],
        categories: &["all"],
        subresources: &[Subresource::Status, Subresource::Scale],
        generation: true,
        ..PLAIN
    },
    BuiltIn {
        group: "coordination.k8s.io",
        kind: "Lease",
        plural: "leases",
        ..PLAIN
    },
    BuiltIn {
        group: "events.k8s.io",
        kind: "Event",
        plural: "events",
        short_names: &["ev"],
        selectable_fields: &[
            "regarding.kind",
            "regarding.name",
            "regarding.namespace",
            "regarding.uid",
            "reason",
            "type",
        ],
        ..PLAIN
    },
];

/// Returns the built-in kinds.
pub(crate) fn built_ins() -> Vec<ResourceInfo> {
    let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
    BUILT_INS
        .iter()
        .map(|b| ResourceInfo {
            group: b.group.into(),
            version: b.version.into(),
            kind: b.kind.into(),
            list_kind: format!("{}List", b.kind),
            plural: b.plural.into(),
            singular: b.kind.to_ascii_lowercase(),
            short_names: owned(b.short_names),
            categories: owned(b.categories),
            namespaced: b.namespaced,
            subresources: b.subresources.to_vec(),
            generation: b.generation,
            name_rule: b.name_rule,
            selectable_fields: owned(b.selectable_fields),
            printer_columns: Vec::new(),
            scale: b.subresources.contains(&Subresource::Scale).then(|| ScalePaths {
                spec: ".spec.replicas".into(),
                status: ".status.replicas".into(),
                selector: Some(".spec.selector".into()),
            }),
            custom: false,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_served_kind_has_a_schema() {
        for resource in built_ins() {
            assert!(schema::builtin::types(resource.gvk()).is_some(), "{}", resource.kind);
        }
    }
}
