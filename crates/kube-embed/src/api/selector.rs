//! Label and field selectors.

use serde_json::Value;

use super::meta;
use crate::resource::ResourceInfo;
use crate::status::ApiError;

/// What a label must be.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Requirement {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Missing,
    Greater(i64),
    Less(i64),
}

/// Which objects a request is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Selector {
    labels: Vec<(String, Requirement)>,
    /// Path, value, whether it must be equal.
    fields: Vec<(Vec<String>, String, bool)>,
}

impl Selector {
    pub(super) fn parse(resource: &ResourceInfo, labels: Option<&str>, fields: Option<&str>) -> Result<Self, ApiError> {
        Ok(Self {
            labels: labels.map(parse_labels).transpose()?.unwrap_or_default(),
            fields: fields
                .map(|f| parse_fields(resource, f))
                .transpose()?
                .unwrap_or_default(),
        })
    }

    /// Whether every object is selected.
    pub(super) fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether an object (as it is served) is selected.
    pub(super) fn matches(&self, object: &Value) -> bool {
        let labels = meta::at(object, &["metadata", "labels"]);
        self.labels.iter().all(|(key, requirement)| {
            let value = labels.and_then(|l| l.get(key)).and_then(Value::as_str);
            match requirement {
                Requirement::In(values) => value.is_some_and(|v| values.iter().any(|w| w == v)),
                Requirement::NotIn(values) => value.is_none_or(|v| values.iter().all(|w| w != v)),
                Requirement::Exists => value.is_some(),
                Requirement::Missing => value.is_none(),
                Requirement::Greater(n) => value.and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v > *n),
                Requirement::Less(n) => value.and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v < *n),
            }
        }) && self
            .fields
            .iter()
            .all(|(path, value, equal)| (field(object, path) == *value) == *equal)
    }
}

/// A field as a selector compares it.
fn field(object: &Value, path: &[String]) -> String {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    match (meta::at(object, &path), path.as_slice()) {
        (Some(Value::String(s)), _) => s.clone(),
        // An event's source is an object; selectors mean its component.
        (Some(Value::Object(source)), ["source"]) => source
            .get("component")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned(),
        (Some(other), _) => other.to_string(),
        (None, ["spec", "hostNetwork" | "unschedulable"]) => "false".to_owned(),
        (None, _) => String::new(),
    }
}

fn parse_fields(resource: &ResourceInfo, text: &str) -> Result<Vec<(Vec<String>, String, bool)>, ApiError> {
    let mut out = Vec::new();
    for term in split_unescaped(text).into_iter().filter(|t| !t.is_empty()) {
        let (path, value, equal) = if let Some((p, v)) = term.split_once("!=") {
            (p, v, false)
        } else if let Some((p, v)) = term.split_once("==").or_else(|| term.split_once('=')) {
            (p, v, true)
        } else {
            return Err(ApiError::bad_request(format!(
                "invalid selector: {text:?}; can't understand {term:?}"
            )));
        };
        let known = path == "metadata.name"
            || (path == "metadata.namespace" && resource.namespaced)
            || resource.selectable_fields.iter().any(|f| f == path);
        if !known {
            return Err(ApiError::bad_request(format!("field label not supported: {path}")));
        }
        out.push((path.split('.').map(str::to_owned).collect(), unescape(value), equal));
    }
    Ok(out)
}

fn split_unescaped(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn unescape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        out.push(if c == '\\' { chars.next().unwrap_or('\\') } else { c });
    }
    out
}

