//! Names and paths of fields in CEL rules.

use serde_json::Value;

const RESERVED: [&str; 18] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
];

/// Returns a field's name as a CEL identifier.
pub(super) fn escape(name: &str) -> String {
    if RESERVED.contains(&name) {
        return format!("__{name}__");
    }
    if !name.contains("__") && !name.contains(['.', '-', '/']) {
        return name.to_owned();
    }
    name.replace("__", "__underscores__")
        .replace('.', "__dot__")
        .replace('-', "__dash__")
        .replace('/', "__slash__")
}

/// Returns a rule's `fieldPath` (`.a.b` or `.a['b']`) as the text that follows a path.
pub(super) fn normal_field_path(path: &str) -> Option<String> {
    let mut out = String::new();
    for segment in field_path_segments(path)? {
        out.push('.');
        out.push_str(&segment);
    }
    Some(out)
}

/// Returns whether a rule's `fieldPath` names a field of the schema.
pub(super) fn field_path_exists(schema: &Value, path: &str) -> bool {
    let Some(segments) = field_path_segments(path) else {
        return false;
    };
    let mut current = schema;
    for segment in segments {
        current = match current.get("properties") {
            Some(properties) => match properties.get(&segment) {
                Some(next) => next,
                None => return false,
            },
            None => match current.get("additionalProperties").filter(|a| a.is_object()) {
                Some(next) => next,
                None => return false,
            },
        };
    }
    true
}

fn field_path_segments(path: &str) -> Option<Vec<String>> {
    let mut segments = Vec::new();
    let mut rest = path.trim();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("['") {
            let end = after.find("']")?;
            segments.push(after[..end].replace("\\'", "'"));
            rest = &after[end + 2..];
        } else {
            let after = rest.strip_prefix('.')?;
            let end = after.find(['.', '[']).unwrap_or(after.len());
            if end == 0 {
                return None;
            }
            segments.push(after[..end].to_owned());
            rest = &after[end..];
        }
    }
    (!segments.is_empty()).then_some(segments)
}
