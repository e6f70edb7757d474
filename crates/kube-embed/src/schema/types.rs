//! The types and functions of CEL expressions: the environment in which a Kubernetes API server compiles the rules of
//! custom resources.

use std::collections::HashMap;
use std::fmt;
use std::sync::LazyLock;

use super::formats::Format;
use super::node::{Additional, JsonType, Node};

/// The type of an expression, as far as it is known.
#[derive(Clone, Debug)]
pub(super) enum Type<'a> {
    /// Any type. It is known only when the rule runs.
    Dyn,
    /// Not decided yet, such as the elements of an empty list.
    Free,
    /// A type without parameters, by its name.
    Simple(&'static str),
    List(Box<Type<'a>>),
    Map(Box<Type<'a>>, Box<Type<'a>>),
    Optional(Box<Type<'a>>),
    /// An object with declared fields.
    Object(&'a Node),
}

pub(super) const BOOL: Type<'static> = Type::Simple("bool");
const STRING: Type<'static> = Type::Simple("string");
const INT: Type<'static> = Type::Simple("int");

impl<'a> Type<'a> {
    /// Returns the type of the values of a schema.
    pub(super) fn of(node: &'a Node) -> Self {
        if node.int_or_string || node.nullable {
            return Self::Dyn;
        }
        match node.kind {
            None => Self::Dyn,
            Some(JsonType::Boolean) => BOOL,
            Some(JsonType::Integer) => INT,
            Some(JsonType::Number) => Self::Simple("double"),
            Some(JsonType::String) => match node.checks.format {
                Some(Format::DateTime | Format::Date) => Self::Simple("timestamp"),
                Some(Format::Duration) => Self::Simple("duration"),
                Some(Format::Byte) => Self::Simple("bytes"),
                _ => STRING,
            },
            Some(JsonType::Array) => Self::List(Box::new(node.items.as_deref().map_or(Self::Dyn, Self::of))),
            Some(JsonType::Object) => match &node.additional {
                Additional::Schema(value) => Self::Map(Box::new(STRING), Box::new(Self::of(value))),
                // A schema that declares nothing allows a value of unknown shape.
                _ if node.properties.is_empty() => Self::Dyn,
                _ => Self::Object(node),
            },
        }
    }

    /// Returns the common type, or `None` if the types differ for certain.
    pub(super) fn join(&self, other: &Self) -> Option<Self> {
        let boxed = |a: &Self, b: &Self| a.join(b).map(Box::new);
        Some(match (self, other) {
            (Self::Free, known) | (known, Self::Free) => known.clone(),
            (Self::Dyn, _) | (_, Self::Dyn) => Self::Dyn,
            (Self::Simple(a), Self::Simple(b)) if a == b => self.clone(),
            (Self::List(a), Self::List(b)) => Self::List(boxed(a, b)?),
            (Self::Map(k, v), Self::Map(l, w)) => Self::Map(boxed(k, l)?, boxed(v, w)?),
            (Self::Optional(a), Self::Optional(b)) => Self::Optional(boxed(a, b)?),
            (Self::Object(a), Self::Object(b)) if std::ptr::eq(*a, *b) => self.clone(),
            (Self::Object(_), Self::Object(_)) => Self::Dyn,
            // A comparison with null is decided when the rule runs.
            (Self::Simple("null"), nullable @ (Self::Object(_) | Self::Optional(_)))
            | (nullable @ (Self::Object(_) | Self::Optional(_)), Self::Simple("null")) => nullable.clone(),
            (Self::Simple("null"), Self::Simple(name)) | (Self::Simple(name), Self::Simple("null"))
                if !PRIMITIVE.contains(name) =>
            {
                Self::Simple(name)
            }
            _ => return None,
        })
    }
}

/// Types that are never null.
const PRIMITIVE: [&str; 6] = ["bool", "int", "uint", "double", "string", "bytes"];

impl fmt::Display for Type<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dyn | Self::Free => f.write_str("dyn"),
            Self::Simple(name) => f.write_str(name),
            Self::List(of) => write!(f, "list({of})"),
            Self::Map(key, value) => write!(f, "map({key}, {value})"),
            Self::Optional(of) => write!(f, "optional_type({of})"),
            Self::Object(_) => f.write_str("object"),
        }
    }
}