/// Label selectors: `a=b`, `a==b`, `a!=b`, `a in (b,c)`, `a notin (b)`, `a`, `!a`, `a>1`, `a<1`, joined by commas.
fn parse_labels(text: &str) -> Result<Vec<(String, Requirement)>, ApiError> {
    let fail = |what: &str| {
        ApiError::bad_request(format!(
            "unable to parse requirement: {what} in label selector {text:?}"
        ))
    };
    let mut out = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let negated = rest.starts_with('!');
        rest = rest.trim_start_matches('!').trim_start();
        let (key, after) = word(rest);
        if key.is_empty() {
            return Err(fail("a label key is missing"));
        }
        rest = after.trim_start();
        let requirement = if negated {
            Requirement::Missing
        } else if rest.is_empty() || rest.starts_with(',') {
            Requirement::Exists
        } else if let Some((operator, after)) = ["!=", "==", "=", ">", "<"]
            .iter()
            .find_map(|o| rest.strip_prefix(o).map(|after| (*o, after)))
        {
            let (value, after) = word(after.trim_start());
            rest = after.trim_start();
            let number = || {
                value
                    .parse()
                    .map_err(|_| fail(&format!("{value:?} is no whole number")))
            };
            match operator {
                "!=" => Requirement::NotIn(vec![value.into()]),
                ">" => Requirement::Greater(number()?),
                "<" => Requirement::Less(number()?),
                _ => Requirement::In(vec![value.into()]),
            }
        } else {
            let (operator, after) = word(rest);
            let (list, after) = after
                .trim_start()
                .strip_prefix('(')
                .and_then(|l| l.split_once(')'))
                .ok_or_else(|| fail(&format!("{operator:?} needs values in parentheses")))?;
            rest = after.trim_start();
            let values = list.split(',').map(|v| v.trim().to_owned()).collect();
            match operator {
                "in" => Requirement::In(values),
                "notin" => Requirement::NotIn(values),
                _ => return Err(fail(&format!("{operator:?} is no operator"))),
            }
        };
        out.push((key.to_owned(), requirement));
        rest = match rest.strip_prefix(',') {
            Some(after) => after.trim_start(),
            None if rest.is_empty() => rest,
            None => return Err(fail(&format!("a comma is missing before {rest:?}"))),
        };
    }
    Ok(out)
}

fn word(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || "-_./".contains(c)))
        .unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pods() -> ResourceInfo {
        crate::resource::built_ins()
            .into_iter()
            .find(|r| r.kind == "Pod")
            .unwrap()
    }

    #[test]
    fn labels() {
        let object = json!({"metadata": {"labels": {"app": "a", "tier": "web", "n": "5", "x.io/y": ""}}});
        for (selector, matches) in [
            ("app=a", true),
            ("app==a,tier=web", true),
            ("app!=a", false),
            ("missing!=a", true),
            ("app in (b, a)", true),
            ("app notin (b,c), tier", true),
            ("!tier", false),
            ("!missing", true),
            ("n>4,n<6", true),
            ("n>5", false),
            ("x.io/y=", true),
            ("x.io/y", true),
            ("missing in (a)", false),
        ] {
            let parsed = Selector::parse(&pods(), Some(selector), None).unwrap();
            assert_eq!(parsed.matches(&object), matches, "{selector}");
        }
        for bad in ["app=a tier=b", "=a", "app in a", "app within (a)", "n>x"] {
            let error = Selector::parse(&pods(), Some(bad), None).unwrap_err();
            assert_eq!((error.code, error.reason), (400, "BadRequest"), "{bad}");
        }
    }

    #[test]
    fn fields() {
        let object = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n"}, "status": {"phase": "Running"}});
        for (selector, matches) in [
            ("metadata.name=p", true),
            ("spec.nodeName!=n", false),
            ("spec.nodeName=", false),
            ("status.phase=Running,spec.nodeName==n", true),
            ("spec.hostNetwork=false", true),
        ] {
            let parsed = Selector::parse(&pods(), None, Some(selector)).unwrap();
            assert_eq!(parsed.matches(&object), matches, "{selector}");
        }
        let error = Selector::parse(&pods(), None, Some("spec.other=1")).unwrap_err();
        assert_eq!(error.message, "field label not supported: spec.other");
    }
}
