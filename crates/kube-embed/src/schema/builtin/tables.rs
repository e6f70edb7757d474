//! Information about built-in kinds that is not in the published JSON types: list and merge keys, atomic objects, and
//! defaults. Rows name a definition (without its `io.k8s.` package) and a field.

use serde_json::{Value, json};

use crate::schema::compiler::Overlay;
use crate::schema::node::{ListKind, Strategic};

/// How a field merges.
enum Merge {
    /// `(list-map keys, strategic merge key)`.
    Map(&'static [&'static str], &'static str),
    /// Like `Map`, with support for `$retainKeys`.
    Retain(&'static [&'static str], &'static str),
    /// A list-map for server-side apply. Strategic merge replaces it as a whole.
    ApplyMap(&'static [&'static str]),
    /// A set of primitives. Strategic merge merges it too.
    Set,
    /// A set for server-side apply. Strategic merge replaces it as a whole.
    ApplySet,
    /// An atomic object.
    AtomicMap,
}

use Merge::{ApplyMap, ApplySet, AtomicMap, Map, Retain, Set};

const CORE: &str = "io.k8s.api.core.v1.";
const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";

#[rustfmt::skip]
const MERGES: &[(&str, &str, Merge)] = &[
    ("Container", "env", Map(&["name"], "name")),
    ("Container", "ports", Map(&["containerPort", "protocol"], "containerPort")),
    ("Container", "volumeDevices", Map(&["devicePath"], "devicePath")),
    ("Container", "volumeMounts", Map(&["mountPath"], "mountPath")),
    ("ContainerRestartRuleOnExitCodes", "values", ApplySet),
    ("ContainerStatus", "allocatedResourcesStatus", Map(&["name"], "name")),
    ("ContainerStatus", "volumeMounts", Map(&["mountPath"], "mountPath")),
    ("DeploymentStatus", "conditions", Map(&["type"], "type")),
    ("EphemeralContainer", "env", Map(&["name"], "name")),
    ("EphemeralContainer", "ports", Map(&["containerPort", "protocol"], "containerPort")),
    ("EphemeralContainer", "volumeDevices", Map(&["devicePath"], "devicePath")),
    ("EphemeralContainer", "volumeMounts", Map(&["mountPath"], "mountPath")),
    ("NamespaceStatus", "conditions", Map(&["type"], "type")),
    ("NodeSpec", "podCIDRs", Set),
    ("NodeStatus", "addresses", Map(&["type"], "type")),
    ("NodeStatus", "conditions", Map(&["type"], "type")),
    ("PersistentVolumeClaimStatus", "conditions", Map(&["type"], "type")),
    ("PodSpec", "containers", Map(&["name"], "name")),
    ("PodSpec", "ephemeralContainers", Map(&["name"], "name")),
    ("PodSpec", "hostAliases", Map(&["ip"], "ip")),
    ("PodSpec", "imagePullSecrets", Map(&["name"], "name")),
    ("PodSpec", "initContainers", Map(&["name"], "name")),
    ("PodSpec", "nodeSelector", AtomicMap),
    ("PodSpec", "resourceClaims", Retain(&["name"], "name")),
    ("PodSpec", "schedulingGates", Map(&["name"], "name")),
    ("PodSpec", "topologySpreadConstraints", Map(&["topologyKey", "whenUnsatisfiable"], "topologyKey")),
    ("PodSpec", "volumes", Retain(&["name"], "name")),
    ("PodStatus", "conditions", Map(&["type"], "type")),
    ("PodStatus", "podIPs", Map(&["ip"], "ip")),
    ("PodStatus", "resourceClaimStatuses", Retain(&["name"], "name")),
    ("ResourceRequirements", "claims", ApplyMap(&["name"])),
    ("ResourceStatus", "resources", ApplyMap(&["resourceID"])),
    ("ServiceAccount", "secrets", Map(&["name"], "name")),
    ("VolumeMount", "bindMountOptions", ApplySet),
    ("CustomResourceDefinitionStatus", "conditions", ApplyMap(&["type"])),
    ("ObjectMeta", "finalizers", Set),
    ("ObjectMeta", "ownerReferences", Map(&["uid"], "uid")),
];

/// Definitions that are atomic in every field that uses them.
const ATOMIC: &[(&str, &[&str])] = &[
    (
        CORE,
        &[
            "ConfigMapKeySelector",
            "FileKeySelector",
            "LocalObjectReference",
            "NodeSelector",
            "NodeSelectorTerm",
            "ObjectFieldSelector",
            "ObjectReference",
            "ResourceFieldSelector",
            "SecretKeySelector",
            "SecretReference",
            "TypedLocalObjectReference",
        ],
    ),
    (META, &["LabelSelector", "OwnerReference"]),
];