/// Function names, receiver (empty for a global function), parameters (`|` between alternatives), and result. Capital
/// letters are type parameters.
#[rustfmt::skip]
const FUNCTIONS: &[(&str, &str, &str, &str)] = &[
    ("_&&_ _||_", "", "bool,bool", "bool"),
    ("!_ @not_strictly_false", "", "bool", "bool"),
    ("_==_ _!=_", "", "A,A", "bool"),
    ("_<_ _<=_ _>_ _>=_", "", "bool,bool|string,string|bytes,bytes|timestamp,timestamp|duration,duration", "bool"),
    ("_<_ _<=_ _>_ _>=_", "", "int,int|int,uint|int,double|uint,int|uint,uint|uint,double|double,int|double,uint|double,double", "bool"),
    ("_?_:_", "", "bool,A,A", "A"),
    ("_+_ _-_ _*_ _/_", "", "int,int", "int"),
    ("_+_ _-_ _*_ _/_", "", "uint,uint", "uint"),
    ("_+_ _-_ _*_ _/_", "", "double,double", "double"),
    ("_%_", "", "int,int", "int"),
    ("_%_", "", "uint,uint", "uint"),
    ("_+_", "", "string,string", "string"),
    ("_+_", "", "bytes,bytes", "bytes"),
    ("_+_", "", "list(A),list(A)", "list(A)"),
    ("_+_", "", "timestamp,duration|duration,timestamp", "timestamp"),
    ("_+_ _-_", "", "duration,duration", "duration"),
    ("_-_", "", "timestamp,duration", "timestamp"),
    ("_-_", "", "timestamp,timestamp", "duration"),
    ("-_", "", "int", "int"),
    ("-_", "", "double", "double"),
    ("@in", "", "A,list(A)|A,map(A,B)", "bool"),
    ("_[_]", "", "list(A),int", "A"),
    ("_[_]", "", "map(A,B),A", "B"),
    ("_[_] _[?_]", "", "optional(list(A)),int", "optional(A)"),
    ("_[_] _[?_]", "", "optional(map(A,B)),A", "optional(B)"),
    ("_[?_]", "", "list(A),int", "optional(A)"),
    ("_[?_]", "", "map(A,B),A", "optional(B)"),
    ("size", "", "string|bytes|list(A)|map(A,B)", "int"),
    ("size", "string", "", "int"),
    ("size", "bytes", "", "int"),
    ("size", "list(A)", "", "int"),
    ("size", "map(A,B)", "", "int"),
    ("int", "", "int|uint|double|string|timestamp|duration", "int"),
    ("uint", "", "int|uint|double|string", "uint"),
    ("double", "", "int|uint|double|string", "double"),
    ("bool", "", "bool|string", "bool"),
    ("string", "", "bool|int|uint|double|string|bytes|timestamp|duration|ip|cidr", "string"),
    ("bytes", "", "bytes|string", "bytes"),
    ("timestamp", "", "int|string|timestamp", "timestamp"),
    ("duration", "", "int|string|duration", "duration"),
    ("dyn", "", "A", "dyn"),
    ("type", "", "A", "type"),
    ("startsWith endsWith contains matches", "string", "string", "bool"),
    ("matches", "", "string,string", "bool"),
    ("getDate getDayOfMonth getDayOfWeek getDayOfYear getFullYear getMonth", "timestamp", "|string", "int"),
    ("getHours getMinutes getSeconds getMilliseconds", "timestamp", "|string", "int"),
    ("getHours getMinutes getSeconds getMilliseconds", "duration", "", "int"),
    ("charAt", "string", "int", "string"),
    ("indexOf lastIndexOf", "string", "string|string,int", "int"),
    ("lowerAscii upperAscii trim", "string", "", "string"),
    ("replace", "string", "string,string|string,string,int", "string"),
    ("split", "string", "string|string,int", "list(string)"),
    ("substring", "string", "int|int,int", "string"),
    ("join", "list(string)", "|string", "string"),
    ("format", "string", "list(A)", "string"),
    ("strings.quote", "", "string", "string"),
    ("find", "string", "string", "string"),
    ("findAll", "string", "string|string,int", "list(string)"),
    ("isSorted", "list(A)", "", "bool"),
    ("sum", "list(int)", "", "int"),
    ("sum", "list(uint)", "", "uint"),
    ("sum", "list(double)", "", "double"),
    ("sum", "list(duration)", "", "duration"),
    ("min max", "list(A)", "", "A"),
    ("indexOf lastIndexOf", "list(A)", "A", "int"),
    ("distinct reverse sort", "list(A)", "", "list(A)"),
    ("flatten", "list(list(A))", "", "list(A)"),
    ("flatten", "list(A)", "int", "list(dyn)"),
    ("slice", "list(A)", "int,int", "list(A)"),
    ("first last", "list(A)", "", "optional(A)"),
    ("lists.range", "", "int", "list(int)"),
    ("sets.contains sets.equivalent sets.intersects", "", "list(A),list(A)", "bool"),
    ("optional.of optional.ofNonZeroValue", "", "A", "optional(A)"),
    ("optional.none", "", "", "optional(A)"),
    ("hasValue", "optional(A)", "", "bool"),
    ("value", "optional(A)", "", "A"),
    ("orValue", "optional(A)", "A", "A"),
    ("or", "optional(A)", "optional(A)", "optional(A)"),
    ("isURL isIP isCIDR isQuantity ip.isCanonical", "", "string", "bool"),
    ("url", "", "string", "url"),
    ("getScheme getHost getHostname getPort getEscapedPath", "url", "", "string"),
    ("getQuery", "url", "", "map(string,list(string))"),
    ("ip", "", "string", "ip"),
    ("ip", "cidr", "", "ip"),
    ("family", "ip", "", "int"),
    ("isUnspecified isLoopback isLinkLocalMulticast isLinkLocalUnicast isGlobalUnicast", "ip", "", "bool"),
    ("cidr", "", "string", "cidr"),
    ("containsIP", "cidr", "ip|string", "bool"),
    ("containsCIDR", "cidr", "cidr|string", "bool"),
    ("masked", "cidr", "", "cidr"),
    ("prefixLength", "cidr", "", "int"),
    ("quantity", "", "string", "quantity"),
    ("sign asInteger", "quantity", "", "int"),
    ("asApproximateFloat", "quantity", "", "double"),
    ("isInteger", "quantity", "", "bool"),
    ("isGreaterThan isLessThan", "quantity", "quantity", "bool"),
    ("compareTo", "quantity", "quantity", "int"),
    ("add sub", "quantity", "quantity|int", "quantity"),
    ("semver", "", "string|string,bool", "semver"),
    ("isSemver", "", "string|string,bool", "bool"),
    ("major minor patch", "semver", "", "int"),
    ("isGreaterThan isLessThan", "semver", "semver", "bool"),
    ("compareTo", "semver", "semver", "int"),
    ("format.named", "", "string", "optional(format)"),
    ("format.dns1123Label format.dns1123Subdomain format.dns1035Label format.qualifiedName format.labelValue", "", "", "format"),
    ("format.dns1123LabelPrefix format.dns1123SubdomainPrefix format.dns1035LabelPrefix", "", "", "format"),
    ("format.uri format.uuid format.byte format.date format.datetime", "", "", "format"),
    ("validate", "format", "string", "optional(list(string))"),
];

