//! What is read of an object's text: what decisions look at, and nothing else.
//!
//! Most of a pod's text is of no interest here, nor are the managed fields of any object, which as a tree take more
//! memory than the rest of it. What is not read costs no allocation, and a cache of many thousand pods stays small.

use std::{borrow::Cow, collections::BTreeMap};

use k8s_openapi::{
    api::{
        core::{
            self,
            v1::{ConfigMap, Container, EnvVar, Pod, PodSpec, PodStatus, ResourceRequirements},
        },
        events,
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time},
};
use kube::core::PartialObjectMeta;
use legion_protocol::env;
use serde::Deserialize;
use serde_json::value::RawValue;

/// A kind that is read by way of something smaller.
pub(crate) trait Projection: Sized {
    /// As it is read, from a text that lives for so long.
    type Of<'a>: Deserialize<'a> + Into<Self>;
}

/// Kinds that are read seldom are read as they are.
macro_rules! as_they_are {
    ($($kind:ty),*) => {
        $(impl Projection for $kind {
            type Of<'a> = Self;
        })*
    };
}

as_they_are!(ConfigMap, core::v1::Event, events::v1::Event);

/// Metadata without managed fields.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Metadata {
    annotations: Option<BTreeMap<String, String>>,
    creation_timestamp: Option<Time>,
    deletion_grace_period_seconds: Option<i64>,
    deletion_timestamp: Option<Time>,
    finalizers: Option<Vec<String>>,
    generate_name: Option<String>,
    generation: Option<i64>,
    labels: Option<BTreeMap<String, String>>,
    name: Option<String>,
    namespace: Option<String>,
    owner_references: Option<Vec<OwnerReference>>,
    resource_version: Option<String>,
    uid: Option<String>,
}

impl From<Metadata> for ObjectMeta {
    fn from(read: Metadata) -> Self {
        Self {
            annotations: read.annotations,
            creation_timestamp: read.creation_timestamp,
            deletion_grace_period_seconds: read.deletion_grace_period_seconds,
            deletion_timestamp: read.deletion_timestamp,
            finalizers: read.finalizers,
            generate_name: read.generate_name,
            generation: read.generation,
            labels: read.labels,
            managed_fields: None,
            name: read.name,
            namespace: read.namespace,
            owner_references: read.owner_references,
            resource_version: read.resource_version,
            self_link: None,
            uid: read.uid,
        }
    }
}

/// Of a ConfigMap that is watched, only which one it is and at which version: other controllers keep much in
/// annotations.
#[derive(Debug, Deserialize)]
pub(crate) struct Identity {
    metadata: IdentityMetadata,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct IdentityMetadata {
    name: Option<String>,
    namespace: Option<String>,
    resource_version: Option<String>,
    uid: Option<String>,
}

impl Projection for PartialObjectMeta<ConfigMap> {
    type Of<'a> = Identity;
}

impl From<Identity> for PartialObjectMeta<ConfigMap> {
    fn from(read: Identity) -> Self {
        Self {
            metadata: ObjectMeta {
                name: read.metadata.name,
                namespace: read.metadata.namespace,
                resource_version: read.metadata.resource_version,
                uid: read.metadata.uid,
                ..ObjectMeta::default()
            },
            ..Self::default()
        }
    }
}

/// Of a kind of Legion's own, everything but its managed fields.
#[derive(Debug, Deserialize)]
pub(crate) struct WithoutManagedFields<S, T> {
    pub(crate) metadata: Metadata,
    pub(crate) spec: S,
    pub(crate) status: Option<T>,
}

/// Reads a kind of Legion's own without its managed fields.
macro_rules! without_managed_fields {
    ($kind:ident, $spec:ty, $status:ty) => {
        impl $crate::watch::projection::Projection for $kind {
            type Of<'a> = $crate::watch::projection::WithoutManagedFields<$spec, $status>;
        }

        impl From<$crate::watch::projection::WithoutManagedFields<$spec, $status>> for $kind {
            fn from(read: $crate::watch::projection::WithoutManagedFields<$spec, $status>) -> Self {
                Self {
                    metadata: read.metadata.into(),
                    spec: read.spec,
                    status: read.status,
                }
            }
        }
    };
}

pub(crate) use without_managed_fields;

/// Of a pod: metadata, the node's name, limits and the status.
#[derive(Debug, Deserialize)]
pub(crate) struct PodProjection<'a> {
    metadata: Metadata,
    #[serde(borrow)]
    spec: Option<SpecProjection<'a>>,
    status: Option<PodStatus>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SpecProjection<'a> {
    node_name: Option<String>,
    #[serde(borrow)]
    containers: Vec<ContainerProjection<'a>>,
}

/// The limits that a failed run's message names.
#[derive(Debug, Deserialize)]
struct ContainerProjection<'a> {
    name: String,
    resources: Option<ResourceRequirements>,
    #[serde(borrow)]
    env: Option<Vec<Variable<'a>>>,
}

#[derive(Debug, Deserialize)]
struct Variable<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    /// A text in JSON.
    #[serde(borrow)]
    value: Option<&'a RawValue>,
}

