//! The event stream of a toolchain. A toolchain appends one line of JSON when an event happens.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Longest name of a metric, parameter or tag, in bytes.
pub const MAX_NAME: usize = 250;
/// Longest value of a parameter or tag in the stream, in bytes.
pub const MAX_VALUE: usize = 8192;
/// Longest line, in bytes.
pub const MAX_LINE: usize = 64 * 1024;

/// One line of the event stream.
///
/// A metric, parameter or tag with a `child` belongs to that child run. It is stored in the series and is not part of
/// the status.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum ToolEvent {
    /// One value of a metric at one step.
    Metric(MetricPoint),
    /// A parameter as the project logged it.
    Param(Pair),
    /// A tag, as the project set it.
    Tag(Pair),
    /// A data set that the project declared.
    Dataset(Dataset),
    /// A run that is nested in the main run.
    Child(Child),
    /// A message for users.
    Message(Message),
}

/// One value of a metric at one step.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct MetricPoint {
    /// Name of the metric, 1 to 250 bytes.
    pub name: String,
    /// A number or `"NaN"`, `"Infinity"`, `"-Infinity"`.
    #[serde(serialize_with = "serialize_value")]
    #[schemars(with = "MetricValue")]
    pub value: f64,
    /// Step of the training, such as the epoch. May be negative.
    #[serde(default)]
    pub step: i64,
    /// Milliseconds since 1970. Without a value, it is the time of arrival.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<i64>,
    /// Name of the data set that the value was computed on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<String>,
    /// Logged model that the value belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Id of the child run that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child: Option<String>,
}

/// The JSON form of a metric's value.
#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "exists for its schema only")]
enum MetricValue {
    /// A finite number.
    Number(f64),
    /// A number that JSON cannot represent.
    NotFinite(NotFinite),
}

#[derive(JsonSchema)]
#[allow(dead_code, reason = "exists for its schema only")]
enum NotFinite {
    NaN,
    Infinity,
    #[serde(rename = "-Infinity")]
    MinusInfinity,
}

/// A name and its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Pair {
    /// Name of the parameter or tag, 1 to 250 bytes.
    pub name: String,
    /// At most 8192 bytes. Numbers and booleans are accepted and become text.
    pub value: String,
    /// Id of the child run that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child: Option<String>,
}

/// A data set that the project declared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Dataset {
    /// Name that the project declared.
    pub name: String,
    /// Digest, in the format of the project's library.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Address of the data, in the format of the project's library.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// A run that is nested in the main run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Child {
    /// Id that other events have as their `child`.
    pub id: String,
    /// Name for users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Status, in the words of the project's library.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
}

/// A message for users.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Message {
    /// Severity. The status shows notices in `status.notices`.
    #[serde(default)]
    pub level: MessageLevel,
    /// A CamelCase word for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// One or more sentences. The status shows at most 256 bytes.
    pub text: String,
}

/// Severity of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum MessageLevel {
    /// Reports progress. Not part of the status.
    #[default]
    Info,
    /// Still of interest after the end of the run.
    Notice,
}

/// A line that violates the protocol. The error never quotes the line, because user code writes the stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the event stream {problem}")]
pub struct EventError {
    /// Number of the line. The first line is 1.
    pub line: u64,
    /// A predicate, such as `is not UTF-8`.
    pub problem: String,
}

/// A line before its fields are checked. `RawValue` keeps the digits of a number for `f64::from_str`. That function is
/// exact to the last bit. The fast path of the JSON parser is not.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default, borrow)]
    value: Option<&'a RawValue>,
    #[serde(default, borrow)]
    step: Option<&'a RawValue>,
    #[serde(default, borrow)]
    timestamp: Option<&'a RawValue>,
    #[serde(default)]
    dataset: Option<String>,
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    child: Option<String>,
    #[serde(default)]
    digest: Option<String>,
    #[serde(default)]
    source: Option<String>,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    level: Option<MessageLevel>,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    text: Option<String>,
}

impl ToolEvent {
    /// Parses one line, without its line feed.
    ///
    /// # Errors
    /// The line violates the protocol. The text is the `problem` of an [`EventError`].
    pub fn parse(line: &[u8]) -> Result<Self, String> {
        if line.len() > MAX_LINE {
            return Err(format!("has {} bytes, and at most {MAX_LINE} are accepted", line.len()));
        }
        let text = std::str::from_utf8(line).map_err(|_| "is not UTF-8".to_owned())?;
        let text = quote_bare_tokens(text);
        let line: Line<'_> =
            serde_json::from_str(&text).map_err(|e| format!("is not an event: column {}", e.column()))?;
        line.check()
    }
}

