//! Durations in the form of Kubernetes: `15m`, `1h30m`, `90s`.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A non-negative span of time. Its text is a list of decimal numbers with units: `ms`, `s`, `m`, `h` (Go's
/// `time.ParseDuration` without signs and without units below a millisecond). It is cut at 87,600 h (ten years).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(std::time::Duration);

/// A text that is not a [`Span`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a duration: write numbers with units, such as 90s, 15m or 1h30m")]
pub struct InvalidSpan(pub String);

impl Span {
    const MAX: std::time::Duration = std::time::Duration::from_secs(87_600 * 3600);

    /// Creates a span of whole seconds, cut at the longest span.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        let max = Self::MAX.as_secs();
        Self(std::time::Duration::from_secs(if seconds > max {
            max
        } else {
            seconds
        }))
    }

    /// Returns the span as a standard duration.
    #[must_use]
    pub const fn get(self) -> std::time::Duration {
        self.0
    }

    /// Returns the span in whole seconds, rounded up.
    #[must_use]
    pub fn as_secs_ceil(self) -> u64 {
        self.0.as_secs() + u64::from(self.0.subsec_nanos() > 0)
    }
}

impl FromStr for Span {
    type Err = InvalidSpan;

    fn from_str(text: &str) -> Result<Self, InvalidSpan> {
        let invalid = || InvalidSpan(text.to_owned());
        let mut rest = text;
        let mut total = 0f64;
        if rest.is_empty() {
            return Err(invalid());
        }
        while !rest.is_empty() {
            let digits = rest
                .find(|c: char| !c.is_ascii_digit() && c != '.')
                .ok_or_else(invalid)?;
            let number: f64 = rest[..digits].parse().map_err(|_| invalid())?;
            rest = &rest[digits..];
            let unit = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
            total += number
                * match &rest[..unit] {
                    "ms" => 0.001,
                    "s" => 1.0,
                    "m" => 60.0,
                    "h" => 3600.0,
                    _ => return Err(invalid()),
                };
            rest = &rest[unit..];
        }
        // Every text that the schema accepts must parse. A longer span is cut to the longest span.
        let total = std::time::Duration::try_from_secs_f64(total).map_err(|_| invalid())?;
        Ok(Self(total.min(Self::MAX)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, millis) = (self.0.as_secs(), self.0.subsec_millis());
        let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        if h > 0 {
            write!(f, "{h}h")?;
        }
        if m > 0 {
            write!(f, "{m}m")?;
        }
        if s > 0 || (h == 0 && m == 0 && millis == 0) {
            write!(f, "{s}s")?;
        }
        if millis > 0 {
            write!(f, "{millis}ms")?;
        }
        Ok(())
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string", "minLength": 2, "maxLength": 32,
            "pattern": "^([0-9]{1,5}(\\.[0-9]{1,3})?(ms|s|m|h))+$"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_parse_and_print() {
        for (text, seconds, shown) in [
            ("15m", 900.0, "15m"),
            ("1h30m", 5400.0, "1h30m"),
            ("90s", 90.0, "1m30s"),
            ("0s", 0.0, "0s"),
            ("1.5s", 1.5, "1s500ms"),
            ("20ms", 0.02, "20ms"),
        ] {
            let span: Span = text.parse().unwrap();
            assert_eq!(span.get().as_secs_f64(), seconds, "{text}");
            assert_eq!(span.to_string(), shown);
            assert_eq!(shown.parse::<Span>().unwrap(), span);
        }
        for bad in ["", "15", "m", "-1s", "1d", "1 s", "1..5s"] {
            assert!(bad.parse::<Span>().is_err(), "{bad:?}");
        }
    }
}