impl Projection for Pod {
    type Of<'a> = PodProjection<'a>;
}

impl From<PodProjection<'_>> for Pod {
    fn from(read: PodProjection<'_>) -> Self {
        Self {
            metadata: read.metadata.into(),
            spec: read.spec.map(Into::into),
            status: read.status.map(without_room),
        }
    }
}

impl From<SpecProjection<'_>> for PodSpec {
    fn from(read: SpecProjection<'_>) -> Self {
        Self {
            node_name: read.node_name,
            containers: read.containers.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }
}

impl From<ContainerProjection<'_>> for Container {
    fn from(read: ContainerProjection<'_>) -> Self {
        let limit = |variable: &Variable<'_>| variable.name == env::TIMEOUT_SECONDS;
        let limits = read.env.into_iter().flatten().filter(limit).map(|variable| EnvVar {
            name: variable.name.into_owned(),
            value: variable.value.and_then(|text| serde_json::from_str(text.get()).ok()),
            value_from: None,
        });
        let limits: Vec<EnvVar> = limits.collect();
        Self {
            name: read.name,
            resources: read.resources,
            env: Some(limits).filter(|limits| !limits.is_empty()),
            ..Self::default()
        }
    }
}

/// Lists that were read have room for more than they hold.
fn without_room(mut status: PodStatus) -> PodStatus {
    let lists = [&mut status.container_statuses, &mut status.init_container_statuses];
    lists.into_iter().flatten().for_each(Vec::shrink_to_fit);
    status.conditions.iter_mut().for_each(Vec::shrink_to_fit);
    status
}

#[cfg(test)]
mod tests {
    use legion_api::Connection;
    use serde_json::json;

    use super::*;

    fn read<K: Projection>(text: &str) -> K {
        serde_json::from_str::<K::Of<'_>>(text).unwrap().into()
    }

    #[test]
    fn of_a_pod_what_decisions_look_at_is_read() {
        let metadata = json!({
            "name": "ä", "namespace": "ns", "uid": "u", "resourceVersion": "7", "generation": 2,
            "annotations": {"a": "1"}, "labels": {"l": "2"}, "finalizers": ["f"],
            "ownerReferences": [{"apiVersion": "v1", "kind": "K", "name": "o", "uid": "ou"}],
            "creationTimestamp": "2026-01-01T00:00:00Z", "deletionTimestamp": "2026-01-02T00:00:00Z",
            "deletionGracePeriodSeconds": 30,
        });
        let status = json!({"phase": "Running", "containerStatuses": [
            {"name": "trainer", "image": "i", "imageID": "", "ready": true, "restartCount": 0},
        ]});
        let resources = json!({"limits": {"memory": "1Gi"}});
        let whole = |metadata: &serde_json::Value, env: serde_json::Value, more: serde_json::Value| {
            let mut container = json!({"name": "trainer", "resources": resources, "env": env});
            container
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": status,
                   "spec": {"nodeName": "n", "containers": [container]}})
        };
        let limit = json!({"name": env::TIMEOUT_SECONDS, "value": "\"60\""});
        let mut managed = metadata.clone();
        managed["managedFields"] = json!([{"manager": "m", "fieldsV1": {"f:metadata": {}}}]);
        let text = whole(
            &managed,
            json!([{"name": "A", "value": "\"a\""}, limit, {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "f"}}}]),
            json!({"image": "i", "command": ["c"]}),
        );
        let expected: Pod = serde_json::from_value(whole(&metadata, json!([limit]), json!({}))).unwrap();
        assert_eq!(read::<Pod>(&text.to_string()), expected);
        assert_eq!(
            read::<Pod>(r#"{"metadata":{},"spec":null,"status":null}"#),
            Pod::default(),
            "as a server may tell what is not there"
        );
    }

    #[test]
    fn of_a_watched_config_map_its_identity_is_read() {
        let text = r#"{"metadata":{"name":"n","namespace":"ns","uid":"u","resourceVersion":"7","annotations":{"a":"1"}},"data":{"k":"v"}}"#;
        let read = read::<PartialObjectMeta<ConfigMap>>(text).metadata;
        let expected = ObjectMeta {
            name: Some("n".into()),
            namespace: Some("ns".into()),
            uid: Some("u".into()),
            resource_version: Some("7".into()),
            ..ObjectMeta::default()
        };
        assert_eq!(read, expected);
    }

    #[test]
    fn of_the_platforms_kinds_everything_is_read() {
        let text = json!({
            "apiVersion": "legion-platform.org/v1alpha1", "kind": "Connection",
            "metadata": {"name": "models", "managedFields": []},
            "spec": {"type": "s3", "uri": "s3://models", "region": "eu"},
            "status": {"observedGeneration": 3},
        })
        .to_string();
        let mut expected: Connection = serde_json::from_str(&text).unwrap();
        expected.metadata.managed_fields = None;
        assert_eq!(
            serde_json::to_value(read::<Connection>(&text)).unwrap(),
            serde_json::to_value(expected).unwrap()
        );
    }
}
