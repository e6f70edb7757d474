//! The subset of Kubernetes' JSONPath that printer columns use: fields, quoted fields, indexes, `[*]` and equality
//! filters.

use serde_json::Value;

/// Returns the first value at a path. Returns `None` if there is none or the path is not supported.
pub(super) fn first<'a>(path: &str, root: &'a Value) -> Option<&'a Value> {
    let path = path
        .trim()
        .trim_start_matches('{')
        .trim_end_matches('}')
        .trim_start_matches('$');
    walk(path, vec![root]).into_iter().next()
}

fn walk<'a>(path: &str, mut found: Vec<&'a Value>) -> Vec<&'a Value> {
    let mut rest = path;
    while !rest.is_empty() && !found.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let Some(end) = closing(after) else { return Vec::new() };
            let (inner, tail) = (&after[..end], &after[end + 1..]);
            found = found
                .into_iter()
                .flat_map(|value| bracket(inner.trim(), value))
                .collect();
            rest = tail;
        } else {
            let (name, tail) = field(rest.strip_prefix('.').unwrap_or(rest));
            found = match name.as_str() {
                "" => found,
                "*" => found.into_iter().flat_map(children).collect(),
                name => found.into_iter().filter_map(|value| value.get(name)).collect(),
            };
            rest = tail;
        }
    }
    found
}

/// Parses a field name up to the next `.` or `[`. A backslash escapes the next character.
fn field(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((i, c)) = chars.next() {
        match c {
            '.' | '[' => return (name, &text[i..]),
            '\\' => name.extend(chars.next().map(|(_, c)| c)),
            c => name.push(c),
        }
    }
    (name, "")
}

/// Returns the position of the closing bracket, ignoring quoted ones.
fn closing(text: &str) -> Option<usize> {
    let (mut quote, mut depth) = (None, 0);
    for (i, c) in text.char_indices() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(i),
            (None, ']') => depth -= 1,
            _ => {}
        }
    }
    None
}

fn children(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().collect(),
        Value::Object(fields) => fields.values().collect(),
        _ => Vec::new(),
    }
}

fn bracket<'a>(inner: &str, value: &'a Value) -> Vec<&'a Value> {
    if inner == "*" {
        return children(value);
    }
    if let Some(filter) = inner.strip_prefix("?(").and_then(|f| f.strip_suffix(')')) {
        let Some((left, equal, right)) = filter
            .split_once("==")
            .map(|(l, r)| (l, true, r))
            .or_else(|| filter.split_once("!=").map(|(l, r)| (l, false, r)))
        else {
            return Vec::new();
        };
        let (left, right) = (left.trim().trim_start_matches('@'), unquoted(right.trim()));
        return children(value)
            .into_iter()
            .filter(|item| {
                let actual = walk(left, vec![item]).first().map(|v| match v {
                    Value::String(s) => s.clone(),
                    other => other.to_string(),
                });
                actual.is_some_and(|a| (a == right) == equal)
            })
            .collect();
    }
    if inner.starts_with(['\'', '"']) {
        return value.get(unquoted(inner)).into_iter().collect();
    }
    let Value::Array(items) = value else { return Vec::new() };
    match inner.parse::<isize>() {
        Ok(i) if i < 0 => items
            .len()
            .checked_add_signed(i)
            .and_then(|i| items.get(i))
            .into_iter()
            .collect(),
        Ok(i) => items.get(i.unsigned_abs()).into_iter().collect(),
        Err(_) => Vec::new(),
    }
}

fn unquoted(text: &str) -> &str {
    text.trim_matches(['\'', '"'])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths() {
        let object = json!({
            "a": {"b": [1, 2, {"c": "x"}], "d.e/f": "dotted"},
            "conditions": [{"type": "A", "status": "False"}, {"type": "Ready", "status": "True"}],
        });
        for (path, want) in [
            (".a.b[0]", Some(json!(1))),
            (".a.b[-1].c", Some(json!("x"))),
            (".a.b[*]", Some(json!(1))),
            (".a['d.e/f']", Some(json!("dotted"))),
            (".a.d\\.e/f", Some(json!("dotted"))),
            (".conditions[?(@.type==\"Ready\")].status", Some(json!("True"))),
            (".conditions[?(@.type=='Ready')].status", Some(json!("True"))),
            (".conditions[?(@.type!='A')].type", Some(json!("Ready"))),
            ("{.a.b[1]}", Some(json!(2))),
            (".missing.x", None),
            (".a.b[9]", None),
            (".a[", None),
        ] {
            assert_eq!(first(path, &object).cloned(), want, "{path}");
        }
    }
}
