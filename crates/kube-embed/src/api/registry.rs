//! The resources that are currently served: the built-in ones and those of established CRDs.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use super::{crd, events};
use crate::resource::{NameRule, ResourceInfo, built_ins};
use crate::schema::{self, CrdSchema, FieldError, TypeInfo};
use crate::status::ApiError;
use crate::store::{Object, Store};

/// The store collection of CRDs.
pub(super) const CRDS: &str = "apiextensions.k8s.io/customresourcedefinitions";

/// The conversion between the stored and the served form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Conversion {
    /// Both forms are the same.
    None,
    /// `events.k8s.io` from the core form.
    NewEvents,
    /// Only `apiVersion` changes: the versions of a CRD.
    VersionOnly,
}

/// One resource in one version, with everything that is necessary to serve it.
pub(super) struct Resource {
    pub(super) info: ResourceInfo,
    pub(super) api_version: String,
    /// The store collection of its objects. The versions of a CRD share one.
    pub(super) collection: Arc<str>,
    /// `openAPIV3Schema` of a CRD's version.
    pub(super) raw_schema: Option<Value>,
    schema: Option<CrdSchema>,
    pub(super) types: TypeInfo,
    conversion: Conversion,
    /// The version that a CRD's objects are stored in.
    stored_api_version: String,
    /// Whether the CRD is being deleted. It then accepts no new objects.
    pub(super) terminating: bool,
    /// The warning of a deprecated version.
    pub(super) warning: Option<String>,
}

impl Resource {
    fn built_in(info: ResourceInfo) -> Self {
        let new_events = info.group == "events.k8s.io";
        Self {
            api_version: info.api_version(),
            stored_api_version: if new_events { "v1".into() } else { info.api_version() },
            collection: if new_events {
                "/events".into()
            } else {
                format!("{}/{}", info.group, info.plural).into()
            },
            conversion: if new_events {
                Conversion::NewEvents
            } else {
                Conversion::None
            },
            types: schema::builtin::types(info.gvk()).unwrap_or_else(TypeInfo::untyped),
            raw_schema: None,
            schema: None,
            terminating: false,
            warning: None,
            info,
        }
    }

    pub(super) fn custom(version: crd::CrdVersion) -> Self {
        let crd::CrdVersion {
            info,
            schema,
            raw_schema,
            stored_api_version,
            terminating,
            warning,
        } = version;
        Self {
            api_version: info.api_version(),
            stored_api_version,
            collection: format!("{}/{}", info.group, info.plural).into(),
            conversion: Conversion::VersionOnly,
            types: schema.types(),
            raw_schema: Some(raw_schema),
            schema: Some(schema),
            terminating,
            warning,
            info,
        }
    }

    /// Returns whether the schema has CEL rules. They run after all other validation has passed.
    pub(super) fn has_rules(&self) -> bool {
        self.schema.as_ref().is_some_and(CrdSchema::has_rules)
    }

    /// Returns whether this is the CustomResourceDefinition kind.
    pub(super) fn is_crd(&self) -> bool {
        &*self.collection == CRDS
    }

    /// Returns an object in the served form. An object that was stored under an older schema gets this schema's
    /// defaults and loses the fields that this schema does not know.
    pub(super) fn served<'a>(&self, object: &'a Object) -> Cow<'a, Value> {
        let stored = object.value();
        match self.conversion {
            Conversion::None => Cow::Borrowed(stored),
            Conversion::NewEvents => Cow::Owned(events::to_new(stored)),
            Conversion::VersionOnly => {
                let same_version = stored["apiVersion"] == self.api_version.as_str();
                let schema = self.schema.as_ref().map_or(0, CrdSchema::id);
                if same_version && object.fits(schema) {
                    return Cow::Borrowed(stored);
                }
                let mut value = (**stored).clone();
                value["apiVersion"] = json!(self.api_version);
                self.prune(&mut value);
                self.default(&mut value);
                if same_version && value == **stored {
                    object.note_fit(schema);
                    return Cow::Borrowed(stored);
                }
                Cow::Owned(value)
            }
        }
    }

    /// Records that this object was written in this form, so that readers need not check it again.
    pub(super) fn written(&self, object: &Object) {
        if let Some(schema) = &self.schema
            && self.api_version == self.stored_api_version
        {
            object.note_fit(schema.id());
        }
    }

    /// Returns an object's JSON in the served form. Uses the stored bytes if they are the same.
    pub(super) fn bytes(&self, object: &Object) -> Bytes {
        match self.served(object) {
            Cow::Borrowed(_) => object.bytes().clone(),
            Cow::Owned(value) => Bytes::from(value.to_string()),
        }
    }

    /// Returns whether the stored bytes can be sent unchanged.
    pub(super) fn is_stored_form(&self, object: &Object) -> bool {
        matches!(self.served(object), Cow::Borrowed(_))
    }

    /// Returns an object in the stored form.
    pub(super) fn stored(&self, mut served: Value) -> Value {
        match self.conversion {
            Conversion::None => served,
            Conversion::NewEvents => events::to_core(&served),
            Conversion::VersionOnly => {
                served["apiVersion"] = json!(self.stored_api_version);
                served
            }
        }
    }

    /// Removes unknown fields and returns their paths.
    pub(super) fn prune(&self, object: &mut Value) -> Vec<String> {
        match &self.schema {
            Some(schema) => schema.prune(object),
            None => schema::builtin::prune(self.info.gvk(), object),
        }
    }

    /// Fills in defaults.
    pub(super) fn default(&self, object: &mut Value) {
        match &self.schema {
            Some(schema) => schema.default(object),
            None => schema::builtin::default(self.info.gvk(), object),
        }
    }

    /// Returns the fields of a built-in kind that have the wrong JSON type. Kubernetes could not even decode them.
    pub(super) fn undecodable(&self, object: &Value) -> Vec<FieldError> {
        if self.info.custom {
            Vec::new()
        } else {
            schema::builtin::check_types(self.info.gvk(), object)
        }
    }

    /// Validates an object: its metadata, and the rest against its schema.
    pub(super) fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let metadata = || schema::builtin::validate_object_meta(new, old, self.info.name_rule == NameRule::Label);
        match &self.schema {
            Some(schema) => {
                let mut errors = metadata();
                errors.extend(schema.validate(new, old));
                errors
            }
            None if schema::builtin::knows(self.info.gvk()) => schema::builtin::validate(self.info.gvk(), new, old),
            None => metadata(),
        }
    }
}

