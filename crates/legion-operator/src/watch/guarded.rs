//! An object as the API server returns it: of its type, or the metadata of one that does not fit the type.
//!
//! kube's `DeserializeGuard` parses a generic tree of the whole object and copies it. This module reads the text once,
//! and only the parts in the object's [`Projection`].

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Resource,
    core::{PartialObjectMeta, error_boundary::InvalidObject},
};
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::value::RawValue;

use crate::watch::projection::Projection;

/// An object of its type, or the metadata of one that is not. It can be read from JSON only.
#[derive(Clone, Debug)]
pub(crate) struct Guarded<K>(pub Result<K, InvalidObject>);

impl<'de, K: Resource + Projection> Deserialize<'de> for Guarded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let whole = Box::<RawValue>::deserialize(deserializer)?;
        let invalid = match serde_json::from_str::<K::Of<'_>>(whole.get()) {
            Ok(object) => return Ok(Self(Ok(object.into()))),
            Err(error) => error.to_string(),
        };
        // Without metadata it is no object.
        let PartialObjectMeta { metadata, .. } =
            serde_json::from_str::<PartialObjectMeta<K>>(whole.get()).map_err(D::Error::custom)?;
        Ok(Self(Err(InvalidObject {
            error: invalid,
            metadata,
        })))
    }
}

impl<K> Guarded<K> {
    /// The object.
    ///
    /// # Errors
    /// When it is not of its type.
    pub(crate) fn typed(self) -> kube::Result<K> {
        self.0
            .map_err(|invalid| kube::Error::SerdeError(serde_json::Error::custom(invalid.error)))
    }
}

impl<K: Resource> Resource for Guarded<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dt: &K::DynamicType) -> Cow<'_, str> {
        K::kind(dt)
    }

    fn group(dt: &K::DynamicType) -> Cow<'_, str> {
        K::group(dt)
    }

    fn version(dt: &K::DynamicType) -> Cow<'_, str> {
        K::version(dt)
    }

    fn plural(dt: &K::DynamicType) -> Cow<'_, str> {
        K::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.as_ref().map_or_else(|invalid| &invalid.metadata, K::meta)
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0
            .as_mut()
            .map_or_else(|invalid| &mut invalid.metadata, K::meta_mut)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use kube::core::{ObjectList, WatchEvent};

    use super::*;

    const POD: &str = r#"{"kind":"Pod","metadata":{"name":"ä","managedFields":[{"manager":"m","fieldsV1":{"f:metadata":{}}}],
        "uid":"u"},"spec":{"containers":[{"name":"c"}]}}"#;
    const WRONG: &str = r#"{"metadata":{"name":"w","managedFields":[]},"spec":{"containers":"none"}}"#;

    #[test]
    fn of_one_that_is_not_of_its_type_the_metadata_and_the_reason_are_kept() {
        let invalid = serde_json::from_str::<Guarded<Pod>>(WRONG).unwrap().0.unwrap_err();
        assert_eq!(invalid.metadata.name.as_deref(), Some("w"));
        assert!(invalid.error.contains("expected a sequence"), "{}", invalid.error);
        for nothing in ["[]", "{\"metadata\":[]}"] {
            serde_json::from_str::<Guarded<Pod>>(nothing).unwrap_err();
        }
    }

    #[test]
    fn they_come_by_watch_and_by_list() {
        let event = format!(r#"{{"type":"MODIFIED","object":{POD}}}"#);
        let event: WatchEvent<Guarded<Pod>> = serde_json::from_str(&event).unwrap();
        assert!(matches!(event, WatchEvent::Modified(Guarded(Ok(pod))) if pod.metadata.uid.as_deref() == Some("u")));
        let list = format!(r#"{{"apiVersion":"v1","kind":"PodList","metadata":{{}},"items":[{POD},{WRONG}]}}"#);
        let list: ObjectList<Guarded<Pod>> = serde_json::from_str(&list).unwrap();
        assert!(list.items[0].0.is_ok() && list.items[1].0.is_err());
    }
}