/// Returns the merge information of a field.
pub(super) fn overlay(definition: &str, field: &str) -> Overlay {
    let kind = definition.rsplit('.').next().unwrap_or(definition);
    let keys = |keys: &[&str]| ListKind::Map(keys.iter().map(|k| (*k).to_owned()).collect());
    let Some((.., merge)) = MERGES.iter().find(|(k, f, _)| *k == kind && *f == field) else {
        return Overlay::default();
    };
    let strategic = |key, retain_keys| Strategic {
        merge_key: Some(key),
        retain_keys,
    };
    match merge {
        Map(list, key) => Overlay {
            list: keys(list),
            strategic: strategic(key, false),
            ..Overlay::default()
        },
        Retain(list, key) => Overlay {
            list: keys(list),
            strategic: strategic(key, true),
            ..Overlay::default()
        },
        ApplyMap(list) => Overlay {
            list: keys(list),
            ..Overlay::default()
        },
        Set => Overlay {
            list: ListKind::Set,
            strategic: strategic("", false),
            ..Overlay::default()
        },
        ApplySet => Overlay {
            list: ListKind::Set,
            ..Overlay::default()
        },
        AtomicMap => Overlay {
            atomic_map: true,
            ..Overlay::default()
        },
    }
}

/// Returns whether objects of a definition are atomic.
pub(crate) fn is_atomic(definition: &str) -> bool {
    ATOMIC.iter().any(|(package, kinds)| {
        definition
            .strip_prefix(package)
            .is_some_and(|kind| kinds.contains(&kind))
    })
}

/// Returns the OpenAPI extensions of a field. Clients that compute patches need them.
pub(crate) fn extensions(definition: &str, field: &str) -> Vec<(&'static str, Value)> {
    let overlay = overlay(definition, field);
    let mut out = Vec::new();
    match overlay.list {
        ListKind::Map(keys) => {
            out.push(("x-kubernetes-list-map-keys", json!(keys)));
            out.push(("x-kubernetes-list-type", json!("map")));
        }
        ListKind::Set => out.push(("x-kubernetes-list-type", json!("set"))),
        ListKind::Atomic => {}
    }
    if overlay.atomic_map {
        out.push(("x-kubernetes-map-type", json!("atomic")));
    }
    if let Some(key) = overlay.strategic.merge_key {
        let strategy = if overlay.strategic.retain_keys {
            "merge,retainKeys"
        } else {
            "merge"
        };
        out.push(("x-kubernetes-patch-strategy", json!(strategy)));
        if !key.is_empty() {
            out.push(("x-kubernetes-patch-merge-key", json!(key)));
        }
    }
    out
}

/// Returns a default that depends on the field alone. Computed defaults are in `defaults`.
pub(crate) fn default_of(definition: &str, field: &str) -> Option<Value> {
    let kind = definition.strip_prefix(CORE)?;
    Some(match (kind, field) {
        ("PodSpec", "restartPolicy") => json!("Always"),
        ("PodSpec", "dnsPolicy") => json!("ClusterFirst"),
        ("PodSpec", "terminationGracePeriodSeconds") => json!(30),
        ("PodSpec", "schedulerName") => json!("default-scheduler"),
        ("PodSpec", "securityContext") => json!({}),
        ("PodSpec", "enableServiceLinks") => json!(true),
        ("Container" | "EphemeralContainer", "terminationMessagePath") => json!("/dev/termination-log"),
        ("Container" | "EphemeralContainer", "terminationMessagePolicy") => json!("File"),
        ("Container" | "EphemeralContainer", "resources") => json!({}),
        ("ContainerPort", "protocol") => json!("TCP"),
        ("Probe", "timeoutSeconds" | "successThreshold") => json!(1),
        ("Probe", "periodSeconds") => json!(10),
        ("Probe", "failureThreshold") => json!(3),
        ("HTTPGetAction", "scheme") => json!("HTTP"),
        ("HTTPGetAction", "path") => json!("/"),
        ("ObjectFieldSelector", "apiVersion") => json!("v1"),
        (
            "SecretVolumeSource" | "ConfigMapVolumeSource" | "DownwardAPIVolumeSource" | "ProjectedVolumeSource",
            "defaultMode",
        ) => json!(0o644),
        ("ServiceAccountTokenProjection", "expirationSeconds") => json!(3600),
        ("HostPathVolumeSource", "type") => json!(""),
        ("Secret", "type") => json!("Opaque"),
        ("PersistentVolumeClaimSpec", "volumeMode") => json!("Filesystem"),
        ("PersistentVolumeClaim", "status") => json!({"phase": "Pending"}),
        _ => return None,
    })
}

#[cfg(test)]
pub(super) fn rows() -> impl Iterator<Item = (&'static str, &'static str)> {
    MERGES.iter().map(|(kind, field, _)| (*kind, *field))
}
