//! CustomResourceDefinitions: their own rules, their conditions, and the resources that they define.

use serde_json::{Value, json};

use super::meta;
use crate::clock;
use crate::resource::{NameRule, PrinterColumn, ResourceInfo, ScalePaths, Subresource};
use crate::schema::{CrdSchema, FieldError};

/// The finalizer that keeps a CRD until its objects are deleted.
pub(super) const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// The inputs of a CRD's compiled resources. While they are equal, nothing has to be compiled again.
pub(super) type CrdFingerprint = (i64, bool, bool);

/// One served version of a CRD.
pub(super) struct CrdVersion {
    pub(super) info: ResourceInfo,
    pub(super) schema: CrdSchema,
    pub(super) raw_schema: Value,
    pub(super) stored_api_version: String,
    pub(super) terminating: bool,
    pub(super) warning: Option<String>,
}

pub(super) fn fingerprint(crd: &Value) -> CrdFingerprint {
    (meta::generation(crd), meta::is_deleting(crd), is_established(crd))
}

/// Sets defaults of a CRD.
pub(super) fn default(crd: &mut Value) {
    let kind = meta::text(crd, &["spec", "names", "kind"]).to_owned();
    let spec = meta::section(crd, "spec");
    spec.entry("conversion").or_insert_with(|| json!({"strategy": "None"}));
    if let Some(names) = spec.get_mut("names").and_then(Value::as_object_mut) {
        names.entry("singular").or_insert_with(|| json!(kind.to_lowercase()));
        names.entry("listKind").or_insert_with(|| json!(format!("{kind}List")));
    }
    for version in spec
        .get_mut("versions")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        // Kubernetes adds this printer column when a CRD has none. `kubectl explain` and clients show it.
        if let Some(version) = version.as_object_mut() {
            version
                .entry("additionalPrinterColumns")
                .or_insert_with(|| json!([{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}]));
        }
    }
}

/// Validates a CRD.
pub(super) fn check(crd: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let text = |path: &[&str]| meta::text(crd, path);
    let (group, plural, kind) = (
        text(&["spec", "group"]),
        text(&["spec", "names", "plural"]),
        text(&["spec", "names", "kind"]),
    );
    for (path, value) in [
        ("spec.group", group),
        ("spec.names.plural", plural),
        ("spec.names.kind", kind),
    ] {
        if value.is_empty() {
            errors.push(FieldError::required(path, ""));
        }
    }
    if !group.is_empty() && (!is_subdomain(group) || !group.contains('.')) {
        errors.push(FieldError::invalid(
            "spec.group",
            json!(group),
            "should be a domain with at least one dot",
        ));
    }
    for (path, name) in [
        ("spec.names.plural", plural),
        ("spec.names.singular", text(&["spec", "names", "singular"])),
    ] {
        if !name.is_empty() && !is_label(name) {
            errors.push(FieldError::invalid(
                path,
                json!(name),
                "must be a lower case RFC 1123 label",
            ));
        }
    }
    if !kind.is_empty() && !is_label(&kind.to_ascii_lowercase()) {
        errors.push(FieldError::invalid(
            "spec.names.kind",
            json!(kind),
            "may have mixed case, but should otherwise match an RFC 1123 label",
        ));
    }
    let wanted = format!("{plural}.{group}");
    if meta::name(crd) != wanted {
        errors.push(FieldError::invalid(
            "metadata.name",
            json!(meta::name(crd)),
            format!("must be spec.names.plural+\".\"+spec.group: {wanted:?}"),
        ));
    }
    match text(&["spec", "scope"]) {
        "Namespaced" | "Cluster" => {}
        "" => errors.push(FieldError::required("spec.scope", "")),
        other => errors.push(FieldError::not_supported(
            "spec.scope",
            other,
            ["Cluster", "Namespaced"],
        )),
    }
    if text(&["spec", "conversion", "strategy"]) == "Webhook" {
        errors.push(FieldError::forbidden(
            "spec.conversion.strategy",
            "this server calls no webhooks: use None, which converts by apiVersion only",
        ));
    }
    if meta::at(crd, &["spec", "preserveUnknownFields"]).and_then(Value::as_bool) == Some(true) {
        errors.push(FieldError::invalid(
            "spec.preserveUnknownFields",
            json!(true),
            "must be false: set x-kubernetes-preserve-unknown-fields in the schema instead",
        ));
    }
    check_versions(crd, &mut errors);
    if let Some(old) = old {
        for path in [["spec", "group"], ["spec", "scope"]] {
            if meta::text(old, &path) != text(&path) {
                errors.push(FieldError::invalid(
                    path.join("."),
                    json!(text(&path)),
                    "field is immutable",
                ));
            }
        }
        for name in ["plural", "kind"] {
            let path = ["spec", "names", name];
            if is_established(old) && meta::text(old, &path) != text(&path) {
                errors.push(FieldError::invalid(
                    path.join("."),
                    json!(text(&path)),
                    "field is immutable",
                ));
            }
        }
    }
    errors
}

