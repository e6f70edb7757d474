//! Content negotiation: the representation that a client requests.

use serde_json::{Value, json};

use super::meta;

/// The representation of objects in a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Representation {
    #[default]
    Object,
    /// Rows for `kubectl get`.
    Table,
    /// `PartialObjectMetadata`, or `PartialObjectMetadataList` when `list`.
    Metadata {
        /// Whether the client requested a list.
        list: bool,
    },
}

/// Returns the first clause of `Accept` that this server can serve, if there is one.
pub(super) fn representation(accept: &str) -> Option<Representation> {
    if accept.trim().is_empty() {
        return Some(Representation::default());
    }
    accept.split(',').find_map(|clause| {
        let mut parts = clause.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default();
        if !matches!(media_type, "application/json" | "*/*" | "application/*") {
            return None;
        }
        let parts: Vec<&str> = parts.collect();
        let given = |name: &str| parts.iter().find_map(|p| p.strip_prefix(name)?.strip_prefix('='));
        if given("v").is_some_and(|version| !matches!(version, "v1" | "v1beta1")) {
            return None;
        }
        match given("as") {
            None => Some(Representation::Object),
            Some("Table") => Some(Representation::Table),
            Some("PartialObjectMetadata") => Some(Representation::Metadata { list: false }),
            Some("PartialObjectMetadataList") => Some(Representation::Metadata { list: true }),
            Some(_) => None,
        }
    })
}

/// Returns whether `Accept` requests aggregated discovery (`v2`).
pub(super) fn aggregated_discovery(accept: &str) -> bool {
    accept.split(',').any(|clause| {
        let has = |wanted: &str| clause.split(';').any(|p| p.trim() == wanted);
        has("as=APIGroupDiscoveryList") && has("g=apidiscovery.k8s.io") && has("v=v2")
    })
}

/// Returns an object's metadata only.
pub(super) fn partial(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": meta::at(object, &["metadata"]).cloned().unwrap_or_else(|| json!({})),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_known_clause_wins() {
        for (accept, want) in [
            ("application/json", Representation::Object),
            ("", Representation::Object),
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
                Representation::Table,
            ),
            (
                "application/vnd.kubernetes.protobuf,application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
                Representation::Metadata { list: true },
            ),
            (
                "application/json;as=Unknown,application/json;as=Table",
                Representation::Table,
            ),
        ] {
            assert_eq!(representation(accept), Some(want), "{accept}");
        }
        assert_eq!(representation("application/vnd.kubernetes.protobuf, text/csv"), None);
        assert!(aggregated_discovery(
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
        ));
        assert!(!aggregated_discovery("application/json"));
    }
}
