//! The event stream of a toolchain: one JSON object a line, written as things happen.

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
/// A metric, parameter or tag with a `child` belongs to that child run: it is kept in the series and does not appear in
/// status.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum ToolEvent {
    /// A point of a metric's series.
    Metric(MetricPoint),
    /// A parameter as the project logged it.
    Param(Pair),
    /// A tag.
    Tag(Pair),
    /// A data set that the project declared.
    Dataset(Dataset),
    /// A run below the main one.
    Child(Child),
    /// Something for people to read.
    Message(Message),
}

/// A point of a metric's series.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct MetricPoint {
    /// Name, 1 to 250 bytes.
    pub name: String,
    /// Value; a number or `"NaN"`, `"Infinity"`, `"-Infinity"`.
    #[serde(serialize_with = "serialize_value")]
    #[schemars(with = "MetricValue")]
    pub value: f64,
    /// Step.
    #[serde(default)]
    pub step: i64,
    /// Milliseconds since 1970; absent means the time of arrival.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<i64>,
    /// Data set it was computed on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<String>,
    /// Logged model it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Child run it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child: Option<String>,
}

/// How a metric's value is written.
#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "exists for its schema only")]
enum MetricValue {
    /// A finite number.
    Number(f64),
    /// A number that JSON cannot write.
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
    /// Name, 1 to 250 bytes.
    pub name: String,
    /// Value.
    pub value: String,
    /// Child run it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child: Option<String>,
}

/// A data set that the project declared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Dataset {
    /// Name.
    pub name: String,
    /// Digest as the project's library computes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Where it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// A run below the main one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Child {
    /// Id, as the `child` of other events.
    pub id: String,
    /// Name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
}

/// Something for people to read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Message {
    /// How serious it is. A notice that has a reason goes into `status.notices`.
    #[serde(default)]
    pub level: MessageLevel,
    /// A CamelCase word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The text.
    pub text: String,
}

/// How serious a message is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum MessageLevel {
    /// Progress.
    #[default]
    Info,
    /// Worth knowing afterwards.
    Notice,
}

/// A line that breaks the protocol. It never quotes the line: the stream is written by user code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the event stream {problem}")]
pub struct EventError {
    /// Number of the line, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub problem: String,
}

/// A line before its fields are checked. `RawValue` keeps a number's own digits until `f64::from_str`, which unlike the
/// JSON parser's fast path is exact to the last bit.
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
    /// Reads one line, without its line feed. The error is the `problem` of an [`EventError`].
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
        // Only what JSON calls a number: `f64::from_str` alone would accept "inf" and, were it quoted, "1".
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
        // A number or a boolean keeps the digits it was written with.
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

/// The text of a metric's value: the shortest that reads back as the same number, with `NaN`, `Infinity` and
/// `-Infinity` for the three that JSON cannot write.
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

/// Puts the tokens `NaN`, `Infinity` and `-Infinity`, which Python's `json` writes bare, into quotes.
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
    fn reads_a_metric() {
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
    fn the_three_numbers_json_cannot_write() {
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
    fn bad_lines_say_what_is_wrong_and_quote_nothing() {
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
        fn a_finite_value_survives_to_the_last_bit(bits: u64) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            let m = metric(&format!(r#"{{"type":"metric","name":"a","value":{value:?}}}"#));
            prop_assert_eq!(m.value.to_bits(), bits);
            prop_assert_eq!(value_text(m.value).parse::<f64>().unwrap().to_bits(), bits);
        }

        #[test]
        fn any_bytes_are_an_event_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = ToolEvent::parse(&bytes);
        }

        #[test]
        fn any_event_survives_writing(name in ".{1,40}", value in ".{0,60}", step: i64, at: Option<i64>) {
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
