//! The two forms of Events. Stored is the core form; `events.k8s.io/v1` is converted at the boundary.

use serde_json::{Map, Value, json};

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
