//! OpenAPI v3 documents for kubectl and other schema-driven clients.
//!
//! kubectl asks for `application/json` documents: `apply` and `edit` look up which query parameters
//! and patch formats a kind's PATCH takes and which lists merge by which key, `explain` prints the
//! descriptions. Other clients may prefer `application/com.github.proto-openapi.spec.v3@v1.0+protobuf`
//! in `Accept`; the server answers JSON whenever JSON is acceptable and 406 when it is not.

mod paths;
mod schemas;

use serde_json::{Map, Value, json};

use crate::resource::ResourceInfo;

/// What a document is made of: the resources of one group version and, for kinds of CRDs, their schema.
#[derive(Clone, Copy, Debug)]
pub struct Described<'a> {
    /// The resource.
    pub resource: &'a ResourceInfo,
    /// `openAPIV3Schema` of a custom kind.
    pub schema: Option<&'a Value>,
}

/// The document of `/openapi/v3`: every group version path (`api/v1`, `apis/GROUP/VERSION`) with the hash of its document.
pub fn v3_root(group_versions: &[(String, String)]) -> Value {
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

/// The document of one group version: its paths, and every schema that they lead to.
pub fn v3_document(group: &str, version: &str, resources: &[Described<'_>]) -> Value {
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
