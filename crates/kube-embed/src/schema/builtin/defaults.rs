//! Defaults of built-in kinds that are computed from other fields.

use base64::Engine as _;
use serde_json::{Map, Value, json};

use super::Gvk;

/// Converts write-only fields to the stored ones. Runs before the schema's defaults.
pub(super) fn normalise(gvk: Gvk<'_>, object: &mut Value) {
    if (gvk.group, gvk.kind) != ("", "Secret") {
        return;
    }
    let Some(secret) = object.as_object_mut() else { return };
    let Some(Value::Object(plain)) = secret.remove("stringData") else {
        return;
    };
    if plain.is_empty() {
        return;
    }
    let data = secret.entry("data").or_insert_with(|| json!({}));
    if data.is_null() {
        *data = json!({});
    }
    if let Some(data) = data.as_object_mut() {
        for (key, value) in plain {
            // A value that is not a string is kept. The type check refuses it later.
            let encoded = match value {
                Value::String(s) => json!(base64::engine::general_purpose::STANDARD.encode(s)),
                other => other,
            };
            data.insert(key, encoded);
        }
    }
}

/// Fills in computed defaults. Runs after the schema's defaults.
pub(super) fn derive(gvk: Gvk<'_>, object: &mut Value) {
    match (gvk.group, gvk.kind) {
        ("", "Pod") => {
            if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
                pod_spec(spec);
            }
        }
        ("apps", "Deployment") => deployment(object),
        ("", "PersistentVolumeClaim") => {
            if let Some(Value::Object(status)) = object.get_mut("status") {
                status.entry("phase").or_insert_with(|| json!("Pending"));
            }
        }
        _ => {}
    }
}

fn deployment(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else {
        return;
    };
    for (field, value) in [
        ("replicas", json!(1)),
        ("revisionHistoryLimit", json!(10)),
        ("progressDeadlineSeconds", json!(600)),
        ("strategy", json!({})),
    ] {
        spec.entry(field).or_insert(value);
    }
    if let Some(strategy) = spec.get_mut("strategy").and_then(Value::as_object_mut) {
        strategy.entry("type").or_insert_with(|| json!("RollingUpdate"));
        if strategy["type"] == "RollingUpdate" {
            let rolling = strategy.entry("rollingUpdate").or_insert_with(|| json!({}));
            if let Some(rolling) = rolling.as_object_mut() {
                for field in ["maxSurge", "maxUnavailable"] {
                    rolling.entry(field).or_insert_with(|| json!("25%"));
                }
            }
        }
    }
    if let Some(spec) = spec
        .get_mut("template")
        .and_then(|t| t.get_mut("spec"))
        .and_then(Value::as_object_mut)
    {
        pod_spec(spec);
    }
}

fn pod_spec(spec: &mut Map<String, Value>) {
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(container) = container.as_object_mut() {
                pod_container(container);
            }
        }
    }
    for volume in spec
        .get_mut("volumes")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        if let Some(volume) = volume.as_object_mut()
            && volume.keys().all(|key| key == "name")
        {
            volume.insert("emptyDir".to_owned(), json!({}));
        }
    }
    // `serviceAccountName` and its deprecated alias `serviceAccount` always have the same value.
    let account = |v: Option<&Value>| v.filter(|v| v.as_str().is_some_and(|s| !s.is_empty())).cloned();
    let name = account(spec.get("serviceAccountName")).or_else(|| account(spec.get("serviceAccount")));
    if let Some(name) = name {
        spec.insert("serviceAccountName".to_owned(), name.clone());
        spec.insert("serviceAccount".to_owned(), name);
    }
}

fn pod_container(container: &mut Map<String, Value>) {
    if container.get("imagePullPolicy").is_none_or(|p| p.as_str() == Some("")) {
        let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
        container.insert("imagePullPolicy".to_owned(), json!(pull_policy(image)));
    }
    // A limit without a request is also the request.
    if let Some(resources) = container.get_mut("resources").and_then(Value::as_object_mut)
        && let Some(Value::Object(limits)) = resources.get("limits").cloned()
    {
        let requests = resources.entry("requests").or_insert_with(|| json!({}));
        if let Some(requests) = requests.as_object_mut() {
            for (name, quantity) in limits {
                requests.entry(name).or_insert(quantity);
            }
        }
    }
}

/// Returns `Always` for `:latest` and for an image without a tag, unless a digest pins the image.
fn pull_policy(image: &str) -> &'static str {
    let name = image.rsplit('/').next().unwrap_or(image);
    if name.contains('@') {
        return "IfNotPresent";
    }
    match name.split_once(':') {
        None | Some((_, "latest")) => "Always",
        Some(_) => "IfNotPresent",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pull_policy_follows_the_tag() {
        let cases = [
            ("busybox", "Always"),
            ("busybox:latest", "Always"),
            ("busybox:1.36", "IfNotPresent"),
            ("localhost:5000/a/b", "Always"),
            ("localhost:5000/a/b:2", "IfNotPresent"),
            ("a/b@sha256:00", "IfNotPresent"),
        ];
        for (image, policy) in cases {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }
}