fn check_versions(crd: &Value, errors: &mut Vec<FieldError>) {
    let versions = version_list(crd);
    if versions.is_empty() {
        errors.push(FieldError::required("spec.versions", "must have at least one version"));
        return;
    }
    let storage = versions.iter().filter(|v| flag(v, "storage")).count();
    if storage != 1 {
        errors.push(FieldError::invalid(
            "spec.versions",
            json!(versions.iter().map(|v| meta::text(v, &["name"])).collect::<Vec<_>>()),
            "must have exactly one version marked as storage version",
        ));
    }
    for (i, version) in versions.iter().enumerate() {
        let path = format!("spec.versions[{i}]");
        let name = meta::text(version, &["name"]);
        if !is_label(name) {
            errors.push(FieldError::invalid(
                format!("{path}.name"),
                json!(name),
                "must be an RFC 1123 label",
            ));
        }
        if versions[..i].iter().any(|v| meta::text(v, &["name"]) == name) {
            errors.push(FieldError::invalid(
                format!("{path}.name"),
                json!(name),
                "must be unique",
            ));
        }
        let schema_path = format!("{path}.schema.openAPIV3Schema");
        match meta::at(version, &["schema", "openAPIV3Schema"]) {
            None => errors.push(FieldError::required(schema_path, "schemas are required")),
            Some(schema) => {
                if let Err(faults) = CrdSchema::compile_at(schema, &schema_path) {
                    errors.extend(faults);
                }
            }
        }
        for (j, field) in version
            .get("selectableFields")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .enumerate()
        {
            if !meta::text(field, &["jsonPath"]).starts_with('.') {
                errors.push(FieldError::invalid(
                    format!("{path}.selectableFields[{j}].jsonPath"),
                    field["jsonPath"].clone(),
                    "is an invalid path: it must be a simple path that starts with a dot",
                ));
            }
        }
        for (j, column) in version
            .get("additionalPrinterColumns")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .enumerate()
        {
            for field in ["name", "type", "jsonPath"] {
                if meta::text(column, &[field]).is_empty() {
                    errors.push(FieldError::required(
                        format!("{path}.additionalPrinterColumns[{j}].{field}"),
                        "",
                    ));
                }
            }
        }
    }
}

fn version_list(crd: &Value) -> &[Value] {
    meta::at(crd, &["spec", "versions"])
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

fn flag(version: &Value, name: &str) -> bool {
    version.get(name).and_then(Value::as_bool).unwrap_or(false)
}

fn storage_version(crd: &Value) -> &str {
    version_list(crd)
        .iter()
        .find(|v| flag(v, "storage"))
        .map(|v| meta::text(v, &["name"]))
        .unwrap_or_default()
}

/// Whether the CRD's resources are served.
pub(super) fn is_established(crd: &Value) -> bool {
    condition(crd, "Established") == Some("True")
}

fn condition<'a>(crd: &'a Value, type_: &str) -> Option<&'a str> {
    meta::at(crd, &["status", "conditions"])?
        .as_array()?
        .iter()
        .find(|c| meta::text(c, &["type"]) == type_)
        .map(|c| meta::text(c, &["status"]))
}

/// Writes the status that the API server's own controllers would write. `others` are the other CRDs.
pub(super) fn set_status<'a>(crd: &mut Value, others: impl Iterator<Item = &'a Value>, now: jiff::Timestamp) {
    let conflict = others
        .filter(|o| meta::text(o, &["spec", "group"]) == meta::text(crd, &["spec", "group"]))
        .find_map(|other| names(other).into_iter().find(|n| names(crd).contains(n)));
    let deleting = meta::is_deleting(crd);
    let old = crd.get("status").cloned().unwrap_or_default();
    let time = clock::seconds(now);
    let mut conditions: Vec<Value> = old
        .get("conditions")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let mut set = |type_: &str, status: &str, reason: &str, message: String| {
        let known = conditions.iter().position(|c| c["type"] == type_);
        let since = known
            .filter(|i| conditions[*i]["status"] == status)
            .map_or_else(|| json!(time), |i| conditions[i]["lastTransitionTime"].clone());
        let condition = json!({
            "type": type_, "status": status, "reason": reason, "message": message, "lastTransitionTime": since,
        });
        match known {
            Some(i) => conditions[i] = condition,
            None => conditions.push(condition),
        }
    };
    match &conflict {
        None => {
            set("NamesAccepted", "True", "NoConflicts", "no conflicts found".into());
            set(
                "Established",
                "True",
                "InitialNamesAccepted",
                "the initial names have been accepted".into(),
            );
        }
        Some(name) => {
            set(
                "NamesAccepted",
                "False",
                "NameConflict",
                format!("{name:?} is already in use"),
            );
            // An established CRD stays established, as in Kubernetes.
            if !old["conditions"]
                .as_array()
                .is_some_and(|c| c.iter().any(|c| c["type"] == "Established" && c["status"] == "True"))
            {
                set(
                    "Established",
                    "False",
                    "NotAccepted",
                    "not all names are accepted".into(),
                );
            }
        }
    }
    if deleting {
        set(
            "Terminating",
            "True",
            "InstanceDeletionInProgress",
            "CustomResource deletion is in progress".into(),
        );
    }
    let storage = storage_version(crd).to_owned();
    let mut stored = old
        .get("storedVersions")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    if !stored.iter().any(|v| v == &storage) {
        stored.push(json!(storage));
    }
    let accepted = match (&conflict, old.get("acceptedNames")) {
        (None, _) => crd["spec"]["names"].clone(),
        (Some(_), Some(before)) => before.clone(),
        (Some(_), None) => json!({"plural": "", "kind": ""}),
    };
    crd["status"] = json!({"conditions": conditions, "acceptedNames": accepted, "storedVersions": stored});
}

