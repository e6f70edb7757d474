//! JSON Schemas of toolchains. They are compiled without a network, and they provide defaults.

use jsonschema::{Draft, PatternOptions, Retrieve, Uri, Validator};
use serde_json::{Map, Value};

/// A compiled schema.
pub struct Schema<'a> {
    validator: Validator,
    raw: &'a Value,
}

/// A part of a value that the schema does not accept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Path below the value, such as `a.b[0]`; empty for the value itself.
    pub path: String,
    /// What is wrong.
    pub message: String,
}

/// Maximum number of reported violations.
const MAX_VIOLATIONS: usize = 8;

/// Refuses every reference to another document: validation must not depend on a network.
struct NoReferences;

impl Retrieve for NoReferences {
    fn retrieve(&self, uri: &Uri<String>) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        Err(format!(
            "$ref to {uri:?} leaves the schema: only references below '#' are allowed",
            uri = uri.as_str()
        )
        .into())
    }
}

impl<'a> Schema<'a> {
    /// Compiles a schema. The draft is 2020-12 unless `$schema` names another.
    ///
    /// # Errors
    /// A message about the mistake in the schema.
    pub fn compile(raw: &'a Value) -> Result<Self, String> {
        if let Err(error) = jsonschema::meta::validate(raw) {
            let at = error.instance_path().to_string();
            return Err(format!("is not a JSON Schema: at {at:?}: {error}"));
        }
        jsonschema::options()
            .with_draft(Draft::Draft202012)
            .with_retriever(NoReferences)
            // Patterns take linear time. Look-around and back references are refused.
            .with_pattern_options(PatternOptions::regex())
            .build(raw)
            .map(|validator| Self { validator, raw })
            .map_err(|error| format!("is not a usable JSON Schema: {error}"))
    }

    /// Returns `value` with the defaults of the schema for missing fields.
    #[must_use]
    pub fn with_defaults(&self, value: &Map<String, Value>) -> Map<String, Value> {
        let mut value = Value::Object(value.clone());
        self.fill(self.raw, &mut value, 0);
        match value {
            Value::Object(fields) => fields,
            _ => Map::new(),
        }
    }

    fn fill(&self, schema: &Value, value: &mut Value, depth: usize) {
        // Schemas may refer to themselves. Values are not that deep.
        if depth > 32 {
            return;
        }
        if let Some(target) = schema
            .get("$ref")
            .and_then(Value::as_str)
            .and_then(|r| r.strip_prefix('#'))
            && let Some(target) = self.raw.pointer(target)
        {
            self.fill(target, value, depth + 1);
        }
        for part in schema.get("allOf").and_then(Value::as_array).into_iter().flatten() {
            self.fill(part, value, depth + 1);
        }
        match value {
            Value::Object(fields) => {
                for (name, property) in schema
                    .get("properties")
                    .and_then(Value::as_object)
                    .into_iter()
                    .flatten()
                {
                    if !fields.contains_key(name)
                        && let Some(default) = property.get("default")
                    {
                        fields.insert(name.clone(), default.clone());
                    }
                    if let Some(field) = fields.get_mut(name) {
                        self.fill(property, field, depth + 1);
                    }
                }
            }
            Value::Array(items) => {
                if let Some(inner) = schema.get("items") {
                    for item in items {
                        self.fill(inner, item, depth + 1);
                    }
                }
            }
            _ => {}
        }
    }

    /// Returns the violations of the schema in `value`.
    #[must_use]
    pub fn violations(&self, value: &Value) -> Vec<Violation> {
        self.validator
            .iter_errors(value)
            .take(MAX_VIOLATIONS)
            .map(|error| Violation {
                path: dotted(&error.instance_path().to_string()),
                message: error.to_string(),
            })
            .collect()
    }
}

