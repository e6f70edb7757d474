//! The two forms of Events. The core form is stored. `events.k8s.io/v1` is converted at the API's boundary.

use serde_json::{Map, Value, json};

use super::meta;
use crate::schema::FieldError;

/// The maximum length of an event's note.
const NOTE_LIMIT: usize = 1024;

/// Core name, `events.k8s.io` name.
const RENAMED: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

/// From `v1` to `events.k8s.io/v1`.
pub(super) fn to_new(core: &Value) -> Value {
    convert(core, "events.k8s.io/v1", |field| {
        RENAMED
            .iter()
            .find(|(core, _)| *core == field)
            .map_or(field, |(_, new)| new)
    })
}

/// From `events.k8s.io/v1` to `v1`.
pub(super) fn to_core(new: &Value) -> Value {
    convert(new, "v1", |field| {
        RENAMED
            .iter()
            .find(|(_, new)| *new == field)
            .map_or(field, |(core, _)| core)
    })
}

/// Validates an event of `events.k8s.io` beyond its schema. Kubernetes does not apply these rules to core events.
pub(super) fn check(event: &Value, old: Option<&Value>) -> Vec<FieldError> {
    if old.is_some() {
        return Vec::new();
    }
    let text = |field: &str| meta::text(event, &[field]);
    let mut errors = Vec::new();
    if text("eventTime").is_empty() {
        errors.push(FieldError::required("eventTime", ""));
    } else {
        for (field, limit) in [
            ("reportingController", None),
            ("reportingInstance", Some(128)),
            ("action", Some(128)),
            ("reason", Some(128)),
        ] {
            let value = text(field);
            if value.is_empty() {
                errors.push(FieldError::required(field, ""));
            } else if let Some(limit) = limit.filter(|l| value.len() > *l) {
                errors.push(FieldError::invalid(
                    field,
                    "",
                    format!("can have at most {limit} characters"),
                ));
            }
        }
        if text("note").len() > NOTE_LIMIT {
            let rule = format!("can have at most {NOTE_LIMIT} characters");
            errors.push(FieldError::invalid("note", "", rule));
        }
    }
    if !matches!(text("type"), "Normal" | "Warning") {
        errors.push(FieldError::invalid(
            "type",
            "",
            format!("has invalid value: {}", text("type")),
        ));
    }
    errors
}

fn convert<'a>(event: &'a Value, api_version: &str, rename: impl Fn(&'a str) -> &'a str) -> Value {
    let mut out: Map<String, Value> = event
        .as_object()
        .into_iter()
        .flatten()
        .map(|(field, value)| (rename(field).to_owned(), value.clone()))
        .collect();
    out.insert("apiVersion".into(), json!(api_version));
    Value::Object(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let core = json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "reason": "R", "type": "Normal",
            "involvedObject": {"kind": "Pod", "name": "p"}, "message": "m", "count": 2, "source": {"component": "c"},
        });
        let new = to_new(&core);
        assert_eq!(new["regarding"]["name"], "p");
        assert_eq!(new["note"], "m");
        assert_eq!(new["deprecatedCount"], 2);
        assert!(new.get("message").is_none());
        assert_eq!(to_core(&new), core);
    }
}