/// All resources.
#[derive(Default)]
pub(super) struct Registry {
    by_path: HashMap<(String, String, String), Arc<Resource>>,
    /// In the order of discovery.
    ordered: Vec<Arc<Resource>>,
    /// The compiled resources of each CRD (by uid), with the fingerprint of the CRD that they were compiled from.
    compiled: HashMap<String, (crd::CrdFingerprint, Vec<Arc<Resource>>)>,
}

impl Registry {
    pub(super) fn built_in() -> Self {
        let mut registry = Self::default();
        for info in built_ins() {
            registry.add(Arc::new(Resource::built_in(info)));
        }
        registry
    }

    fn add(&mut self, resource: Arc<Resource>) {
        let info = &resource.info;
        self.by_path.insert(
            (info.group.clone(), info.version.clone(), info.plural.clone()),
            Arc::clone(&resource),
        );
        self.ordered.push(resource);
    }

    /// Returns the registry for the CRDs that are stored now. Compiles only those that changed since `before`.
    pub(super) fn with_crds(before: &Self, store: &Store) -> Self {
        let mut registry = Self::default();
        for resource in before.ordered.iter().filter(|r| !r.info.custom) {
            registry.add(Arc::clone(resource));
        }
        let stored = store
            .list(CRDS, &crate::store::ListQuery::default())
            .map(|l| l.items)
            .unwrap_or_default();
        for object in stored {
            let crd = object.value();
            let fingerprint = crd::fingerprint(crd);
            let uid = super::meta::uid(crd).to_owned();
            let resources = match before.compiled.get(&uid) {
                Some((same, resources)) if *same == fingerprint => resources.clone(),
                _ => crd::versions(crd)
                    .into_iter()
                    .map(|v| Arc::new(Resource::custom(v)))
                    .collect(),
            };
            for resource in &resources {
                store.add_collection(&resource.collection);
                registry.add(Arc::clone(resource));
            }
            registry.compiled.insert(uid, (fingerprint, resources));
        }
        registry
    }

    pub(super) fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.by_path
            .get(&(group.to_owned(), version.to_owned(), plural.to_owned()))
    }

    /// Returns Kubernetes' answer for a group without this resource: a Status for built-in groups, a plain page for
    /// others.
    pub(super) fn nothing_at(&self, group: &str) -> ApiError {
        if self.ordered.iter().any(|r| !r.info.custom && r.info.group == group) {
            ApiError::no_such_path()
        } else {
            ApiError::page_not_found()
        }
    }

    /// Returns whether the kind exists in this version.
    pub(super) fn knows(&self, api_version: &str, kind: &str) -> bool {
        self.ordered
            .iter()
            .any(|r| r.api_version == api_version && r.info.kind == kind)
    }

    pub(super) fn all(&self) -> &[Arc<Resource>] {
        &self.ordered
    }

    /// Returns groups with their versions, newest first, in the order of discovery. The core group is the empty string.
    pub(super) fn groups(&self) -> Vec<(String, Vec<String>)> {
        let mut groups: Vec<(String, Vec<String>)> = Vec::new();
        for resource in &self.ordered {
            let info = &resource.info;
            match groups.iter_mut().find(|(g, _)| *g == info.group) {
                Some((_, versions)) if versions.contains(&info.version) => {}
                Some((_, versions)) => versions.push(info.version.clone()),
                None => groups.push((info.group.clone(), vec![info.version.clone()])),
            }
        }
        for (_, versions) in &mut groups {
            versions.sort_by_key(|v| std::cmp::Reverse(version_rank(v)));
        }
        groups
    }
}

/// Kubernetes' order of versions: stable before beta before alpha, then higher numbers first. Any other version comes
/// last.
fn version_rank(version: &str) -> (u8, u64, u64) {
    let number = |text: &str| text.parse().unwrap_or(0);
    let Some(rest) = version
        .strip_prefix('v')
        .filter(|r| r.starts_with(|c: char| c.is_ascii_digit()))
    else {
        return (0, 0, 0);
    };
    if let Some((major, minor)) = rest.split_once("beta") {
        (2, number(major), number(minor))
    } else if let Some((major, minor)) = rest.split_once("alpha") {
        (1, number(major), number(minor))
    } else {
        (3, number(rest), 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ranked_as_kubernetes_does() {
        let mut versions = ["v1alpha1", "foo1", "v2", "v1beta2", "v1", "v10"];
        versions.sort_by_key(|v| std::cmp::Reverse(version_rank(v)));
        assert_eq!(versions, ["v10", "v2", "v1", "v1beta2", "v1alpha1", "foo1"]);
    }
}