/// A type in a signature.
#[derive(Clone, Debug)]
enum Pattern {
    Parameter(&'static str),
    Dyn,
    Simple(&'static str),
    List(Box<Pattern>),
    Map(Box<Pattern>, Box<Pattern>),
    Optional(Box<Pattern>),
}

#[derive(Debug)]
struct Signature {
    receiver: Option<Pattern>,
    parameters: Vec<Pattern>,
    result: Pattern,
}

static SIGNATURES: LazyLock<HashMap<&'static str, Vec<Signature>>> = LazyLock::new(|| {
    let mut out: HashMap<&str, Vec<Signature>> = HashMap::new();
    for (names, receiver, alternatives, result) in FUNCTIONS {
        for name in names.split(' ') {
            for parameters in alternatives.split('|') {
                out.entry(name).or_default().push(Signature {
                    receiver: (!receiver.is_empty()).then(|| pattern(receiver)),
                    parameters: commas(parameters).into_iter().map(pattern).collect(),
                    result: pattern(result),
                });
            }
        }
    }
    out
});

/// Splits at commas that are not in parentheses. Returns nothing for an empty text.
fn commas(text: &'static str) -> Vec<&'static str> {
    let (mut parts, mut depth, mut begin) = (Vec::new(), 0_usize, 0);
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[begin..i]);
                begin = i + 1;
            }
            _ => {}
        }
    }
    if !text.is_empty() {
        parts.push(&text[begin..]);
    }
    parts
}

