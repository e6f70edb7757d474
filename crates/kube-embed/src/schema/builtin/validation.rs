//! Validation of the built-in kinds, except for pod specs.

use serde_json::Value;

use super::{Gvk, metadata, pod};
use crate::schema::error::FieldError;

const KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
const MAX_DATA: u64 = 1024 * 1024;

pub(super) fn validate(gvk: Gvk<'_>, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = metadata::validate_object_meta(new, old, gvk.kind == "Namespace" && gvk.group.is_empty());
    if gvk.group.is_empty() {
        errors.extend(metadata::core_finalizers(new));
    }
    match (gvk.group, gvk.kind) {
        ("", "Pod") => {
            errors.extend(pod::validate(new));
            if let Some(old) = old {
                errors.extend(pod::validate_update(new, old));
            }
        }
        ("", "ConfigMap") => {
            immutable_data(new, old, &["data", "binaryData"], &mut errors);
            config_map(new, &mut errors);
        }
        ("", "Secret") => {
            immutable_data(new, old, &["data"], &mut errors);
            secret(new, old, &mut errors);
        }
        ("", "PersistentVolumeClaim") => claim(new, old, &mut errors),
        ("", "Event") => event(new, &mut errors),
        ("apps", "Deployment") => deployment(new, &mut errors),
        ("coordination.k8s.io", "Lease") => lease(new, &mut errors),
        _ => {}
    }
    errors
}

/// Checks that a deployment selects the pods of its own template.
fn deployment(new: &Value, errors: &mut Vec<FieldError>) {
    let wanted = new.pointer("/spec/selector/matchLabels").and_then(Value::as_object);
    let Some(wanted) = wanted.filter(|labels| !labels.is_empty()) else {
        errors.push(FieldError::required("spec.selector", ""));
        return;
    };
    let given = new
        .pointer("/spec/template/metadata/labels")
        .cloned()
        .unwrap_or_else(|| Value::Object(Default::default()));
    if wanted.iter().any(|(key, value)| given.get(key) != Some(value)) {
        errors.push(FieldError::invalid(
            "spec.template.metadata.labels",
            given,
            "`selector` does not match template `labels`",
        ));
    }
}

fn immutable_data(new: &Value, old: Option<&Value>, fields: &[&str], errors: &mut Vec<FieldError>) {
    let set = |object: &Value| object.get("immutable").and_then(Value::as_bool) == Some(true);
    let Some(old) = old.filter(|o| set(o)) else { return };
    let words = "field is immutable when `immutable` is set";
    if !set(new) {
        errors.push(FieldError::forbidden("immutable", words));
    }
    for field in fields.iter().filter(|f| entries(new, f).ne(entries(old, f))) {
        errors.push(FieldError::forbidden(*field, words));
    }
}

fn entries<'a>(object: &'a Value, field: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    object.get(field).and_then(Value::as_object).into_iter().flatten()
}

/// Checks the keys of a data map.
fn data_keys(object: &Value, field: &str, errors: &mut Vec<FieldError>) {
    for (key, _) in entries(object, field) {
        let at = format!("{field}[{key}]");
        if key.len() > 253 {
            errors.push(FieldError::invalid(
                at.as_str(),
                key.as_str(),
                "must be no more than 253 characters",
            ));
        }
        if key.is_empty()
            || !key
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        {
            errors.push(FieldError::invalid(at, key.as_str(), KEY));
        } else if key == "." {
            errors.push(FieldError::invalid(at, key.as_str(), "must not be '.'"));
        } else if key == ".." {
            errors.push(FieldError::invalid(at, key.as_str(), "must not be '..'"));
        } else if key.starts_with("..") {
            errors.push(FieldError::invalid(at, key.as_str(), "must not start with '..'"));
        }
    }
}

/// Returns the decoded size of a base64 value in bytes.
fn decoded_len(value: &Value) -> u64 {
    let s = value.as_str().unwrap_or_default();
    (s.len() / 4 * 3).saturating_sub(s.bytes().rev().take_while(|b| *b == b'=').count()) as u64
}

