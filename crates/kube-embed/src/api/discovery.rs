//! Discovery of resources (both forms), version, and OpenAPI.

use std::hash::{DefaultHasher, Hash, Hasher};

use http::Response;
use serde_json::{Value, json};

use super::body::{self, ResponseBody};
use super::registry::{Registry, Resource};
use super::server::ApiServer;
use crate::openapi::{self, Described};
use crate::resource::Subresource;
use crate::status::ApiError;

/// The Kubernetes release that this server imitates.
pub(super) const VERSION: &str = "v1.37.2";

const VERBS: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];

/// Resources that support create only. They answer a question and are not stored.
const REVIEWS: &[(&str, &str, &str)] = &[
    (
        "authorization.k8s.io",
        "SelfSubjectAccessReview",
        "selfsubjectaccessreviews",
    ),
    (
        "authorization.k8s.io",
        "SelfSubjectRulesReview",
        "selfsubjectrulesreviews",
    ),
    ("authentication.k8s.io", "SelfSubjectReview", "selfsubjectreviews"),
];

pub(super) fn version() -> Response<ResponseBody> {
    body::json(
        200,
        &json!({
            "major": "1", "minor": "37", "gitVersion": format!("{VERSION}+kube-embed.{}", env!("CARGO_PKG_VERSION")),
            "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
            "goVersion": "none", "compiler": "rustc", "platform": format!("{}/{}", std::env::consts::OS, go_arch()),
        }),
    )
}

fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Returns all groups with their versions. The core group is the empty string.
fn groups(registry: &Registry) -> Vec<(String, Vec<String>)> {
    let mut groups = registry.groups();
    for (group, _, _) in REVIEWS {
        if !groups.iter().any(|(g, _)| g == group) {
            groups.push(((*group).to_owned(), vec!["v1".to_owned()]));
        }
    }
    groups
}

fn resources<'a>(registry: &'a Registry, group: &'a str, version: &'a str) -> impl Iterator<Item = &'a Resource> {
    registry
        .all()
        .iter()
        .map(|r| &**r)
        .filter(move |r| r.info.group == group && r.info.version == version)
}

/// `/api`.
pub(super) fn core_versions(registry: &Registry, aggregated: bool) -> Response<ResponseBody> {
    if aggregated {
        return aggregated_list(registry, |group| group.is_empty());
    }
    body::json(
        200,
        &json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}),
    )
}

/// `/apis`.
pub(super) fn group_list(registry: &Registry, aggregated: bool) -> Response<ResponseBody> {
    if aggregated {
        return aggregated_list(registry, |group| !group.is_empty());
    }
    let groups: Vec<Value> = groups(registry)
        .iter()
        .filter(|(g, _)| !g.is_empty())
        .map(|(g, v)| group_value(g, v))
        .collect();
    body::json(
        200,
        &json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}),
    )
}

/// `/apis/GROUP`.
pub(super) fn group(registry: &Registry, name: &str) -> Result<Response<ResponseBody>, ApiError> {
    let (group, versions) = groups(registry)
        .into_iter()
        .find(|(g, _)| g == name)
        .ok_or_else(ApiError::no_such_path)?;
    let mut value = group_value(&group, &versions);
    value["kind"] = json!("APIGroup");
    value["apiVersion"] = json!("v1");
    Ok(body::json(200, &value))
}

fn group_value(group: &str, versions: &[String]) -> Value {
    let version = |v: &String| json!({"groupVersion": format!("{group}/{v}"), "version": v});
    json!({
        "name": group,
        "versions": versions.iter().map(version).collect::<Vec<_>>(),
        "preferredVersion": versions.first().map(version),
    })
}

/// `/api/v1`, `/apis/GROUP/VERSION`.
pub(super) fn resource_list(
    registry: &Registry,
    group: &str,
    version: &str,
) -> Result<Response<ResponseBody>, ApiError> {
    let mut list = Vec::new();
    for resource in resources(registry, group, version) {
        let info = &resource.info;
        let mut entry = json!({
            "name": info.plural, "singularName": info.singular, "namespaced": info.namespaced, "kind": info.kind,
            "verbs": verbs(resource), "storageVersionHash": hash(&[&info.group, &info.kind]),
        });
        if !info.short_names.is_empty() {
            entry["shortNames"] = json!(info.short_names);
        }
        if !info.categories.is_empty() {
            entry["categories"] = json!(info.categories);
        }
        list.push(entry);
        for subresource in &info.subresources {
            let (kind, verbs) = subresource_kind(resource, *subresource);
            let mut entry = json!({
                "name": format!("{}/{subresource}", info.plural), "singularName": "", "namespaced": info.namespaced,
                "kind": kind.kind, "verbs": verbs,
            });
            if let Some((group, version)) = kind.of {
                entry["group"] = json!(group);
                entry["version"] = json!(version);
            }
            list.push(entry);
        }
    }
    for (_, kind, plural) in REVIEWS.iter().filter(|(g, ..)| *g == group && version == "v1") {
        list.push(json!({"name": plural, "singularName": kind.to_lowercase(), "namespaced": false, "kind": kind, "verbs": ["create"]}));
    }
    if list.is_empty() {
        return Err(ApiError::no_such_path());
    }
    let group_version = if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    Ok(body::json(
        200,
        &json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": list}),
    ))
}

