//! OpenAPI v3 documents for kubectl and other schema-driven clients.
//!
//! kubectl requests `application/json` documents. `apply` and `edit` look up the query parameters and patch formats
//! of a kind's PATCH, and the merge keys of lists. `explain` prints the descriptions. Other clients may prefer
//! `application/com.github.proto-openapi.spec.v3@v1.0+protobuf` in `Accept`. The server answers with JSON if JSON is
//! acceptable and with 406 otherwise.

mod paths;
mod schemas;

use serde_json::{Map, Value, json};

use crate::resource::ResourceInfo;

/// The input of a document: the resources of one group version and, for kinds of CRDs, their schema.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Described<'a> {
    /// The resource.
    pub(crate) resource: &'a ResourceInfo,
    /// `openAPIV3Schema` of a custom kind.
    pub(crate) schema: Option<&'a Value>,
}

/// Returns the document of `/openapi/v3`: every group version path (`api/v1`, `apis/GROUP/VERSION`) with the hash of
/// its document.
pub(crate) fn v3_root(group_versions: &[(String, String)]) -> Value {
    let paths: Map<String, Value> = group_versions
        .iter()
        .map(|(path, hash)| {
            (
                path.clone(),
                json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")}),
            )
        })
        .collect();
    json!({ "paths": paths })
}

/// Returns the document of one group version: its paths and every schema that they refer to.
pub(crate) fn v3_document(group: &str, version: &str, resources: &[Described<'_>]) -> Value {
    let mut paths = Map::new();
    let mut components = schemas::Components::default();
    for described in resources {
        let schema = components.add_kind(described);
        paths::add(&mut paths, described, &schema);
    }
    let title = if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    json!({
        "openapi": "3.0.0",
        "info": {"title": format!("Kubernetes {title}"), "version": "v1.37.2"},
        "paths": paths,
        "components": {"schemas": components.into_schemas()},
    })
}

#[cfg(test)]
mod tests;