impl Line<'_> {
    fn check(self) -> Result<ToolEvent, String> {
        let kind = self.kind.as_ref();
        Ok(match kind {
            "metric" => ToolEvent::Metric(MetricPoint {
                name: name(self.name)?,
                value: number(self.value.ok_or("has a metric without a value")?)?,
                step: self.step.map(|v| integer(v, "step")).transpose()?.unwrap_or(0),
                timestamp: self.timestamp.map(|v| integer(v, "timestamp")).transpose()?,
                dataset: self.dataset,
                model: self.model,
                child: self.child,
            }),
            "param" | "tag" => {
                let value = self.value.ok_or("has no value")?;
                let pair = Pair {
                    name: name(self.name)?,
                    value: string(value)?,
                    child: self.child,
                };
                if kind == "param" {
                    ToolEvent::Param(pair)
                } else {
                    ToolEvent::Tag(pair)
                }
            }
            "dataset" => ToolEvent::Dataset(Dataset {
                name: name(self.name)?,
                digest: self.digest,
                source: self.source,
            }),
            "child" => ToolEvent::Child(Child {
                id: self.id.ok_or("has a child without an id")?,
                name: self.name,
                status: self.status,
            }),
            "message" => ToolEvent::Message(Message {
                level: self.level.unwrap_or_default(),
                reason: self.reason,
                text: self.text.ok_or("has a message without a text")?,
            }),
            _ => return Err("has a type that is not one of metric, param, tag, dataset, child, message".into()),
        })
    }
}

fn name(name: Option<String>) -> Result<String, String> {
    let name = name.ok_or("has no name")?;
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(format!(
            "has a name of {} bytes, and 1 to {MAX_NAME} are accepted",
            name.len()
        ));
    }
    Ok(name)
}

fn number(raw: &RawValue) -> Result<f64, String> {
    let text = raw.get();
    match text.trim_matches('"') {
        "NaN" => Ok(f64::NAN),
        "Infinity" => Ok(f64::INFINITY),
        "-Infinity" => Ok(f64::NEG_INFINITY),
        // Only numbers of JSON. Alone, `f64::from_str` would accept "inf", and a "1" in quotes.
        _ if text.starts_with(|c: char| c == '-' || c.is_ascii_digit()) => {
            text.parse().map_err(|_| "has a value that is not a number".to_owned())
        }
        _ => Err("has a value that is neither a number nor \"NaN\", \"Infinity\" or \"-Infinity\"".into()),
    }
}

fn integer(raw: &RawValue, what: &str) -> Result<i64, String> {
    raw.get()
        .parse()
        .map_err(|_| format!("has a {what} that is not a 64-bit integer"))
}

fn string(raw: &RawValue) -> Result<String, String> {
    let value = match serde_json::from_str::<serde_json::Value>(raw.get()) {
        Ok(serde_json::Value::String(text)) => text,
        // A number keeps its digits.
        Ok(serde_json::Value::Number(_) | serde_json::Value::Bool(_)) => raw.get().to_owned(),
        _ => return Err("has a value that is not a string".into()),
    };
    if value.len() > MAX_VALUE {
        return Err(format!(
            "has a value of {} bytes, and at most {MAX_VALUE} are accepted",
            value.len()
        ));
    }
    Ok(value)
}

/// Returns the shortest text that parses as the same number. The three numbers that JSON cannot represent become `NaN`,
/// `Infinity` and `-Infinity`.
pub fn value_text(value: f64) -> String {
    if value.is_nan() {
        "NaN".into()
    } else if value == f64::INFINITY {
        "Infinity".into()
    } else if value == f64::NEG_INFINITY {
        "-Infinity".into()
    } else {
        format!("{value:?}")
    }
}

fn serialize_value<S: serde::Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if value.is_finite() {
        serializer.serialize_f64(*value)
    } else {
        serializer.serialize_str(&value_text(*value))
    }
}

