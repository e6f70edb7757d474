//! Schemas of the built-in kinds. They are generated from the types' own JSON Schemas at first use.

use std::sync::{Arc, LazyLock};

use k8s_openapi::Resource;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Event, Namespace, Node as ClusterNode, PersistentVolumeClaim, Pod, Secret, ServiceAccount,
};
use k8s_openapi::api::events::v1::Event as EventsEvent;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, ObjectMeta, Status};
use schemars::JsonSchema;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value};

use super::tables;
use crate::schema::compiler::{Compiler, Overlay, Tables};
use crate::schema::node::Node;

/// A built-in kind.
pub(crate) struct Builtin {
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) kind: &'static str,
    /// Name of the kind's schema, such as `io.k8s.api.core.v1.Pod`.
    pub(crate) definition: String,
    pub(crate) node: Arc<Node>,
}

/// Schemas and compiled definitions of all built-in kinds.
pub(crate) struct Builtins {
    /// Raw schemas by definition name. References have the form `#/components/schemas/NAME`.
    pub(crate) definitions: Map<String, Value>,
    pub(crate) kinds: Vec<Builtin>,
    pub(crate) object_meta: Arc<Node>,
}

/// Generated once, which takes a few milliseconds.
pub(crate) static BUILTINS: LazyLock<Builtins> = LazyLock::new(generate);

fn row<T: Resource + JsonSchema>(
    generator: &mut SchemaGenerator,
) -> (&'static str, &'static str, &'static str, String) {
    generator.subschema_for::<T>();
    (T::GROUP, T::VERSION, T::KIND, T::schema_name().into_owned())
}

fn generate() -> Builtins {
    let mut settings = SchemaSettings::openapi3();
    settings.meta_schema = None;
    let mut generator = settings.into_generator();
    let rows = [
        row::<Pod>(&mut generator),
        row::<ConfigMap>(&mut generator),
        row::<Secret>(&mut generator),
        row::<PersistentVolumeClaim>(&mut generator),
        row::<Event>(&mut generator),
        row::<Namespace>(&mut generator),
        row::<ServiceAccount>(&mut generator),
        row::<ClusterNode>(&mut generator),
        row::<EventsEvent>(&mut generator),
        row::<Lease>(&mut generator),
        row::<Deployment>(&mut generator),
        row::<CustomResourceDefinition>(&mut generator),
    ];
    generator.subschema_for::<DeleteOptions>();
    generator.subschema_for::<Status>();
    let definitions: Map<String, Value> = generator.take_definitions(true).into_iter().collect();
    let mut compiler = Compiler::for_definitions(
        &definitions,
        Tables {
            overlay: |definition, field| Overlay {
                default: tables::default_of(definition, field),
                ..tables::overlay(definition, field)
            },
            is_atomic: tables::is_atomic,
        },
    );
    let object_meta = compiler.definition(&ObjectMeta::schema_name());
    let kinds = rows
        .into_iter()
        .map(|(group, version, kind, definition)| Builtin {
            group,
            version,
            kind,
            node: compiler.definition(&definition),
            definition,
        })
        .collect();
    Builtins {
        kinds,
        object_meta,
        definitions,
    }
}

/// Returns the built-in kind of a group, version and kind.
pub(crate) fn find(group: &str, version: &str, kind: &str) -> Option<&'static Builtin> {
    BUILTINS
        .kinds
        .iter()
        .find(|b| b.group == group && b.version == version && b.kind == kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::node::ListKind;

    #[test]
    fn every_kind_has_fields_and_metadata() {
        for builtin in &BUILTINS.kinds {
            let metadata = &builtin.node.properties["metadata"];
            assert!(metadata.object_meta, "{}", builtin.kind);
            assert!(metadata.properties.contains_key("managedFields"));
            assert!(builtin.node.properties.contains_key("apiVersion"));
        }
    }

    #[test]
    fn keys_reach_their_fields() {
        let pod = &find("", "v1", "Pod").unwrap().node;
        let containers = &pod.properties["spec"].properties["containers"];
        assert_eq!(containers.list, ListKind::Map(vec!["name".into()]));
        let container = containers.items.as_ref().unwrap();
        assert_eq!(container.properties["ports"].strategic.merge_key, Some("containerPort"));
        assert_eq!(container.properties["command"].list, ListKind::Atomic);
        assert_eq!(pod.properties["metadata"].properties["finalizers"].list, ListKind::Set);
        let owners = &pod.properties["metadata"].properties["ownerReferences"];
        assert!(owners.items.as_ref().unwrap().atomic_map);
    }

    /// A row with an unknown definition or field would have no effect, and no error would show it.
    #[test]
    fn every_table_row_names_a_real_field() {
        for (kind, field) in tables::rows() {
            let found = BUILTINS.definitions.iter().any(|(name, schema)| {
                name.rsplit('.').next() == Some(kind) && schema.pointer(&format!("/properties/{field}")).is_some()
            });
            assert!(found, "{kind}.{field} is in no schema");
        }
    }
}
