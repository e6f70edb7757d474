//! Validation of pods, on creation and on update.

use serde_json::{Value, json};

use super::metadata::{dns_label, dns_subdomain};
use crate::schema::error::FieldError;

const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value
        .get(name)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Validates the spec of a new pod.
pub(super) fn validate(pod: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let Some(spec) = pod.get("spec").filter(|s| s.is_object()) else {
        return vec![FieldError::required("spec.containers", "")];
    };
    let volumes = volumes(spec, &mut errors);
    let containers = list(spec, "containers");
    if containers.is_empty() {
        errors.push(FieldError::required("spec.containers", ""));
    }
    let mut names: Vec<&str> = Vec::new();
    for (list_name, containers) in [
        ("containers", containers),
        ("initContainers", list(spec, "initContainers")),
    ] {
        for (i, container) in containers.iter().enumerate() {
            let at = format!("spec.{list_name}[{i}]");
            self::container(container, &at, &volumes, &mut errors);
            let name = text(container, "name");
            if names.contains(&name) && !name.is_empty() {
                errors.push(FieldError::duplicate(format!("{at}.name"), name));
            }
            names.push(name);
            if list_name == "initContainers" {
                init_container(container, &at, &mut errors);
            }
        }
    }
    one_of(
        spec,
        "spec",
        "restartPolicy",
        &["Always", "Never", "OnFailure"],
        &mut errors,
    );
    one_of(
        spec,
        "spec",
        "dnsPolicy",
        &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"],
        &mut errors,
    );
    if let Some(deadline) = spec.get("activeDeadlineSeconds").and_then(Value::as_i64)
        && !(1..=i64::from(i32::MAX)).contains(&deadline)
    {
        errors.push(FieldError::invalid(
            "spec.activeDeadlineSeconds",
            deadline,
            "must be between 1 and 2147483647, inclusive",
        ));
    }
    if let Some(grace) = spec
        .get("terminationGracePeriodSeconds")
        .and_then(Value::as_i64)
        .filter(|g| *g < 0)
    {
        errors.push(FieldError::invalid(
            "spec.terminationGracePeriodSeconds",
            grace,
            "must be greater than or equal to 0",
        ));
    }
    for field in ["serviceAccountName", "nodeName"] {
        let name = text(spec, field);
        if !name.is_empty() {
            let found = dns_subdomain(name);
            errors.extend(
                found
                    .into_iter()
                    .map(|m| FieldError::invalid(format!("spec.{field}"), name, m)),
            );
        }
    }
    errors
}

fn one_of(value: &Value, at: &str, field: &str, allowed: &[&str], errors: &mut Vec<FieldError>) {
    if let Some(found) = value
        .get(field)
        .and_then(Value::as_str)
        .filter(|v| !allowed.contains(v))
    {
        errors.push(FieldError::not_supported(format!("{at}.{field}"), found, allowed));
    }
}

fn volumes<'a>(spec: &'a Value, errors: &mut Vec<FieldError>) -> Vec<&'a str> {
    let mut names = Vec::new();
    for (i, volume) in list(spec, "volumes").iter().enumerate() {
        let at = format!("spec.volumes[{i}]");
        let name = text(volume, "name");
        let mut found = Vec::new();
        let sources: Vec<&String> = volume
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(k, v)| *k != "name" && !v.is_null())
            .map(|(k, _)| k)
            .collect();
        match sources.as_slice() {
            [] => found.push(FieldError::required(at.as_str(), "must specify a volume type")),
            [_] => {}
            [_, more @ ..] => found.extend(
                more.iter()
                    .map(|s| FieldError::forbidden(format!("{at}.{s}"), "may not specify more than 1 volume type")),
            ),
        }
        let named: [(&str, &str, &str); 3] = [
            ("configMap", "name", "configMap.name"),
            ("secret", "secretName", "secret.secretName"),
            ("persistentVolumeClaim", "claimName", "persistentVolumeClaim.claimName"),
        ];
        for (source, field, below) in named {
            if volume.get(source).is_some_and(|s| text(s, field).is_empty()) {
                found.push(FieldError::required(format!("{at}.{below}"), ""));
            }
        }
        if volume.get("hostPath").is_some_and(|s| text(s, "path").is_empty()) {
            found.push(FieldError::required(format!("{at}.hostPath.path"), ""));
        }
        if name.is_empty() {
            found.push(FieldError::required(format!("{at}.name"), ""));
        } else {
            found.extend(
                dns_label(name)
                    .into_iter()
                    .map(|m| FieldError::invalid(format!("{at}.name"), name, m)),
            );
        }
        if names.contains(&name) {
            found.push(FieldError::duplicate(format!("{at}.name"), name));
        }
        if found.is_empty() {
            names.push(name);
        }
        errors.extend(found);
    }
    names
}

