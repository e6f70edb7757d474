//! The `format`s that Kubernetes checks in custom resource schemas. Other formats are ignored, as upstream does.

use std::sync::LazyLock;

use base64::Engine as _;
use regex::Regex;

/// A checked format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Int32,
    Int64,
    Float,
    Double,
    BsonObjectId,
    Uri,
    Email,
    Hostname,
    Ipv4,
    Ipv6,
    Cidr,
    Mac,
    Uuid,
    Uuid3,
    Uuid4,
    Uuid5,
    Isbn,
    Isbn10,
    Isbn13,
    CreditCard,
    Ssn,
    HexColor,
    RgbColor,
    Byte,
    Password,
    Date,
    DateTime,
    Duration,
    ShortName,
    LongName,
}

/// Normalized names of string formats.
const STRING_FORMATS: &[(&str, Format)] = &[
    ("bsonobjectid", Format::BsonObjectId),
    ("uri", Format::Uri),
    ("email", Format::Email),
    ("hostname", Format::Hostname),
    ("ipv4", Format::Ipv4),
    ("ipv6", Format::Ipv6),
    ("cidr", Format::Cidr),
    ("mac", Format::Mac),
    ("uuid", Format::Uuid),
    ("uuid3", Format::Uuid3),
    ("uuid4", Format::Uuid4),
    ("uuid5", Format::Uuid5),
    ("isbn", Format::Isbn),
    ("isbn10", Format::Isbn10),
    ("isbn13", Format::Isbn13),
    ("creditcard", Format::CreditCard),
    ("ssn", Format::Ssn),
    ("hexcolor", Format::HexColor),
    ("rgbcolor", Format::RgbColor),
    ("byte", Format::Byte),
    ("password", Format::Password),
    ("date", Format::Date),
    ("datetime", Format::DateTime),
    ("duration", Format::Duration),
    ("k8sshortname", Format::ShortName),
    ("k8slongname", Format::LongName),
];

impl Format {
    /// Returns the format to check for a schema of this type, or `None` if Kubernetes does not know it.
    pub(crate) fn of(kind: Option<&str>, format: Option<&str>) -> Option<Self> {
        let format = format?;
        match kind {
            None | Some("string") => {
                let normal = format.replace('-', "");
                STRING_FORMATS.iter().find(|(name, _)| *name == normal).map(|(_, f)| *f)
            }
            Some("integer") => match format {
                "int32" => Some(Self::Int32),
                "int64" => Some(Self::Int64),
                _ => None,
            },
            Some("number") => match format {
                "float" => Some(Self::Float),
                "double" => Some(Self::Double),
                _ => None,
            },
            _ => None,
        }
    }

    /// Returns the name used in messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::Float => "float",
            Self::Double => "double",
            Self::DateTime => "date-time",
            Self::ShortName => "k8s-short-name",
            Self::LongName => "k8s-long-name",
            other => STRING_FORMATS
                .iter()
                .find(|(_, f)| *f == other)
                .map_or("", |(name, _)| *name),
        }
    }

    /// Returns whether a string satisfies the format. Number formats accept every string.
    pub(crate) fn accepts(self, s: &str) -> bool {
        match self {
            Self::Int32 | Self::Int64 | Self::Float | Self::Double | Self::Password => true,
            Self::BsonObjectId => s.len() == 24 && s.bytes().all(|b| b.is_ascii_hexdigit()),
            Self::Uri => uri(s),
            Self::Email => email(s),
            Self::Hostname => HOSTNAME.is_match(s) && s.len() <= 255,
            Self::Ipv4 => s.parse::<std::net::Ipv4Addr>().is_ok(),
            Self::Ipv6 => s.parse::<std::net::Ipv6Addr>().is_ok(),
            Self::Cidr => cidr(s),
            Self::Mac => mac(s),
            Self::Uuid => UUID.is_match(s),
            Self::Uuid3 => UUID.is_match(s) && uuid_version(s) == Some('3'),
            Self::Uuid4 => UUID.is_match(s) && uuid_version(s) == Some('4') && uuid_variant(s),
            Self::Uuid5 => UUID.is_match(s) && uuid_version(s) == Some('5') && uuid_variant(s),
            Self::Isbn => isbn10(s) || isbn13(s),
            Self::Isbn10 => isbn10(s),
            Self::Isbn13 => isbn13(s),
            Self::CreditCard => credit_card(s),
            Self::Ssn => SSN.is_match(s),
            Self::HexColor => HEX_COLOR.is_match(s),
            Self::RgbColor => RGB_COLOR.is_match(s),
            Self::Byte => base64::engine::general_purpose::STANDARD.decode(s).is_ok(),
            Self::Date => s.len() == 10 && s.parse::<jiff::civil::Date>().is_ok(),
            Self::DateTime => date_time(s),
            Self::Duration => go_duration(s) || WORD_DURATION.is_match(s),
            Self::ShortName => s.len() <= 63 && SHORT_NAME.is_match(s),
            Self::LongName => s.len() <= 253 && s.split('.').all(|part| SHORT_NAME.is_match(part)),
        }
    }
}

