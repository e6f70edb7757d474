//! Behavior of single built-in kinds beyond their schema. Kubernetes calls these registry strategies.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::{crd, meta};
use crate::resource::{ResourceInfo, Subresource};

/// Sets the fields that the server decides when an object is created.
pub(super) fn on_create(info: &ResourceInfo, object: &mut Value) {
    match (info.group.as_str(), info.kind.as_str()) {
        ("", "Pod") => {
            let qos = qos_class(object);
            object["status"] = json!({"phase": "Pending", "qosClass": qos});
        }
        ("", "Namespace") => {
            meta::section(object, "spec").insert("finalizers".into(), json!(["kubernetes"]));
            object["status"] = json!({"phase": "Active"});
            name_label(object);
        }
        ("", "PersistentVolumeClaim") => object["status"] = json!({"phase": "Pending"}),
        ("", "Secret") => merge_string_data(object),
        ("apiextensions.k8s.io", _) => crd::default(object),
        _ => {}
    }
}

/// The label lets a selector find a namespace by its name.
fn name_label(namespace: &mut Value) {
    let name = meta::name(namespace).to_owned();
    let labels = meta::metadata(namespace).entry("labels").or_insert_with(|| json!({}));
    if let Some(labels) = labels.as_object_mut() {
        labels.insert("kubernetes.io/metadata.name".into(), json!(name));
    }
}

/// Sets the fields that the server decides when an object is updated.
pub(super) fn on_update(info: &ResourceInfo, live: &Value, new: &mut Value, subresource: Option<Subresource>) {
    match (info.group.as_str(), info.kind.as_str()) {
        ("", "Secret") => merge_string_data(new),
        ("", "Namespace") => {
            // Only `/finalize` changes the finalizers.
            if subresource != Some(Subresource::Finalize) {
                let spec = meta::section(new, "spec");
                match meta::at(live, &["spec", "finalizers"]) {
                    Some(finalizers) => spec.insert("finalizers".into(), finalizers.clone()),
                    None => spec.remove("finalizers"),
                };
            }
            name_label(new);
        }
        ("apiextensions.k8s.io", _) => crd::default(new),
        _ => {}
    }
}

/// Restricts a write through a subresource: takes only that part of `new` into the live object.
pub(super) fn only_subresource(live: &Value, new: &Value, subresource: Subresource) -> Value {
    let mut out = live.clone();
    meta::set(
        &mut out,
        "managedFields",
        meta::at(new, &["metadata", "managedFields"]).cloned(),
    );
    let sections: &[&str] = match subresource {
        Subresource::Finalize | Subresource::Scale => &["spec"],
        // A binding sets the node in the spec and the matching condition.
        Subresource::Binding => &["spec", "status"],
        _ => &["status"],
    };
    if let Some(fields) = out.as_object_mut() {
        for section in sections {
            match new.get(*section) {
                Some(value) => fields.insert((*section).to_owned(), value.clone()),
                None => fields.remove(*section),
            };
        }
    }
    out
}

/// Returns whether anything other than metadata differs (and other than status, if it is a subresource).
pub(super) fn spec_changed(info: &ResourceInfo, live: &Value, new: &Value) -> bool {
    let split = info.has(Subresource::Status);
    let relevant = |object: &Value| -> Map<String, Value> {
        object
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(field, _)| *field != "metadata" && !(split && *field == "status"))
            .map(|(field, value)| (field.clone(), value.clone()))
            .collect()
    };
    relevant(live) != relevant(new)
}

/// Returns whether the kind itself allows immediate removal of an object that is being deleted.
pub(super) fn may_go(info: &ResourceInfo, object: &Value) -> bool {
    !is_namespace(info)
        || meta::at(object, &["spec", "finalizers"])
            .and_then(Value::as_array)
            .is_none_or(Vec::is_empty)
}

pub(super) fn is_namespace(info: &ResourceInfo) -> bool {
    info.group.is_empty() && info.kind == "Namespace"
}

pub(super) fn is_pod(info: &ResourceInfo) -> bool {
    info.group.is_empty() && info.kind == "Pod"
}

/// Returns the grace period of a deletion in seconds. Only pods have one.
pub(super) fn grace_period(info: &ResourceInfo, object: &Value, asked: Option<i64>) -> i64 {
    if !is_pod(info) {
        return 0;
    }
    // No node runs this pod, so no node will confirm its end.
    if meta::text(object, &["spec", "nodeName"]).is_empty()
        || matches!(meta::text(object, &["status", "phase"]), "Succeeded" | "Failed")
    {
        return 0;
    }
    let own = meta::at(object, &["spec", "terminationGracePeriodSeconds"])
        .and_then(Value::as_i64)
        .unwrap_or(30);
    match asked.unwrap_or(own) {
        negative if negative < 0 => 1,
        seconds => seconds,
    }
}

/// Moves `stringData` into `data`. Clients write the first, the server stores the second.
fn merge_string_data(secret: &mut Value) {
    let Some(fields) = secret.as_object_mut() else { return };
    let Some(Value::Object(given)) = fields.remove("stringData") else {
        return;
    };
    let data = fields.entry("data").or_insert_with(|| json!({}));
    if data.is_null() {
        *data = json!({});
    }
    if let Some(data) = data.as_object_mut() {
        for (key, value) in given {
            let text = value.as_str().unwrap_or_default();
            data.insert(key, json!(STANDARD.encode(text)));
        }
    }
}

/// Returns Guaranteed, Burstable or BestEffort, by the rules of Kubernetes for cpu and memory.
fn qos_class(pod: &Value) -> &'static str {
    let containers = ["initContainers", "containers"]
        .iter()
        .filter_map(|list| meta::at(pod, &["spec", list])?.as_array())
        .flatten();
    let (mut any, mut guaranteed) = (false, true);
    for container in containers {
        for resource in ["cpu", "memory"] {
            let limit = meta::at(container, &["resources", "limits", resource]);
            let request = meta::at(container, &["resources", "requests", resource]);
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && request.is_none_or(|r| Some(r) == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}