fn container(container: &Value, at: &str, volumes: &[&str], errors: &mut Vec<FieldError>) {
    let name = text(container, "name");
    if name.is_empty() {
        errors.push(FieldError::required(format!("{at}.name"), ""));
    } else {
        errors.extend(
            dns_label(name)
                .into_iter()
                .map(|m| FieldError::invalid(format!("{at}.name"), name, m)),
        );
    }
    if text(container, "image").is_empty() {
        errors.push(FieldError::required(format!("{at}.image"), ""));
    }
    one_of(
        container,
        at,
        "terminationMessagePolicy",
        &["File", "FallbackToLogsOnError"],
        errors,
    );
    one_of(
        container,
        at,
        "imagePullPolicy",
        &["Always", "IfNotPresent", "Never"],
        errors,
    );
    environment(container, at, errors);
    volume_mounts(container, at, volumes, errors);
    ports(container, at, errors);
}

fn environment(container: &Value, at: &str, errors: &mut Vec<FieldError>) {
    for (i, variable) in list(container, "env").iter().enumerate() {
        let (name, name_at) = (text(variable, "name"), format!("{at}.env[{i}].name"));
        if name.is_empty() {
            errors.push(FieldError::required(name_at, ""));
        } else if !name.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'=') {
            errors.push(FieldError::invalid(
                name_at,
                name,
                "a valid environment variable name must consist only of printable ASCII characters other than '='",
            ));
        }
        let from_at = format!("{at}.env[{i}].valueFrom");
        if let Some(Value::Object(from)) = variable.get("valueFrom") {
            if !text(variable, "value").is_empty() {
                errors.push(FieldError::invalid(
                    from_at,
                    "",
                    "may not be specified when `value` is not empty",
                ));
            } else if from.len() != 1 {
                let words = if from.is_empty() {
                    "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
                } else {
                    "may not have more than one field specified at a time"
                };
                errors.push(FieldError::invalid(from_at, "", words));
            }
        }
    }
}

fn volume_mounts(container: &Value, at: &str, volumes: &[&str], errors: &mut Vec<FieldError>) {
    let mut paths = Vec::new();
    for (i, mount) in list(container, "volumeMounts").iter().enumerate() {
        let here = format!("{at}.volumeMounts[{i}]");
        let (name, path) = (text(mount, "name"), text(mount, "mountPath"));
        if name.is_empty() {
            errors.push(FieldError::required(format!("{here}.name"), ""));
        }
        if !volumes.contains(&name) {
            errors.push(FieldError::not_found(format!("{here}.name"), name));
        }
        if path.is_empty() {
            errors.push(FieldError::required(format!("{here}.mountPath"), ""));
        }
        if paths.contains(&path) {
            errors.push(FieldError::invalid(format!("{here}.mountPath"), path, "must be unique"));
        }
        paths.push(path);
        let sub_path = text(mount, "subPath");
        if sub_path.starts_with('/') {
            errors.push(FieldError::invalid(
                format!("{at}.volumeMounts.subPath"),
                sub_path,
                "must be a relative path",
            ));
        }
        if sub_path.split('/').any(|part| part == "..") {
            errors.push(FieldError::invalid(
                format!("{at}.volumeMounts.subPath"),
                sub_path,
                "must not contain '..'",
            ));
        }
    }
}

