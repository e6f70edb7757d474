//! Normalizes responses: replaces times, uids, resource versions and generated names, which differ between runs.

use std::collections::HashMap;

use regex::Regex;
use serde_json::Value;

/// The values of one case so far. Each uid, version and name always has the same replacement.
pub(crate) struct Normal {
    namespace: String,
    uids: Vec<String>,
    versions: Vec<String>,
    names: HashMap<String, String>,
    time: Regex,
    uid: Regex,
    age: Regex,
    token: Regex,
    number_in_message: Regex,
    /// The location of a Go source in a message.
    of_go: Regex,
    /// A whole object in a message. The order of its fields is undefined.
    in_patch: Regex,
}

impl Normal {
    pub(crate) fn new(namespace: &str) -> Self {
        let regex = |text| Regex::new(text).unwrap();
        Self {
            namespace: namespace.to_owned(),
            uids: Vec::new(),
            versions: Vec::new(),
            names: HashMap::new(),
            time: regex(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)"),
            uid: regex(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"),
            age: regex(r"^(\d+s|0s|<invalid>|\d+m(\d+s)?)$"),
            token: regex(r"\bkube-api-access-[a-z0-9]{5}\b"),
            number_in_message: regex(r"((?i:resource ?version)[^:]*: |current: |\()\d+\b"),
            of_go: regex(r#" in scheme "[^"]*""#),
            in_patch: regex(r#"(patch: Invalid value: ").*(": )"#),
        }
    }

    /// Registers a name that the server generated.
    pub(crate) fn generated(&mut self, prefix: &str, name: &str) {
        let length = name.len().saturating_sub(prefix.len());
        self.names
            .insert(name.to_owned(), format!("{prefix}<{length} characters>"));
    }

    pub(crate) fn value(&mut self, value: &Value) -> Value {
        let list = value["kind"]
            .as_str()
            .is_some_and(|kind| kind.ends_with("List") || kind == "Table");
        self.walk(value, list)
    }

    fn walk(&mut self, value: &Value, list: bool) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(text)),
            Value::Array(items) => Value::Array(items.iter().map(|v| self.walk(v, false)).collect()),
            Value::Object(fields) => {
                let mut out = serde_json::Map::new();
                for (name, value) in fields {
                    let shown = match (name.as_str(), value) {
                        ("resourceVersion", Value::String(v)) if list => {
                            Value::from(if v.is_empty() { "" } else { "<version>" })
                        }
                        ("continue", Value::String(v)) if !v.is_empty() => Value::from("<token>"),
                        ("resourceVersion", Value::String(v)) if !v.is_empty() && v != "0" => self.version(v),
                        ("metadata", Value::Object(_)) => self.walk(value, list),
                        ("managedFields", Value::Array(_)) => sorted(self.walk(value, false)),
                        ("message", Value::String(v)) => {
                            let text = self.text(v);
                            let text = self.number_in_message.replace_all(&text, "$1<n>");
                            let text = self.of_go.replace_all(&text, "");
                            Value::String(self.in_patch.replace_all(&text, "$1<object>$2").into_owned())
                        }
                        _ => self.walk(value, false),
                    };
                    out.insert(self.text(name), shown);
                }
                Value::Object(out)
            }
            other => other.clone(),
        }
    }

    fn version(&mut self, version: &str) -> Value {
        Value::String(format!("<version {}>", number(&mut self.versions, version)))
    }

    pub(crate) fn text(&mut self, text: &str) -> String {
        let mut text = text.replace(&self.namespace, "NS");
        for (name, shown) in &self.names {
            if text.contains(name.as_str()) {
                text = text.replace(name.as_str(), shown);
            }
        }
        if self.age.is_match(&text) {
            return "<age>".into();
        }
        let text = self.time.replace_all(&text, |found: &regex::Captures<'_>| {
            if found.get(1).is_some() {
                "<time.fraction>"
            } else {
                "<time>"
            }
        });
        let text = self.token.replace_all(&text, "kube-api-access-<5 characters>");
        let uids = &mut self.uids;
        self.uid
            .replace_all(&text, |found: &regex::Captures<'_>| {
                format!("<uid {}>", number(uids, &found[0]))
            })
            .into_owned()
    }
}

/// Sorts the entries of managedFields. The servers sort them by time first, and by name only within one second.
fn sorted(mut entries: Value) -> Value {
    if let Some(entries) = entries.as_array_mut() {
        let text = |entry: &Value, field: &str| entry[field].as_str().unwrap_or_default().to_owned();
        entries.sort_by_key(|e| ["operation", "manager", "apiVersion", "subresource"].map(|field| text(e, field)));
    }
    entries
}

fn number(known: &mut Vec<String>, item: &str) -> usize {
    let index = known.iter().position(|k| k == item).unwrap_or_else(|| {
        known.push(item.to_owned());
        known.len() - 1
    });
    index + 1
}
