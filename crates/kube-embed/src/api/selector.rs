//! Label and field selectors.

use serde_json::Value;

use super::meta;
use crate::resource::ResourceInfo;
use crate::schema::FieldError;
use crate::schema::builtin::{label_key, label_value};
use crate::status::ApiError;

/// A requirement of a label selector.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Requirement {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Missing,
    Greater(i64),
    Less(i64),
}

/// A label and field selector.
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

    /// Returns whether the selector matches every object.
    pub(super) fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Returns whether the selector matches an object in its served form.
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

/// Returns a field in the form that a selector compares.
fn field(object: &Value, path: &[String]) -> String {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    match (meta::at(object, &path), path.as_slice()) {
        (Some(Value::String(s)), _) => s.clone(),
        // An event's source is an object. Selectors compare its component.
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
                "invalid selector: '{text}'; can't understand '{term}'"
            )));
        };
        let known = path == "metadata.name"
            || (path == "metadata.namespace" && resource.namespaced)
            || resource.selectable_fields.iter().any(|f| f == path);
        if !known {
            return Err(ApiError::bad_request(
                if resource.selectable_fields.is_empty() && !resource.custom {
                    format!("{path:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
                } else {
                    format!("field label not supported: {path}")
                },
            ));
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

/// Parses label selectors: `a=b`, `a==b`, `a!=b`, `a in (b,c)`, `a notin (b)`, `a`, `!a`, `a>1`, `a<1`, joined by
/// commas.
fn parse_labels(text: &str) -> Result<Vec<(String, Requirement)>, ApiError> {
    let mut parser = Parser {
        tokens: tokens(text),
        next: 0,
    };
    parser.requirements().map_err(ApiError::bad_request)
}

/// A token of a label selector. It is empty at the end.
type Token<'a> = &'a str;

const SYMBOLS: [&str; 9] = ["==", "!=", "=", "!", "(", ")", ",", ">", "<"];

fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut out = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let length = SYMBOLS.iter().find(|s| rest.starts_with(**s)).map_or_else(
            || {
                rest.find(|c: char| c.is_whitespace() || "=!(),><".contains(c))
                    .unwrap_or(rest.len())
            },
            |symbol| symbol.len(),
        );
        let (token, after) = rest.split_at(length);
        out.push(token);
        rest = after.trim_start();
    }
    out
}

/// Parses a label selector. Its errors use Kubernetes' words.
struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    next: usize,
}

impl<'a> Parser<'a> {
    fn look(&self) -> Token<'a> {
        self.tokens.get(self.next).copied().unwrap_or_default()
    }

    fn take(&mut self) -> Token<'a> {
        let token = self.look();
        self.next += 1;
        token
    }

    fn is_word(token: Token<'_>) -> bool {
        !token.is_empty() && !SYMBOLS.contains(&token)
    }

    fn word(&mut self) -> Result<Token<'a>, String> {
        match self.take() {
            word if Self::is_word(word) => Ok(word),
            other => Err(format!("found '{other}', expected: identifier")),
        }
    }

    fn requirements(&mut self) -> Result<Vec<(String, Requirement)>, String> {
        let begins = |token: Token<'_>| token == "!" || Self::is_word(token);
        let mut out = Vec::new();
        match self.look() {
            "" => return Ok(out),
            first if begins(first) => {}
            other => return Err(format!("found '{other}', expected: !, identifier, or 'end of string'")),
        }
        loop {
            let requirement = self.requirement();
            out.push(requirement.map_err(|why| format!("unable to parse requirement: {why}"))?);
            match self.take() {
                "" => return Ok(out),
                "," if begins(self.look()) => {}
                "," => return Err(format!("found '{}', expected: identifier after ','", self.look())),
                other => return Err(format!("found '{other}', expected: ',' or 'end of string'")),
            }
        }
    }

    fn requirement(&mut self) -> Result<(String, Requirement), String> {
        let negated = self.look() == "!";
        if negated {
            self.take();
        }
        let key = self.word()?;
        if let Some(why) = label_key(key).into_iter().next() {
            return Err(FieldError::invalid("<nil>", key, why).to_string());
        }
        if negated {
            return Ok((key.to_owned(), Requirement::Missing));
        }
        if matches!(self.look(), "" | ",") {
            return Ok((key.to_owned(), Requirement::Exists));
        }
        let operator = self.take();
        let values = match operator {
            "in" | "notin" => self.values()?,
            "=" | "==" | "!=" | ">" | "<" => match self.look() {
                "" | "," => vec![String::new()],
                _ => vec![self.word()?.to_owned()],
            },
            other => return Err(format!("found '{other}', expected: in, notin, =, ==, !=, gt, lt")),
        };
        let number = || {
            let value = values.first().map(String::as_str).unwrap_or_default();
            value.parse().map_err(|_| {
                let rule = "for 'Gt', 'Lt' operators, the value must be an integer";
                FieldError::invalid("values[0]", value, rule).to_string()
            })
        };
        let requirement = match operator {
            ">" => Requirement::Greater(number()?),
            "<" => Requirement::Less(number()?),
            _ => {
                for (i, value) in values.iter().enumerate() {
                    if let Some(why) = label_value(value).into_iter().next() {
                        let path = format!("values[{i}][{key}]");
                        return Err(FieldError::invalid(path, value.as_str(), why).to_string());
                    }
                }
                if matches!(operator, "!=" | "notin") {
                    Requirement::NotIn(values)
                } else {
                    Requirement::In(values)
                }
            }
        };
        Ok((key.to_owned(), requirement))
    }

    /// Parses `(a, b)`. Nothing between two commas is the empty value.
    fn values(&mut self) -> Result<Vec<String>, String> {
        match self.take() {
            "(" => {}
            other => return Err(format!("found '{other}' expected: '('")),
        }
        let mut values = Vec::new();
        loop {
            match self.look() {
                "," | ")" => values.push(String::new()),
                word if Self::is_word(word) => {
                    self.take();
                    values.push(word.to_owned());
                }
                other => return Err(format!("found '{other}', expected: ',', ')' or identifier")),
            }
            match self.take() {
                ")" => return Ok(values),
                "," => {}
                other => return Err(format!("found '{other}', expected: ',' or ')'")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
