//! Names, labels, annotations and owner references.

use serde_json::Value;

use crate::schema::error::FieldError;

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = r"a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_KEY: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const QUALIFIED: &str = "a valid label key must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";

/// Size limit of all annotations together, in bytes, keys included.
const MAX_ANNOTATIONS: u64 = 256 * 1024;

fn is_label(s: &str) -> bool {
    let alnum = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = s.as_bytes();
    matches!((bytes.first(), bytes.last()), (Some(first), Some(last)) if alnum(first) && alnum(last))
        && bytes.iter().all(|b| alnum(b) || *b == b'-')
}

fn is_label_word(s: &str) -> bool {
    let bytes = s.as_bytes();
    matches!((bytes.first(), bytes.last()), (Some(first), Some(last)) if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric())
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// Returns the problems of a DNS label (at most 63 characters).
pub(super) fn dns_label(s: &str) -> Vec<String> {
    let mut out = Vec::new();
    if s.len() > 63 {
        out.push("must be no more than 63 characters".to_owned());
    }
    if !is_label(s) {
        let dots = s.split('.').all(is_label);
        out.push(if dots { "must not contain dots" } else { LABEL }.to_owned());
    }
    out
}

/// Returns the problems of a DNS subdomain (at most 253 characters).
pub(super) fn dns_subdomain(s: &str) -> Vec<String> {
    let mut out = Vec::new();
    if s.len() > 253 {
        out.push("must be no more than 253 characters".to_owned());
    }
    if !s.split('.').all(is_label) {
        out.push(SUBDOMAIN.to_owned());
    }
    out
}

/// Returns the problems of a label's key.
pub(crate) fn label_key(s: &str) -> Vec<String> {
    qualified_name(s)
}

/// Returns the problems of a label's value.
pub(crate) fn label_value(s: &str) -> Vec<String> {
    let mut out = Vec::new();
    if s.len() > 63 {
        out.push("must be no more than 63 bytes".to_owned());
    }
    if !s.is_empty() && !is_label_word(s) {
        out.push(LABEL_VALUE.to_owned());
    }
    out
}

fn qualified_name(s: &str) -> Vec<String> {
    let (prefix, name) = match s.split_once('/') {
        None => (None, s),
        Some((_, rest)) if rest.contains('/') => return vec![QUALIFIED.to_owned()],
        Some((prefix, name)) => (Some(prefix), name),
    };
    let mut out = Vec::new();
    if let Some(prefix) = prefix {
        if prefix.is_empty() {
            out.push("prefix part must be non-empty".to_owned());
        } else {
            out.extend(dns_subdomain(prefix).into_iter().map(|m| format!("prefix part {m}")));
        }
    }
    if name.is_empty() {
        out.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        out.push("name part must be no more than 63 characters".to_owned());
    }
    if !is_label_word(name) {
        out.push(LABEL_KEY.to_owned());
    }
    out
}

/// Checks a name. Most kinds take a DNS subdomain. With `label`, a DNS label is required, as for namespaces. `field`
/// is `name` or `generateName`. A trailing dash is allowed in `generateName`, because the generator appends to it.
pub(crate) fn validate_name(name: &str, field: &str, label: bool) -> Vec<FieldError> {
    let checked = if field == "generateName" {
        name.strip_suffix('-').unwrap_or(name)
    } else {
        name
    };
    let found = if label {
        dns_label(checked)
    } else {
        dns_subdomain(checked)
    };
    found
        .into_iter()
        .map(|m| FieldError::invalid(format!("metadata.{field}"), name, m))
        .collect()
}

/// Checks `metadata` of any object, including custom resources. `old` is set for updates.
pub(crate) fn validate_object_meta(object: &Value, old: Option<&Value>, label_name: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let empty = Value::Null;
    let meta = object.get("metadata").unwrap_or(&empty);
    let text = |m: &Value, name: &str| m.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    match old {
        None => names(
            &text(meta, "name"),
            &text(meta, "generateName"),
            label_name,
            &mut errors,
        ),
        Some(old) => {
            let before = old.get("metadata").unwrap_or(&empty);
            immutable(meta, before, &mut errors);
        }
    }
    labels(meta, &mut errors);
    annotations(meta, &mut errors);
    owners(meta, &mut errors);
    for finalizer in strings(meta.get("finalizers")) {
        errors.extend(
            qualified_name(finalizer)
                .into_iter()
                .map(|m| FieldError::invalid("metadata.finalizers", finalizer, m)),
        );
    }
    errors
}

/// Checks the stricter rule of the core group: a finalizer is a standard one or has a domain.
pub(super) fn core_finalizers(object: &Value) -> Vec<FieldError> {
    strings(object.pointer("/metadata/finalizers"))
        .enumerate()
        .filter(|(_, finalizer)| {
            qualified_name(finalizer).is_empty()
                && !finalizer.contains('/')
                && !["foregroundDeletion", "orphan", "kubernetes"].contains(finalizer)
        })
        .map(|(i, finalizer)| {
            FieldError::invalid(
                format!("metadata.finalizers[{i}]"),
                finalizer,
                "name is neither a standard finalizer name nor is it fully qualified",
            )
        })
        .collect()
}

fn strings(value: Option<&Value>) -> impl Iterator<Item = &str> {
    value
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

fn names(name: &str, generate_name: &str, label: bool, errors: &mut Vec<FieldError>) {
    if !generate_name.is_empty() {
        errors.extend(validate_name(generate_name, "generateName", label));
    }
    if name.is_empty() {
        errors.push(FieldError::required(
            "metadata.name",
            "name or generateName is required",
        ));
    } else {
        errors.extend(validate_name(name, "name", label));
    }
}

fn immutable(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    if old.get("deletionTimestamp").is_some_and(|t| !t.is_null()) {
        let before: Vec<&str> = strings(old.get("finalizers")).collect();
        let added: Vec<&str> = strings(new.get("finalizers")).filter(|f| !before.contains(f)).collect();
        if !added.is_empty() {
            let list = added.iter().map(|f| format!("\"{f}\"")).collect::<Vec<_>>().join(", ");
            errors.push(FieldError::forbidden(
                "metadata.finalizers",
                format!("no new finalizers can be added if the object is being deleted, found new finalizers []string{{{list}}}"),
            ));
        }
    }
    for field in ["name", "namespace", "uid", "creationTimestamp"] {
        let (now, before) = (new.get(field), old.get(field));
        if now != before {
            errors.push(FieldError::invalid(
                format!("metadata.{field}"),
                now.cloned().unwrap_or_default(),
                "field is immutable",
            ));
        }
    }
}

fn labels(meta: &Value, errors: &mut Vec<FieldError>) {
    for (key, value) in meta.get("labels").and_then(Value::as_object).into_iter().flatten() {
        errors.extend(
            qualified_name(key)
                .into_iter()
                .map(|m| FieldError::invalid("metadata.labels", key.as_str(), m)),
        );
        let value = value.as_str().unwrap_or_default();
        if value.len() > 63 {
            errors.push(FieldError::invalid(
                "metadata.labels",
                value,
                "must be no more than 63 bytes",
            ));
        }
        if !value.is_empty() && !is_label_word(value) {
            errors.push(FieldError::invalid("metadata.labels", value, LABEL_VALUE));
        }
    }
}

fn annotations(meta: &Value, errors: &mut Vec<FieldError>) {
    let mut size = 0;
    for (key, value) in meta.get("annotations").and_then(Value::as_object).into_iter().flatten() {
        let found = qualified_name(&key.to_lowercase());
        errors.extend(
            found
                .into_iter()
                .map(|m| FieldError::invalid("metadata.annotations", key.as_str(), m)),
        );
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size as u64 > MAX_ANNOTATIONS {
        errors.push(FieldError::too_long("metadata.annotations", MAX_ANNOTATIONS));
    }
}

fn owners(meta: &Value, errors: &mut Vec<FieldError>) {
    let mut controller: Option<String> = None;
    for (i, owner) in meta
        .get("ownerReferences")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .enumerate()
    {
        let text = |name: &str| owner.get(name).and_then(Value::as_str).unwrap_or_default();
        for field in ["apiVersion", "kind", "name", "uid"] {
            if text(field).is_empty() {
                errors.push(FieldError::required(
                    format!("metadata.ownerReferences[{i}].{field}"),
                    "must not be empty",
                ));
            }
        }
        if owner.get("controller").and_then(Value::as_bool) == Some(true) {
            let this = format!("{}/{}", text("kind"), text("name"));
            match &controller {
                Some(first) => errors.push(FieldError::invalid(
                    "metadata.ownerReferences",
                    meta["ownerReferences"].clone(),
                    format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                    ),
                )),
                None => controller = Some(this),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rendered(meta: Value) -> Vec<String> {
        validate_object_meta(&json!({ "metadata": meta }), None, false)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn accepts_usual_metadata() {
        assert!(
            rendered(json!({
                "name": "a.b-c", "labels": {"app.kubernetes.io/name": "x", "empty": ""},
                "annotations": {"Example.com/Key": "anything at all"}, "finalizers": ["example.com/f"],
                "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "1", "controller": true}],
            }))
            .is_empty()
        );
        assert!(validate_name("a-", "generateName", false).is_empty());
    }

    #[test]
    fn refuses_with_upstream_words() {
        let cases = [
            (
                json!({}),
                "metadata.name: Required value: name or generateName is required",
            ),
            (
                json!({"name": "A"}),
                r#"metadata.name: Invalid value: "A": a lowercase RFC 1123 subdomain must"#,
            ),
            (json!({"name": "a".repeat(254)}), "must be no more than 253 characters"),
            (
                json!({"name": "a", "labels": {"-x": "y"}}),
                r#"metadata.labels: Invalid value: "-x": name part must"#,
            ),
            (
                json!({"name": "a", "labels": {"x": "a b"}}),
                r#"metadata.labels: Invalid value: "a b": a valid label must"#,
            ),
            (
                json!({"name": "a", "labels": {"a/b/c": "x"}}),
                "a valid label key must consist",
            ),
            (
                json!({"name": "a", "annotations": {"k": "x".repeat(300_000)}}),
                "metadata.annotations: Too long: may not be more than 262144 bytes",
            ),
            (
                json!({"name": "a", "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p"}]}),
                "metadata.ownerReferences[0].uid: Required value: must not be empty",
            ),
        ];
        for (meta, expected) in cases {
            let found = rendered(meta.clone());
            assert!(found.iter().any(|f| f.contains(expected)), "{meta}: {found:?}");
        }
    }

    #[test]
    fn updates_keep_identity_and_take_no_new_finalizer_while_deleting() {
        let old = json!({"metadata": {"name": "a", "uid": "1", "deletionTimestamp": "2026-01-01T00:00:00Z"}});
        let new = json!({"metadata": {"name": "a", "uid": "2", "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["a/b"]}});
        let found: Vec<String> = validate_object_meta(&new, Some(&old), false)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            found,
            [
                r#"metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{"a/b"}"#,
                r#"metadata.uid: Invalid value: "2": field is immutable"#,
            ]
        );
    }

    #[test]
    fn only_the_core_group_wants_a_domain_in_every_finalizer() {
        let object = json!({"metadata": {"name": "a", "finalizers": ["x", "orphan", "a.io/b"]}});
        assert!(validate_object_meta(&object, None, false).is_empty());
        let found: Vec<String> = core_finalizers(&object).into_iter().map(|e| e.path).collect();
        assert_eq!(found, ["metadata.finalizers[0]"]);
    }
}