/// Converts `/a/b/0` to `a.b[0]`, the form of Kubernetes field paths.
fn dotted(pointer: &str) -> String {
    let mut out = String::new();
    for part in pointer.split('/').skip(1) {
        let part = part.replace("~1", "/").replace("~0", "~");
        if !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) {
            out.push('[');
            out.push_str(&part);
            out.push(']');
        } else {
            if !out.is_empty() {
                out.push('.');
            }
            out.push_str(&part);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_reach_every_depth_and_do_not_overwrite() {
        let raw = json!({
            "properties": {
                "a": {"default": 1},
                "b": {"type": "object", "default": {}, "properties": {"c": {"default": "x"}}},
                "l": {"items": {"$ref": "#/$defs/item"}},
            },
            "$defs": {"item": {"properties": {"n": {"default": 0}, "next": {"$ref": "#/$defs/item"}}}},
        });
        let schema = Schema::compile(&raw).unwrap();
        let given = json!({"a": 2, "l": [{"next": {}}]});
        let filled = schema.with_defaults(given.as_object().unwrap());
        assert_eq!(
            Value::Object(filled),
            json!({"a": 2, "b": {"c": "x"}, "l": [{"n": 0, "next": {"n": 0}}]})
        );
    }

    #[test]
    fn a_schema_that_refers_to_itself_ends() {
        for raw in [
            json!({"$ref": "#/$defs/x", "$defs": {"x": {"$ref": "#/$defs/x"}}}),
            json!({"$ref": "#/$defs/x", "$defs": {"x": {"allOf": [{"$ref": "#/$defs/x"}]}}}),
        ] {
            let schema = Schema::compile(&raw).unwrap();
            assert_eq!(schema.with_defaults(&Map::new()), Map::new(), "{raw}");
        }
    }

    /// Each property, reference, part and item is a step, and the last defaults come after 32 steps.
    #[test]
    fn defaults_end_after_32_steps_into_the_schema() {
        for (property, levels) in [
            (json!({"default": {}, "$ref": "#"}), 17),
            (json!({"default": {}, "allOf": [{"$ref": "#"}]}), 11),
            (json!({"default": [{}], "items": {"$ref": "#"}}), 11),
        ] {
            let raw = json!({"properties": {"a": property}});
            let schema = Schema::compile(&raw).unwrap();
            let mut value = &Value::Object(schema.with_defaults(&Map::new()));
            let mut depth = 0;
            while let Some(inner) = value.get("a") {
                (value, depth) = (inner.get(0).unwrap_or(inner), depth + 1);
            }
            assert_eq!(depth, levels, "{raw}");
        }
    }

    #[test]
    fn references_to_other_documents_are_refused() {
        for reference in ["https://example.com/schema.json", "file:///etc/passwd", "other.json"] {
            let raw = json!({"properties": {"a": {"$ref": reference}}});
            let error = Schema::compile(&raw).err().unwrap();
            assert!(
                error.contains("leaves the schema") || error.contains(reference),
                "{error}"
            );
        }
        assert!(Schema::compile(&json!({"$defs": {"x": {}}, "$ref": "#/$defs/x"})).is_ok());
    }

    #[test]
    fn an_invalid_schema_names_the_place() {
        for (raw, expected) in [
            (json!({"type": "strin"}), "/type"),
            (json!({"properties": {"a": {"minimum": "1"}}}), "/properties/a/minimum"),
            (json!({"pattern": "("}), "pattern"),
            (json!({"pattern": "(?=a)b"}), "pattern"),
        ] {
            let error = Schema::compile(&raw).err().unwrap_or_else(|| panic!("{raw} compiled"));
            assert!(error.contains(expected) || error.contains("regex"), "{raw}: {error}");
        }
    }

    #[test]
    fn violations_name_the_place() {
        let raw = json!({"properties": {"a": {"items": {"type": "integer"}}}, "additionalProperties": false});
        let schema = Schema::compile(&raw).unwrap();
        let found = schema.violations(&json!({"a": [1, "x"], "b": 1}));
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(
            found.iter().any(|v| v.path == "a[1]" && v.message.contains("integer")),
            "{found:?}"
        );
        assert!(
            found.iter().any(|v| v.path.is_empty() && v.message.contains('b')),
            "{found:?}"
        );
    }
}