macro_rules! regexes {
    ($($name:ident = $pattern:literal;)*) => {$(
        static $name: LazyLock<Regex> = LazyLock::new(|| {
            // The patterns are literals, and a test compiles each of them.
            #[allow(clippy::unwrap_used)]
            Regex::new($pattern).unwrap()
        });
    )*};
}

regexes! {
    HOSTNAME = r"^([a-zA-Z0-9\p{S}\p{L}]((-?[a-zA-Z0-9\p{S}\p{L}]{0,62})?)|([a-zA-Z0-9\p{S}\p{L}](([a-zA-Z0-9-\p{S}\p{L}]{0,61}[a-zA-Z0-9\p{S}\p{L}])?)(\.)){1,}([a-zA-Z\p{L}]){2,63})$";
    UUID = r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$";
    SSN = r"^[0-9]{3}[- ]?[0-9]{2}[- ]?[0-9]{4}$";
    HEX_COLOR = r"^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$";
    RGB_COLOR = r"^rgb\(\s*(0|[1-9][0-9]?|1[0-9][0-9]?|2[0-4][0-9]|25[0-5])\s*,\s*(0|[1-9][0-9]?|1[0-9][0-9]?|2[0-4][0-9]|25[0-5])\s*,\s*(0|[1-9][0-9]?|1[0-9][0-9]?|2[0-4][0-9]|25[0-5])\s*\)$";
    WORD_DURATION = r"^\s*([0-9]+\s*(ns|us|µs|μs|ms|s|m|h|d|w|nanos?|nanoseconds?|micros?|microseconds?|millis?|milliseconds?|sec|seconds?|min|minutes?|hr|hours?|days?|weeks?)\s*)+$";
    SHORT_NAME = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
    CARD = r"^(?:4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|6(?:011|5[0-9][0-9])[0-9]{12}|3[47][0-9]{13}|3(?:0[0-5]|[68][0-9])[0-9]{11}|(?:2131|1800|35[0-9]{3})[0-9]{11})$";
}

/// Checks what Go's `url.ParseRequestURI` accepts: an absolute URI or an absolute path.
fn uri(s: &str) -> bool {
    if s.is_empty() || s.bytes().any(|b| b < 0x20 || b == 0x7f) {
        return false;
    }
    if s.starts_with('/') {
        return percent_encoding_is_valid(s);
    }
    let Some((scheme, rest)) = s.split_once(':') else {
        return false;
    };
    let mut bytes = scheme.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic())
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
        && percent_encoding_is_valid(rest)
        && !rest
            .strip_prefix("//")
            .is_some_and(|r| r.split(['/', '?', '#']).next().unwrap_or("").contains(' '))
}

fn percent_encoding_is_valid(s: &str) -> bool {
    let path = s.split('?').next().unwrap_or(s).as_bytes();
    path.iter().enumerate().filter(|(_, b)| **b == b'%').all(|(i, _)| {
        path.get(i + 1).is_some_and(u8::is_ascii_hexdigit) && path.get(i + 2).is_some_and(u8::is_ascii_hexdigit)
    })
}

