//! A JSON document as a list of lines, `PATH=JSON`. `kubectl describe` shows such a list line by line. A document in
//! one string would be one long line there.
//!
//! A path has the names of nested fields, with dots between them. Arrays, empty objects and objects with a name that is
//! no plain word are not divided. So every path has one meaning, and nothing is lost. A merge patch replaces a list as
//! a whole, and therefore keeps a null.

use serde_json::{Map, Value};

/// Returns the lines of a document.
pub(crate) fn to_lines(document: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    add_lines(document, String::new(), &mut lines);
    lines
}

fn add_lines(value: &Value, path: String, lines: &mut Vec<String>) {
    let fields = value.as_object().filter(|fields| is_divided(fields));
    let Some(fields) = fields else {
        lines.push(format!("{path}={value}"));
        return;
    };
    for (name, value) in fields {
        let path = match path.as_str() {
            "" => name.clone(),
            above => format!("{above}.{name}"),
        };
        add_lines(value, path, lines);
    }
}

fn is_divided(fields: &Map<String, Value>) -> bool {
    let is_plain = |name: &String| {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        !name.is_empty() && name.chars().all(plain)
    };
    !fields.is_empty() && fields.keys().all(is_plain)
}

/// Returns the document with these lines, or `None` if they are not lines of a document.
pub(crate) fn from_lines(lines: &[String]) -> Option<Value> {
    let mut document = Value::Null;
    for line in lines {
        let (path, value) = line.split_once('=')?;
        let mut place = &mut document;
        for name in path.split('.').filter(|name| !name.is_empty()) {
            if place.is_null() {
                *place = Value::Object(Map::new());
            }
            place = place.as_object_mut()?.entry(name).or_insert(Value::Null);
        }
        *place = serde_json::from_str(value).ok()?;
    }
    Some(document)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_document_is_read_back_as_it_was() {
        for document in [
            json!(null),
            json!({}),
            json!([]),
            json!("a=b"),
            json!({"a": null}),
            json!({"a": {}}),
            json!({"a": {"b": null, "c": [1, {"d": null}], "e": 0.1, "f": -0.0, "g": u64::MAX}}),
            json!({"a": {"b.c": 1, "d": 2}, "e": {"": 1}, "f": {"g=h": 1}, "i": {"j\nk": "l\nm"}}),
            json!({"a": {"b": {"c": {"d": "=", "é": "."}}}, "1": {"2": true}}),
            json!({"": 1}),
            json!({"a.b": {"c": 1}}),
        ] {
            let lines = to_lines(&document);
            assert_eq!(from_lines(&lines).as_ref(), Some(&document), "{lines:#?}");
            assert!(lines.iter().all(|line| !line.contains('\n')), "{lines:#?}");
        }
    }

    #[test]
    fn fields_are_divided_as_far_as_their_paths_are_clear() {
        let document =
            json!({"tool": {"name": "mlflow", "command": ["a", "b"], "env": {"a.b": {"c": 1}}}, "version": 1});
        assert_eq!(
            to_lines(&document),
            [
                r#"tool.command=["a","b"]"#,
                r#"tool.env={"a.b":{"c":1}}"#,
                r#"tool.name="mlflow""#,
                "version=1",
            ]
        );
    }

    #[test]
    fn other_lines_are_no_document() {
        for lines in [&["a"][..], &["a=b"], &["a=1", "a.b=2"], &["a=[]", "a.b=2"]] {
            let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
            assert_eq!(from_lines(&lines), None, "{lines:?}");
        }
        assert_eq!(from_lines(&[]), Some(Value::Null));
    }
}