fn config_map(new: &Value, errors: &mut Vec<FieldError>) {
    data_keys(new, "data", errors);
    for (key, _) in entries(new, "data") {
        if new.get("binaryData").is_some_and(|b| b.get(key).is_some()) {
            errors.push(FieldError::invalid(
                format!("data[{key}]"),
                key.as_str(),
                "duplicate of key present in binaryData",
            ));
        }
    }
    data_keys(new, "binaryData", errors);
    let text: u64 = entries(new, "data")
        .map(|(_, v)| v.as_str().map_or(0, str::len) as u64)
        .sum();
    let binary: u64 = entries(new, "binaryData").map(|(_, v)| decoded_len(v)).sum();
    if text + binary > MAX_DATA {
        errors.push(FieldError::too_long("[]", MAX_DATA));
    }
}

fn secret(new: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    let kind = new.get("type").and_then(Value::as_str).unwrap_or_default();
    if let Some(old) = old
        && old.get("type") != new.get("type")
    {
        errors.push(FieldError::invalid("type", kind, "field is immutable"));
    }
    data_keys(new, "data", errors);
    if entries(new, "data").map(|(_, v)| decoded_len(v)).sum::<u64>() > MAX_DATA {
        errors.push(FieldError::too_long("data", MAX_DATA));
    }
    let has = |key: &str| new.get("data").and_then(|d| d.get(key)).is_some();
    let needed: &[&str] = match kind {
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => &["username", "password"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        _ => &[],
    };
    for key in needed.iter().filter(|key| !has(key)) {
        errors.push(FieldError::required(format!("data[{key}]"), ""));
    }
}

fn claim(new: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    let empty = Value::Null;
    let spec = new.get("spec").unwrap_or(&empty);
    let modes = spec
        .get("accessModes")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    if modes.is_empty() {
        errors.push(FieldError::required(
            "spec.accessModes",
            "at least 1 access mode is required",
        ));
    }
    let supported = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
    for mode in modes
        .iter()
        .filter(|m| !m.as_str().is_some_and(|m| supported.contains(&m)))
    {
        errors.push(FieldError::not_supported("spec.accessModes", mode.clone(), supported));
    }
    if spec.pointer("/resources/requests/storage").is_none() {
        errors.push(FieldError::required("spec.resources[storage]", ""));
    }
    if let Some(old) = old {
        let fixed = |object: &Value| {
            let mut spec = object.get("spec").cloned().unwrap_or_default();
            if let Some(map) = spec.as_object_mut() {
                // The volume controller sets the volume's name, and the requested size may grow.
                map.remove("volumeName");
                map.remove("resources");
            }
            spec
        };
        let named = |object: &Value| object.pointer("/spec/volumeName").cloned();
        if fixed(new) != fixed(old) || (named(old).is_some() && named(new) != named(old)) {
            errors.push(FieldError::forbidden(
                "spec",
                "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
            ));
        }
    }
}

fn event(new: &Value, errors: &mut Vec<FieldError>) {
    let namespace = new
        .pointer("/metadata/namespace")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let involved = new
        .pointer("/involvedObject/namespace")
        .and_then(Value::as_str)
        .unwrap_or_default();
    // Events about cluster-scoped objects are in `default`.
    if !involved.is_empty() && involved != namespace {
        errors.push(FieldError::invalid(
            "involvedObject.namespace",
            involved,
            "does not match event.namespace",
        ));
    } else if involved.is_empty() && !["", "default", "kube-system"].contains(&namespace) {
        errors.push(FieldError::invalid(
            "involvedObject.namespace",
            "",
            "does not match event.namespace",
        ));
    }
}

fn lease(new: &Value, errors: &mut Vec<FieldError>) {
    let number = |name: &str| new.get("spec").and_then(|s| s.get(name)).and_then(Value::as_i64);
    if let Some(seconds) = number("leaseDurationSeconds").filter(|s| *s <= 0) {
        errors.push(FieldError::invalid(
            "spec.leaseDurationSeconds",
            seconds,
            "must be greater than 0",
        ));
    }
    if let Some(count) = number("leaseTransitions").filter(|c| *c < 0) {
        errors.push(FieldError::invalid(
            "spec.leaseTransitions",
            count,
            "must be greater than or equal to 0",
        ));
    }
}