fn pattern(text: &'static str) -> Pattern {
    let inside = |name: &str| text.strip_prefix(name)?.strip_prefix('(')?.strip_suffix(')');
    if let Some(of) = inside("list") {
        Pattern::List(Box::new(pattern(of)))
    } else if let Some(of) = inside("optional") {
        Pattern::Optional(Box::new(pattern(of)))
    } else if let Some([key, value]) = inside("map").map(commas).as_deref() {
        Pattern::Map(Box::new(pattern(key)), Box::new(pattern(value)))
    } else if text == "dyn" {
        Pattern::Dyn
    } else if text.starts_with(|c: char| c.is_ascii_uppercase()) {
        Pattern::Parameter(text)
    } else {
        Pattern::Simple(text)
    }
}

type Bindings<'a> = HashMap<&'static str, Type<'a>>;

fn fits<'a>(pattern: &Pattern, given: &Type<'a>, bindings: &mut Bindings<'a>) -> bool {
    match (pattern, given) {
        (Pattern::Parameter(name), _) => {
            let bound = bindings.get(name).cloned().unwrap_or(Type::Free);
            let Some(joined) = bound.join(given) else { return false };
            bindings.insert(*name, joined);
            true
        }
        (_, Type::Dyn | Type::Free) | (Pattern::Dyn, _) => true,
        (Pattern::Simple(name), Type::Simple(actual)) => name == actual,
        (Pattern::List(of), Type::List(actual)) | (Pattern::Optional(of), Type::Optional(actual)) => {
            fits(of, actual, bindings)
        }
        (Pattern::Map(key, value), Type::Map(actual_key, actual_value)) => {
            fits(key, actual_key, bindings) && fits(value, actual_value, bindings)
        }
        _ => false,
    }
}

fn build<'a>(pattern: &Pattern, bindings: &Bindings<'a>) -> Type<'a> {
    let boxed = |of: &Pattern| Box::new(build(of, bindings));
    match pattern {
        Pattern::Parameter(name) => bindings.get(name).cloned().unwrap_or(Type::Free),
        Pattern::Dyn => Type::Dyn,
        Pattern::Simple(name) => Type::Simple(name),
        Pattern::List(of) => Type::List(boxed(of)),
        Pattern::Map(key, value) => Type::Map(boxed(key), boxed(value)),
        Pattern::Optional(of) => Type::Optional(boxed(of)),
    }
}

/// Returns whether a function with this name exists.
pub(super) fn is_function(name: &str) -> bool {
    SIGNATURES.contains_key(name)
}

/// Returns whether function names begin with this word and a dot.
pub(super) fn is_namespace(word: &str) -> bool {
    let begins = |name: &&str| name.strip_prefix(word).is_some_and(|rest| rest.starts_with('.'));
    SIGNATURES.keys().any(begins)
}

/// Returns the result type of a call, or `None` if no function of that name accepts these arguments.
pub(super) fn call<'a>(name: &str, receiver: Option<&Type<'a>>, arguments: &[Type<'a>]) -> Option<Type<'a>> {
    let mut found: Option<Type<'a>> = None;
    for signature in SIGNATURES.get(name).into_iter().flatten() {
        let mut bindings = Bindings::new();
        let takes_receiver = match (&signature.receiver, receiver) {
            (Some(wanted), Some(given)) => fits(wanted, given, &mut bindings),
            (None, None) => true,
            _ => false,
        };
        let takes = takes_receiver
            && signature.parameters.len() == arguments.len()
            && std::iter::zip(&signature.parameters, arguments).all(|(p, a)| fits(p, a, &mut bindings));
        if takes {
            let result = build(&signature.result, &bindings);
            // Several overloads can match if a type is not known exactly.
            found = Some(match found {
                None => result,
                Some(other) => other.join(&result).unwrap_or(Type::Dyn),
            });
        }
    }
    found
}