/// Returns the names that identify this CRD in kubectl.
fn names(crd: &Value) -> Vec<String> {
    let names = &crd["spec"]["names"];
    ["plural", "singular", "kind", "listKind"]
        .iter()
        .filter_map(|f| names[f].as_str())
        .chain(
            names["shortNames"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str),
        )
        .map(str::to_lowercase)
        .collect()
}

/// Returns the served versions of a CRD. It has none until it is established.
pub(super) fn versions(crd: &Value) -> Vec<CrdVersion> {
    if !is_established(crd) {
        return Vec::new();
    }
    let text = |path: &[&str]| meta::text(crd, path).to_owned();
    let list = |value: Option<&Value>| -> Vec<String> {
        value
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect()
    };
    let names = &crd["spec"]["names"];
    let group = text(&["spec", "group"]);
    version_list(crd)
        .iter()
        .filter(|v| flag(v, "served"))
        .filter_map(|version| {
            let raw_schema = meta::at(version, &["schema", "openAPIV3Schema"])?.clone();
            // It compiled when the CRD was accepted. A CRD that an older server stored may not compile now. It is not
            // served.
            let schema = CrdSchema::compile(&raw_schema)
                .inspect_err(|errors| {
                    tracing::error!(crd = meta::name(crd), ?errors, "the stored schema is no longer valid")
                })
                .ok()?;
            let name = meta::text(version, &["name"]);
            let status = version.pointer("/subresources/status").is_some();
            let scale = version
                .pointer("/subresources/scale")
                .filter(|s| !s.is_null())
                .map(|s| ScalePaths {
                    spec: meta::text(s, &["specReplicasPath"]).to_owned(),
                    status: meta::text(s, &["statusReplicasPath"]).to_owned(),
                    selector: meta::at(s, &["labelSelectorPath"])
                        .and_then(Value::as_str)
                        .map(str::to_owned),
                });
            let mut subresources = Vec::new();
            subresources.extend(status.then_some(Subresource::Status));
            subresources.extend(scale.is_some().then_some(Subresource::Scale));
            let info = ResourceInfo {
                group: group.clone(),
                version: name.to_owned(),
                kind: text(&["spec", "names", "kind"]),
                list_kind: text(&["spec", "names", "listKind"]),
                plural: text(&["spec", "names", "plural"]),
                singular: text(&["spec", "names", "singular"]),
                short_names: list(names.get("shortNames")),
                categories: list(names.get("categories")),
                namespaced: text(&["spec", "scope"]) == "Namespaced",
                subresources,
                scale,
                generation: true,
                name_rule: NameRule::Subdomain,
                selectable_fields: version
                    .get("selectableFields")
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten()
                    .map(|f| meta::text(f, &["jsonPath"]).trim_start_matches('.').to_owned())
                    .collect(),
                printer_columns: version
                    .get("additionalPrinterColumns")
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten()
                    .map(column)
                    .collect(),
                custom: true,
            };
            let deprecated = flag(version, "deprecated").then(|| match meta::text(version, &["deprecationWarning"]) {
                "" => format!("{group}/{name} {} is deprecated", info.kind),
                given => given.to_owned(),
            });
            Some(CrdVersion {
                stored_api_version: format!("{group}/{}", storage_version(crd)),
                terminating: meta::is_deleting(crd),
                warning: deprecated,
                info,
                schema,
                raw_schema,
            })
        })
        .collect()
}

fn column(column: &Value) -> PrinterColumn {
    let text = |field: &str| meta::text(column, &[field]).to_owned();
    PrinterColumn {
        name: text("name"),
        type_: text("type"),
        format: text("format"),
        description: text("description"),
        priority: column
            .get("priority")
            .and_then(Value::as_i64)
            .and_then(|p| i32::try_from(p).ok())
            .unwrap_or(0),
        json_path: text("jsonPath"),
    }
}

/// Returns whether this is an RFC 1123 label.
fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes.iter().all(|b| inner(*b) || *b == b'-')
        && bytes.first().is_some_and(|b| inner(*b))
        && bytes.last().is_some_and(|b| inner(*b))
}

/// Returns whether this is an RFC 1123 subdomain. Its parts may be longer than 63 characters, as in Kubernetes.
fn is_subdomain(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    !text.is_empty()
        && text.len() <= 253
        && text.split('.').all(|part| {
            let bytes = part.as_bytes();
            bytes.iter().all(|b| inner(*b) || *b == b'-')
                && bytes.first().is_some_and(|b| inner(*b))
                && bytes.last().is_some_and(|b| inner(*b))
        })
}