/// Checks `name@domain`, also as `Some Name <name@domain>`, like Go's `mail.ParseAddress`.
fn email(s: &str) -> bool {
    let address = match s.trim().strip_suffix('>') {
        Some(rest) => match rest.rsplit_once('<') {
            Some((_, address)) => address,
            None => return false,
        },
        None => s.trim(),
    };
    let Some((local, domain)) = address.rsplit_once('@') else {
        return false;
    };
    let atom = |text: &str| {
        !text.is_empty()
            && text.split('.').all(|part| {
                !part.is_empty()
                    && part
                        .chars()
                        .all(|c| c.is_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c))
            })
    };
    let quoted = local.len() >= 2 && local.starts_with('"') && local.ends_with('"');
    (atom(local) || quoted) && (atom(domain) || (domain.starts_with('[') && domain.ends_with(']')))
}

fn cidr(s: &str) -> bool {
    let Some((address, bits)) = s.split_once('/') else {
        return false;
    };
    if bits.is_empty() || !bits.bytes().all(|b| b.is_ascii_digit()) || (bits.len() > 1 && bits.starts_with('0')) {
        return false;
    }
    let Ok(bits) = bits.parse::<u8>() else { return false };
    match address.parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V4(_)) => bits <= 32,
        Ok(std::net::IpAddr::V6(_)) => bits <= 128,
        Err(_) => false,
    }
}