/// Puts the tokens `NaN`, `Infinity` and `-Infinity` into quotes. Python's `json` writes them without quotes.
fn quote_bare_tokens(line: &str) -> Cow<'_, str> {
    if !line.contains("NaN") && !line.contains("Infinity") {
        return Cow::Borrowed(line);
    }
    let mut out = String::with_capacity(line.len() + 8);
    let mut rest = line;
    let mut in_string = false;
    while let Some(c) = rest.chars().next() {
        let mut taken = c.len_utf8();
        if in_string {
            if c == '\\' {
                taken += rest[taken..].chars().next().map_or(0, char::len_utf8);
            }
            in_string = c != '"';
        } else if let Some(token) = ["NaN", "Infinity", "-Infinity"]
            .into_iter()
            .find(|t| rest.starts_with(t))
        {
            out.push('"');
            out.push_str(token);
            out.push('"');
            rest = &rest[token.len()..];
            continue;
        } else {
            in_string = c == '"';
        }
        out.push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn metric(line: &str) -> MetricPoint {
        match ToolEvent::parse(line.as_bytes()) {
            Ok(ToolEvent::Metric(m)) => m,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_metric_is_parsed_and_unknown_fields_are_ignored() {
        let m = metric(r#"{"type":"metric","name":"loss","value":0.1,"step":-3,"timestamp":17,"child":"c","new":[1]}"#);
        assert_eq!(
            (m.value, m.step, m.timestamp, m.child.as_deref()),
            (0.1, -3, Some(17), Some("c"))
        );
        assert_eq!(
            metric(r#"{"type":"metric","name":"a","value":1,"step":9223372036854775807}"#).step,
            i64::MAX
        );
    }

    #[test]
    fn nan_and_the_infinities_are_accepted_with_and_without_quotes() {
        for (written, text) in [("NaN", "NaN"), ("Infinity", "Infinity"), ("-Infinity", "-Infinity")] {
            for value in [written.to_owned(), format!("\"{written}\"")] {
                let m = metric(&format!(r#"{{"type":"metric","name":"a\"NaN","value": {value} }}"#));
                assert_eq!(value_text(m.value), text);
                assert_eq!(m.name, "a\"NaN");
                let again = serde_json::to_string(&ToolEvent::Metric(m)).unwrap();
                assert!(again.contains(&format!("\"value\":\"{text}\"")), "{again}");
            }
        }
    }

    #[test]
    fn parameters_keep_their_digits() {
        for (value, text) in [
            ("\"0.10\"", "0.10"),
            ("1.10", "1.10"),
            ("true", "true"),
            ("12345678901234567890", "12345678901234567890"),
        ] {
            let event =
                ToolEvent::parse(format!(r#"{{"type":"param","name":"c","value":{value}}}"#).as_bytes()).unwrap();
            assert_eq!(
                event,
                ToolEvent::Param(Pair {
                    name: "c".into(),
                    value: text.into(),
                    child: None
                })
            );
        }
    }

    #[test]
    fn errors_name_the_problem_and_quote_nothing() {
        for (line, words) in [
            (r#"{"type":"metric","name":"","value":1}"#, "1 to 250"),
            (r#"{"type":"metric","name":"s3cret"}"#, "without a value"),
            (
                r#"{"type":"metric","name":"s3cret","value":"s3cret"}"#,
                "neither a number",
            ),
            (r#"{"type":"metric","name":"s3cret","value":"1"}"#, "neither a number"),
            (r#"{"type":"metric","name":"s3cret","value":null}"#, "without a value"),
            (r#"{"type":"metric","name":"s3cret","value":1,"step":1.5}"#, "64-bit"),
            (
                r#"{"type":"metric","name":"s3cret","value":1,"step":9223372036854775808}"#,
                "64-bit",
            ),
            (r#"{"type":"s3cret"}"#, "not one of"),
            (r#"{"type":"param","name":"s3cret","value":{}}"#, "not a string"),
            (r#"{"s3cret"#, "not an event"),
            ("[]", "not an event"),
            ("", "not an event"),
        ] {
            let error = ToolEvent::parse(line.as_bytes()).unwrap_err();
            assert!(error.contains(words), "{line}: {error}");
            assert!(!error.contains("s3cret"), "{line}: {error}");
        }
        let long = format!(r#"{{"type":"metric","name":"{}","value":1}}"#, "x".repeat(251));
        assert!(ToolEvent::parse(long.as_bytes()).unwrap_err().contains("251 bytes"));
        assert!(
            ToolEvent::parse(&vec![b' '; MAX_LINE + 1])
                .unwrap_err()
                .contains("65536")
        );
    }

    proptest! {
        #[test]
        fn a_finite_value_is_exact_to_the_last_bit(bits: u64) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            let m = metric(&format!(r#"{{"type":"metric","name":"a","value":{value:?}}}"#));
            prop_assert_eq!(m.value.to_bits(), bits);
            prop_assert_eq!(value_text(m.value).parse::<f64>().unwrap().to_bits(), bits);
        }

        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = ToolEvent::parse(&bytes);
        }

        #[test]
        fn a_written_event_parses_as_the_same_event(name in ".{1,40}", value in ".{0,60}", step: i64, at: Option<i64>) {
            let events = [
                ToolEvent::Metric(MetricPoint { name: name.clone(), value: 0.5, step, timestamp: at, dataset: None, model: None, child: None }),
                ToolEvent::Tag(Pair { name, value, child: Some("NaN".into()) }),
            ];
            for event in events {
                let line = serde_json::to_string(&event).unwrap();
                prop_assert_eq!(ToolEvent::parse(line.as_bytes()).unwrap(), event);
            }
        }
    }
}
