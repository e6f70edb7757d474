//! Typed names. A string is checked once, and different kinds of names cannot be confused.
//!
//! Parsing ([`std::str::FromStr`]), deserialization and the CRD's schema use the same pattern and length. A name that
//! the API server accepted therefore always parses.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};

/// A string that is not a valid name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not a valid {what}: {rule}")]
pub struct InvalidName {
    /// The expected kind of name.
    pub what: &'static str,
    /// The invalid value.
    pub value: String,
    /// The broken rule, for people.
    pub rule: &'static str,
}

/// Returns whether `s` is an RFC 1123 DNS label (`[a-z0-9]([-a-z0-9]*[a-z0-9])?`) of at most `max` bytes.
fn is_dns_label(s: &str, max: usize) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = s.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(&first), Some(&last)) => {
            bytes.len() <= max && alnum(first) && alnum(last) && bytes.iter().all(|&b| alnum(b) || b == b'-')
        }
        _ => false,
    }
}

/// Returns whether `s` is an RFC 1123 DNS subdomain of at most `max` bytes: labels joined by dots.
fn is_dns_subdomain(s: &str, max: usize) -> bool {
    s.len() <= max && s.split('.').all(|label| is_dns_label(label, 63))
}

macro_rules! typed_name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:literal, $check:ident, $pattern:literal, $rule:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Longest accepted name, in bytes.
            pub const MAX_LENGTH: usize = $max;

            /// Returns the name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(s: &str) -> Result<Self, InvalidName> {
                if $check(s, Self::MAX_LENGTH) {
                    Ok(Self(s.to_owned()))
                } else {
                    Err(InvalidName { what: $what, value: s.to_owned(), rule: $rule })
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                self.0 == other
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "minLength": 1, "maxLength": $max, "pattern": $pattern })
            }
        }
    };
}

typed_name!(
    /// Name of a `ToolchainIntegration`.
    ToolchainName, "toolchain name", 63, is_dns_label, "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
    "lowercase letters, digits and '-', starting and ending with a letter or digit, at most 63 characters"
);
typed_name!(
    /// Name of a `Connection`.
    ConnectionName, "connection name", 63, is_dns_label, "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
    "lowercase letters, digits and '-', starting and ending with a letter or digit, at most 63 characters"
);
typed_name!(
    /// Name of a model: a DNS label, because it becomes part of paths and image names.
    ModelName, "model name", 63, is_dns_label, "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
    "lowercase letters, digits and '-', starting and ending with a letter or digit, at most 63 characters"
);
typed_name!(
    /// Name of a data binding.
    DataName, "data binding name", 63, is_dns_label, "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
    "lowercase letters, digits and '-', starting and ending with a letter or digit, at most 63 characters"
);
typed_name!(
    /// Name of a Kubernetes object: ConfigMap, Secret, ServiceAccount, PersistentVolumeClaim.
    ObjectName, "object name", 253, is_dns_subdomain,
    "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
    "lowercase letters, digits, '-' and '.', starting and ending with a letter or digit, at most 253 characters"
);

/// Longest name of a `ModelTraining`. A pod's name `<name>-<run id: 8>-<attempt: up to 5>` must be a DNS label of at
/// most 63 characters.
pub const TRAINING_NAME_MAX: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_subdomains_are_checked_at_their_limits() {
        assert!("a".parse::<ConnectionName>().is_ok());
        assert!("a".repeat(63).parse::<ConnectionName>().is_ok());
        assert!("a".repeat(64).parse::<ConnectionName>().is_err());
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "ä"] {
            assert!(bad.parse::<ConnectionName>().is_err(), "{bad:?}");
        }
        assert!("a.b-c.d".parse::<ObjectName>().is_ok());
        assert!("a..b".parse::<ObjectName>().is_err());
    }
}