fn mac(s: &str) -> bool {
    let groups = |separator: char, width: usize, counts: &[usize]| {
        let parts: Vec<&str> = s.split(separator).collect();
        counts.contains(&parts.len())
            && parts
                .iter()
                .all(|p| p.len() == width && p.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    groups(':', 2, &[6, 8, 20]) || groups('-', 2, &[6, 8, 20]) || groups('.', 4, &[3, 4, 10])
}

fn uuid_digit(s: &str, index: usize) -> Option<char> {
    s.chars().filter(|c| *c != '-').nth(index)
}

fn uuid_version(s: &str) -> Option<char> {
    uuid_digit(s, 12)
}

fn uuid_variant(s: &str) -> bool {
    uuid_digit(s, 16).is_some_and(|c| matches!(c.to_ascii_lowercase(), '8' | '9' | 'a' | 'b'))
}

fn isbn_digits(s: &str) -> Vec<char> {
    s.chars().filter(|c| *c != '-' && !c.is_whitespace()).collect()
}

fn isbn10(s: &str) -> bool {
    let digits = isbn_digits(s);
    if digits.len() != 10 {
        return false;
    }
    let mut sum = 0;
    for (i, c) in digits.iter().enumerate() {
        let value = match c {
            'X' | 'x' if i == 9 => 10,
            c => match c.to_digit(10) {
                Some(d) => d,
                None => return false,
            },
        };
        sum += value * (10 - i as u32);
    }
    sum % 11 == 0
}

fn isbn13(s: &str) -> bool {
    let digits: Option<Vec<u32>> = isbn_digits(s).iter().map(|c| c.to_digit(10)).collect();
    digits.is_some_and(|d| {
        d.len() == 13
            && d.iter()
                .enumerate()
                .map(|(i, v)| if i % 2 == 0 { *v } else { 3 * v })
                .sum::<u32>()
                % 10
                == 0
    })
}

fn credit_card(s: &str) -> bool {
    let digits: String = s.chars().filter(char::is_ascii_digit).collect();
    if !CARD.is_match(&digits) {
        return false;
    }
    let luhn: u32 = digits
        .bytes()
        .rev()
        .enumerate()
        .map(|(i, b)| {
            let value = u32::from(b - b'0') * if i % 2 == 0 { 1 } else { 2 };
            if value > 9 { value - 9 } else { value }
        })
        .sum();
    luhn.is_multiple_of(10)
}

/// Checks RFC 3339 with a date, a `T` (or a space) and a time zone.
pub(crate) fn date_time(s: &str) -> bool {
    let bytes = s.as_bytes();
    bytes.len() >= 20
        && matches!(bytes[10], b'T' | b't' | b' ')
        && (s.ends_with(['Z', 'z'])
            || bytes[bytes.len().saturating_sub(6)..]
                .iter()
                .any(|b| matches!(b, b'+' | b'-')))
        && !s.contains('[')
        && s.parse::<jiff::Timestamp>().is_ok()
}

/// Checks what Go's `time.ParseDuration` accepts: `1h30m`, `-1.5s`, `0`.
pub(crate) fn go_duration(s: &str) -> bool {
    let mut rest = s.strip_prefix(['+', '-']).unwrap_or(s);
    if rest == "0" {
        return true;
    }
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        let number = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (digits, after) = rest.split_at(number);
        if !digits.bytes().any(|b| b.is_ascii_digit()) || digits.matches('.').count() > 1 {
            return false;
        }
        let Some(unit) = ["ns", "us", "µs", "μs", "ms", "s", "m", "h"].iter().find(|u| {
            after
                .strip_prefix(**u)
                .is_some_and(|r| r.is_empty() || r.starts_with(|c: char| c.is_ascii_digit() || c == '.'))
        }) else {
            return false;
        };
        rest = &after[unit.len()..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_and_refuses() {
        let cases: &[(&str, &[&str], &[&str])] = &[
            (
                "bsonobjectid",
                &["507f1f77bcf86cd799439011"],
                &["507f", "zzzf1f77bcf86cd799439011"],
            ),
            (
                "uri",
                &["http://a/b", "/abs", "s3://bucket/x", "urn:a:b"],
                &["a b", "rel/path", "", "http://a b/"],
            ),
            ("email", &["a@b.c", "A B <a@b.c>"], &["a", "@b", "a@", "a b@c"]),
            ("hostname", &["a.example.com", "localhost"], &["-a.example.com", "a..b"]),
            ("ipv4", &["1.2.3.4"], &["1.2.3", "::1", "256.1.1.1"]),
            ("ipv6", &["::1", "fe80::1"], &["1.2.3.4", ":::"]),
            (
                "cidr",
                &["10.0.0.0/8", "fd00::/64"],
                &["10.0.0.0", "10.0.0.0/33", "10.0.0.0/08"],
            ),
            (
                "mac",
                &["00:00:5e:00:53:01", "0000.5e00.5301"],
                &["00:00", "zz:00:5e:00:53:01"],
            ),
            ("uuid", &["123E4567-e89b-12d3-a456-426614174000"], &["123", "x"]),
            (
                "uuid4",
                &["123e4567-e89b-42d3-a456-426614174000"],
                &["123e4567-e89b-12d3-a456-426614174000"],
            ),
            ("isbn", &["0321751043", "978-0321751041"], &["0321751044", "1"]),
            ("creditcard", &["4111 1111 1111 1111"], &["4111 1111 1111 1112", "1"]),
            ("ssn", &["123-45-6789"], &["12-45-6789"]),
            ("hexcolor", &["#fff", "FFFFFF"], &["#ff", "red"]),
            ("rgbcolor", &["rgb(1, 2, 255)"], &["rgb(1,2)", "rgb(1,2,256)"]),
            ("byte", &["aGk=", ""], &["aGk", "***"]),
            ("password", &["anything"], &[]),
            ("date", &["2026-11-23"], &["2026-13-01", "2026-11-23T00:00:00Z", "x"]),
            (
                "date-time",
                &["2026-11-23T10:00:00Z", "2026-11-23T10:00:00.123456+02:00"],
                &["2026-11-23", "2026-11-23T10:00:00", "tomorrow"],
            ),
            (
                "duration",
                &["1h30m", "22 ns", "0", "1.5s", "-3m"],
                &["1", "h", "1x", ""],
            ),
            ("k8s-short-name", &["a-b"], &["A", "-a", "a.b"]),
            ("k8s-long-name", &["a.b-c"], &["a..b", "A"]),
        ];
        for (name, good, bad) in cases {
            let format = Format::of(Some("string"), Some(name)).unwrap();
            for s in *good {
                assert!(format.accepts(s), "{name} should accept {s:?}");
            }
            for s in *bad {
                assert!(!format.accepts(s), "{name} should refuse {s:?}");
            }
            assert!(!format.name().is_empty());
        }
    }

    #[test]
    fn unknown_formats_are_ignored() {
        assert_eq!(Format::of(Some("string"), Some("quantity")), None);
        assert_eq!(Format::of(Some("integer"), Some("uint32")), None);
        assert_eq!(Format::of(Some("object"), Some("date")), None);
        assert_eq!(Format::of(Some("number"), Some("double")), Some(Format::Double));
    }
}