fn verbs(resource: &Resource) -> Vec<&'static str> {
    VERBS
        .iter()
        .copied()
        .filter(|v| resource.info.kind != "Namespace" || *v != "deletecollection")
        .collect()
}

struct SubresourceKind<'a> {
    kind: &'a str,
    /// Group and version, where they differ from the resource's own.
    of: Option<(&'a str, &'a str)>,
}

fn subresource_kind(resource: &Resource, subresource: Subresource) -> (SubresourceKind<'_>, &'static [&'static str]) {
    let own = SubresourceKind {
        kind: &resource.info.kind,
        of: None,
    };
    match subresource {
        Subresource::Status => (own, &["get", "patch", "update"]),
        Subresource::Log => (own, &["get"]),
        Subresource::Finalize => (own, &["update"]),
        Subresource::Scale => (
            SubresourceKind {
                kind: "Scale",
                of: Some(("autoscaling", "v1")),
            },
            &["get", "patch", "update"],
        ),
        Subresource::Binding => (
            SubresourceKind {
                kind: "Binding",
                of: None,
            },
            &["create"],
        ),
        Subresource::Eviction => (
            SubresourceKind {
                kind: "Eviction",
                of: Some(("policy", "v1")),
            },
            &["create"],
        ),
    }
}

/// Aggregated discovery: everything in one document. Clients prefer it since 1.27.
fn aggregated_list(registry: &Registry, include: impl Fn(&str) -> bool) -> Response<ResponseBody> {
    let items: Vec<Value> = groups(registry)
        .iter()
        .filter(|(group, _)| include(group))
        .map(|(group, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|version| {
                    let reviews = REVIEWS.iter().filter(|(g, ..)| g == group).map(|(group, kind, plural)| {
                        json!({
                            "resource": plural, "singularResource": kind.to_lowercase(), "scope": "Cluster", "verbs": ["create"],
                            "responseKind": {"group": group, "version": "v1", "kind": kind},
                        })
                    });
                    let list: Vec<Value> =
                        resources(registry, group, version).map(aggregated).chain(reviews).collect();
                    json!({"version": version, "freshness": "Current", "resources": list})
                })
                .collect();
            let mut metadata = json!({"creationTimestamp": null});
            if !group.is_empty() {
                metadata["name"] = json!(group);
            }
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    let mut response = body::json(
        200,
        &json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items}),
    );
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"),
    );
    response
}

fn aggregated(resource: &Resource) -> Value {
    let info = &resource.info;
    let subresources: Vec<Value> = info
        .subresources
        .iter()
        .map(|subresource| {
            let (kind, verbs) = subresource_kind(resource, *subresource);
            let (group, version) = kind.of.unwrap_or((&info.group, &info.version));
            json!({
                "subresource": subresource.as_str(), "verbs": verbs,
                "responseKind": {"group": group, "version": version, "kind": kind.kind},
            })
        })
        .collect();
    let mut entry = json!({
        "resource": info.plural, "singularResource": info.singular, "verbs": verbs(resource),
        "responseKind": {"group": info.group, "version": info.version, "kind": info.kind},
        "scope": if info.namespaced { "Namespaced" } else { "Cluster" },
    });
    for (field, list) in [("shortNames", &info.short_names), ("categories", &info.categories)] {
        if !list.is_empty() {
            entry[field] = json!(list);
        }
    }
    if !subresources.is_empty() {
        entry["subresources"] = json!(subresources);
    }
    entry
}

fn hash(parts: &[&str]) -> String {
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

impl ApiServer {
    /// `/openapi/v3`.
    pub(super) fn openapi_root(&self) -> Response<ResponseBody> {
        let registry = self.registry();
        let paths: Vec<(String, String)> = registry
            .groups()
            .into_iter()
            .flat_map(|(group, versions)| versions.into_iter().map(move |v| (group.clone(), v)))
            .map(|(group, version)| {
                let document = openapi_document(&registry, &group, &version).to_string();
                let path = if group.is_empty() {
                    format!("api/{version}")
                } else {
                    format!("apis/{group}/{version}")
                };
                (path, hash(&[&document]))
            })
            .collect();
        body::json(200, &openapi::v3_root(&paths))
    }

    /// `/openapi/v3/…`.
    pub(super) fn openapi(&self, group: &str, version: &str) -> Result<Response<ResponseBody>, ApiError> {
        let registry = self.registry();
        if resources(&registry, group, version).next().is_none() {
            return Err(ApiError::no_such_path());
        }
        Ok(body::json(200, &openapi_document(&registry, group, version)))
    }
}

fn openapi_document(registry: &Registry, group: &str, version: &str) -> Value {
    let described: Vec<Described<'_>> = resources(registry, group, version)
        .map(|r| Described {
            resource: &r.info,
            schema: r.raw_schema.as_ref(),
        })
        .collect();
    openapi::v3_document(group, version, &described)
}