fn ports(container: &Value, at: &str, errors: &mut Vec<FieldError>) {
    for (i, port) in list(container, "ports").iter().enumerate() {
        let number = port.get("containerPort").and_then(Value::as_i64);
        let port_at = format!("{at}.ports[{i}].containerPort");
        match number {
            None | Some(0) => errors.push(FieldError::required(port_at, "")),
            Some(1..=65535) => {}
            Some(n) => errors.push(FieldError::invalid(
                port_at,
                n,
                "must be between 1 and 65535, inclusive",
            )),
        }
    }
}

fn init_container(container: &Value, at: &str, errors: &mut Vec<FieldError>) {
    if text(container, "restartPolicy") == "Always" {
        return;
    }
    for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
        if container.get(field).is_some_and(|v| !v.is_null()) {
            errors.push(FieldError::forbidden(
                format!("{at}.{field}"),
                "may not be set for init containers without restartPolicy=Always",
            ));
        }
    }
}

/// Checks which fields of a pod's spec an update changes.
pub(super) fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let empty = json!({});
    let (new, old) = (new.get("spec").unwrap_or(&empty), old.get("spec").unwrap_or(&empty));
    for name in ["containers", "initContainers"] {
        if list(new, name).len() != list(old, name).len() {
            errors.push(FieldError::forbidden(
                format!("spec.{name}"),
                "pod updates may not add or remove containers",
            ));
            return errors;
        }
    }
    let deadline = |spec: &Value| spec.get("activeDeadlineSeconds").and_then(Value::as_i64);
    match (deadline(new), deadline(old)) {
        (Some(now), Some(before)) if before < now => {
            errors.push(FieldError::invalid(
                "spec.activeDeadlineSeconds",
                now,
                "must be less than or equal to previous value",
            ));
            return errors;
        }
        (None, Some(_)) => errors.push(FieldError::invalid(
            "spec.activeDeadlineSeconds",
            Value::Null,
            "must not update from a positive integer to nil value",
        )),
        _ => {}
    }
    if list(old, "tolerations")
        .iter()
        .any(|t| !list(new, "tolerations").contains(t))
    {
        errors.push(FieldError::forbidden(
            "spec.tolerations",
            "existing toleration can not be modified except its tolerationSeconds",
        ));
    }
    let mut munged = new.clone();
    munge(&mut munged, old);
    if munged != *old {
        let changed: Vec<&str> = changed_fields(&munged, old);
        errors.push(FieldError::forbidden(
            "spec",
            format!(
                "pod updates may not change fields other than {UPDATABLE}\nchanged: {}",
                changed.join(", ")
            ),
        ));
    }
    errors
}

/// Copies the old values of all updatable fields. Every difference that remains is forbidden.
fn munge(new: &mut Value, old: &Value) {
    for name in ["containers", "initContainers"] {
        for (i, before) in list(old, name).iter().enumerate() {
            if let Some(container) = new
                .get_mut(name)
                .and_then(|c| c.get_mut(i))
                .and_then(Value::as_object_mut)
            {
                match before.get("image") {
                    Some(image) => container.insert("image".to_owned(), image.clone()),
                    None => container.remove("image"),
                };
            }
        }
    }
    let Some(new) = new.as_object_mut() else { return };
    let relaxed = old
        .get("terminationGracePeriodSeconds")
        .and_then(Value::as_i64)
        .is_some_and(|g| g < 0)
        && new.get("terminationGracePeriodSeconds").and_then(Value::as_i64) == Some(1);
    let mut fields = vec!["activeDeadlineSeconds", "tolerations", "schedulingGates"];
    if relaxed {
        fields.push("terminationGracePeriodSeconds");
    }
    for field in fields {
        match old.get(field) {
            Some(value) => new.insert(field.to_owned(), value.clone()),
            None => new.remove(field),
        };
    }
}

fn changed_fields<'a>(new: &'a Value, old: &'a Value) -> Vec<&'a str> {
    let mut changed: Vec<&str> = new
        .as_object()
        .into_iter()
        .flatten()
        .chain(old.as_object().into_iter().flatten())
        .map(|(key, _)| key.as_str())
        .filter(|key| new.get(*key) != old.get(*key))
        .collect();
    changed.sort_unstable();
    changed.dedup();
    changed
}
