//! `meta.k8s.io/v1 Table`: the output of `kubectl get`.

mod builtin;
mod jsonpath;

use std::borrow::Cow;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{meta, negotiate};
use crate::resource::{PrinterColumn, ResourceInfo};

/// The part of each object that its row contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IncludeObject {
    None,
    Metadata,
    Object,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct TableOptions {
    /// The reference time for ages.
    pub(super) now: Timestamp,
    pub(super) include: IncludeObject,
}

/// Returns objects as a table.
pub(super) fn table<'a>(
    info: &ResourceInfo,
    objects: impl IntoIterator<Item = &'a Value>,
    metadata: Value,
    options: TableOptions,
) -> Value {
    let custom;
    let columns: Vec<Value> = if info.custom {
        custom = info.printer_columns.as_slice();
        std::iter::once(definition("Name", "string", "name", "Name of the object", 0))
            .chain(
                custom
                    .iter()
                    .map(|c| definition(&c.name, &c.type_, &c.format, &description(c), c.priority)),
            )
            .collect()
    } else {
        custom = &[];
        builtin::columns(info)
            .iter()
            .map(|(name, type_, priority)| {
                let format = if *name == "Name" { "name" } else { "" };
                definition(name, type_, format, "", *priority)
            })
            .collect()
    };
    let rows: Vec<Value> = objects
        .into_iter()
        .map(|object| {
            let cells = if info.custom {
                std::iter::once(json!(meta::name(object)))
                    .chain(custom.iter().map(|column| cell(column, object, options.now)))
                    .collect()
            } else {
                builtin::cells(info, object, options.now)
            };
            let mut row = json!({"cells": cells});
            match options.include {
                IncludeObject::None => row["object"] = Value::Null,
                IncludeObject::Metadata => row["object"] = negotiate::partial(object),
                IncludeObject::Object => row["object"] = object.clone(),
            }
            row
        })
        .collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": columns, "rows": rows,
    })
}

fn definition(name: &str, type_: &str, format: &str, description: &str, priority: i32) -> Value {
    json!({"name": name, "type": type_, "format": format, "description": description, "priority": priority})
}

/// Returns the description of a CRD's column, or its source by default.
fn description(column: &PrinterColumn) -> Cow<'_, str> {
    if column.description.is_empty() {
        format!(
            "Custom resource definition column (in JSONPath format): {}",
            column.json_path
        )
        .into()
    } else {
        column.description.as_str().into()
    }
}

/// Returns a cell of a CRD's column. It is null if there is no value.
fn cell(column: &PrinterColumn, object: &Value, now: Timestamp) -> Value {
    let Some(value) = jsonpath::first(&column.json_path, object) else {
        return Value::Null;
    };
    match (column.type_.as_str(), value) {
        (_, Value::Null) => Value::Null,
        ("integer", Value::Number(n)) => match (n.as_i64(), n.as_f64()) {
            (Some(n), _) => json!(n),
            // A number in an integer column is truncated, as in Kubernetes.
            (None, Some(n)) => json!(n as i64),
            (None, None) => Value::Null,
        },
        ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => value.clone(),
        ("date", Value::String(time)) => json!(age(time, now)),
        ("string", Value::String(_)) => value.clone(),
        ("string", other) => json!(other.to_string()),
        _ => Value::Null,
    }
}

/// Returns the age of a timestamp in kubectl's format.
fn age(time: &str, now: Timestamp) -> String {
    match time.parse::<Timestamp>() {
        Ok(time) => human_duration(now.as_second() - time.as_second()),
        Err(_) if time.is_empty() => "<unknown>".to_owned(),
        Err(_) => "<invalid>".to_owned(),
    }
}

/// Formats seconds in at most two units, like Kubernetes' `duration.HumanDuration`.
fn human_duration(seconds: i64) -> String {
    let two = |major: i64, unit: &str, minor: i64, minor_unit: &str| {
        if minor == 0 {
            format!("{major}{unit}")
        } else {
            format!("{major}{unit}{minor}{minor_unit}")
        }
    };
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let (days, years) = (hours / 24, hours / 24 / 365);
    match seconds {
        i64::MIN..-1 => "<invalid>".to_owned(),
        -1..0 => "0s".to_owned(),
        _ if seconds < 120 => format!("{seconds}s"),
        _ if minutes < 10 => two(minutes, "m", seconds % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => two(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 24 * 8 => two(days, "d", hours % 24, "h"),
        _ if days < 365 * 2 => format!("{days}d"),
        _ if days < 365 * 8 => two(years, "y", days % 365, "d"),
        _ => format!("{years}y"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_in_kubectl() {
        for (seconds, text) in [
            (-5, "<invalid>"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (135, "2m15s"),
            (601, "10m"),
            (3 * 3600, "3h"),
            (3 * 3600 + 60, "3h1m"),
            (47 * 3600, "47h"),
            (50 * 3600, "2d2h"),
            (30 * 86400, "30d"),
            (3 * 365 * 86400 + 86400, "3y1d"),
        ] {
            assert_eq!(human_duration(seconds), text);
        }
    }

    #[test]
    fn cells_have_their_column_s_type() {
        let now: Timestamp = "2026-01-01T00:10:00Z".parse().unwrap();
        let object = json!({"n": 3, "s": "x", "t": "2026-01-01T00:00:00Z", "b": true, "l": [1]});
        let cell = |type_: &str, path: &str| {
            let column = PrinterColumn {
                name: "c".into(),
                type_: type_.into(),
                format: String::new(),
                description: String::new(),
                priority: 0,
                json_path: path.into(),
            };
            super::cell(&column, &object, now)
        };
        assert_eq!(cell("integer", ".n"), json!(3));
        assert_eq!(cell("string", ".s"), json!("x"));
        assert_eq!(cell("string", ".l"), json!("[1]"));
        assert_eq!(cell("boolean", ".b"), json!(true));
        assert_eq!(cell("date", ".t"), json!("10m"));
        assert_eq!(cell("integer", ".s"), Value::Null);
        assert_eq!(cell("string", ".missing"), Value::Null);
    }
}
