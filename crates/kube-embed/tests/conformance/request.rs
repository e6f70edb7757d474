//! Paths, bodies and projections in the lines of cases.

use serde_json::{Map, Value, json};

/// Resources for relative paths: plural, group, version, kind, whether namespaced.
const RESOURCES: &[(&str, &str, &str, &str, bool)] = &[
    ("configmaps", "", "v1", "ConfigMap", true),
    ("secrets", "", "v1", "Secret", true),
    ("pods", "", "v1", "Pod", true),
    ("events", "", "v1", "Event", true),
    ("serviceaccounts", "", "v1", "ServiceAccount", true),
    ("persistentvolumeclaims", "", "v1", "PersistentVolumeClaim", true),
    ("namespaces", "", "v1", "Namespace", false),
    ("nodes", "", "v1", "Node", false),
    ("leases", "coordination.k8s.io", "v1", "Lease", true),
    ("newevents", "events.k8s.io", "v1", "Event", true),
    ("deployments", "apps", "v1", "Deployment", true),
    ("crds", "apiextensions.k8s.io", "v1", "CustomResourceDefinition", false),
    ("widgets", "conformance.test", "v1", "Widget", true),
    ("oldwidgets", "conformance.test", "v1beta1", "Widget", true),
    ("gadgets", "conformance.test", "v1", "Gadget", false),
];

/// A path of the API, and the type of its objects.
pub(crate) struct Target {
    pub(crate) path: String,
    type_: Option<(String, &'static str)>,
    name: Option<String>,
}

impl Target {
    /// Completes a path: `configmaps/a` is in the namespace of the case. `/api/v1/...` is used unchanged.
    pub(crate) fn new(path: &str, namespace: &str) -> Self {
        if path.starts_with('/') {
            return Self {
                path: path.to_owned(),
                type_: None,
                name: None,
            };
        }
        let end = path.find(['/', '?']).unwrap_or(path.len());
        let (name, rest) = path.split_at(end);
        let found = RESOURCES.iter().find(|r| r.0 == name);
        let &(name, group, version, kind, namespaced) =
            found.unwrap_or_else(|| panic!("{name}: add it to RESOURCES, or start the path with a slash"));
        let api_version = if group.is_empty() {
            version.to_owned()
        } else {
            format!("{group}/{version}")
        };
        let root = if group.is_empty() { "/api" } else { "/apis" };
        let scope = if namespaced {
            format!("/namespaces/{namespace}")
        } else {
            String::new()
        };
        let plural = match name {
            "newevents" => "events",
            "oldwidgets" => "widgets",
            "crds" => "customresourcedefinitions",
            other => other,
        };
        Self {
            path: format!("{root}/{api_version}{scope}/{plural}{rest}"),
            type_: Some((api_version, kind)),
            name: rest.strip_prefix('/').map(|rest| {
                let end = rest.find(['/', '?']).unwrap_or(rest.len());
                rest[..end].to_owned()
            }),
        }
    }

    /// Adds missing fields to an object: apiVersion and kind, and the name if the path contains one.
    pub(crate) fn complete(&self, body: &mut Value) {
        let (Some((api_version, kind)), Some(fields)) = (&self.type_, body.as_object_mut()) else {
            return;
        };
        fields.entry("apiVersion").or_insert_with(|| json!(api_version));
        fields.entry("kind").or_insert_with(|| json!(kind));
        if let Some(name) = &self.name {
            let metadata = fields.entry("metadata").or_insert_with(|| json!({}));
            if let Some(metadata) = metadata.as_object_mut() {
                metadata.entry("name").or_insert_with(|| json!(name));
            }
        }
    }
}

/// The part of a response to show.
#[derive(Clone, Default)]
pub(crate) struct Projection {
    paths: Vec<String>,
}

impl Projection {
    pub(crate) fn parse(text: Option<&str>) -> Self {
        Self {
            paths: text.unwrap_or_default().split_whitespace().map(str::to_owned).collect(),
        }
    }

    /// Returns the selected part in one line. The default is the whole object without the fields that all objects have.
    pub(crate) fn show(&self, value: &Value) -> String {
        match self.paths.as_slice() {
            [] => without_noise(value, true).to_string(),
            [managed] if managed == "+managed" => without_noise(value, false).to_string(),
            [nothing] if nothing == "-" => String::new(),
            [one] => select(value, one).to_string(),
            many => Value::Array(many.iter().map(|path| select(value, path)).collect()).to_string(),
        }
    }
}

fn without_noise(value: &Value, managed: bool) -> Value {
    let mut value = value.clone();
    for object in objects(&mut value) {
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            let is = |metadata: &Map<String, Value>, name: &str, text: &str| metadata.get(name) == Some(&json!(text));
            if managed {
                metadata.remove("managedFields");
            }
            if is(metadata, "creationTimestamp", "<time>") {
                metadata.remove("creationTimestamp");
            }
            if is(metadata, "namespace", "NS") {
                metadata.remove("namespace");
            }
            if metadata
                .get("uid")
                .is_some_and(|uid| uid.as_str().is_some_and(|u| u.starts_with("<uid")))
            {
                metadata.remove("uid");
            }
        }
    }
    value
}

/// Returns the object itself, its items, and the objects of its rows.
fn objects(value: &mut Value) -> Vec<&mut Map<String, Value>> {
    let mut found = Vec::new();
    let Value::Object(fields) = value else { return found };
    if fields.contains_key("items") || fields.contains_key("rows") {
        for list in ["items", "rows"] {
            // A response has either items or rows. Using both would borrow the value twice.
            if fields.contains_key(list) {
                let items = fields.get_mut(list).and_then(Value::as_array_mut);
                for item in items.into_iter().flatten() {
                    let item = if list == "rows" {
                        item.get_mut("object")
                    } else {
                        Some(item)
                    };
                    found.extend(item.and_then(Value::as_object_mut));
                }
                return found;
            }
        }
    }
    found.push(fields);
    found
}

/// Returns the value at a path: `.a.b`, `.a[0].b`, `.a[].b`, or `.a["x.y/z"]`.
pub(crate) fn select(value: &Value, path: &str) -> Value {
    let Some(rest) = path.strip_prefix(['.', '[']) else {
        return if path.is_empty() {
            value.clone()
        } else {
            panic!("{path}: a path must start with a dot")
        };
    };
    if path.starts_with('[') {
        let (inside, rest) = rest.split_once(']').expect("a closing bracket");
        return match inside {
            "" => Value::Array(
                value
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|item| select(item, rest))
                    .collect(),
            ),
            quoted if quoted.starts_with('"') => select(&value[quoted.trim_matches('"')], rest),
            index => select(&value[index.parse::<usize>().expect("an index")], rest),
        };
    }
    let end = rest.find(['.', '[']).unwrap_or(rest.len());
    if end == 0 {
        return select(value, rest);
    }
    select(&value[&rest[..end]], &rest[end..])
}
