//! The compiled form of a schema. One [`Node`] tree serves pruning, defaulting, validation, server-side apply and
//! strategic merge, for both custom and built-in kinds.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::formats::Format;
use super::rule::Rule;

/// A JSON type as OpenAPI names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JsonType {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

impl JsonType {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "object" => Self::Object,
            "array" => Self::Array,
            "string" => Self::String,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "boolean" => Self::Boolean,
            _ => return None,
        })
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

/// The fields of an object that are allowed beside its named properties.
#[derive(Debug, Default)]
pub(crate) enum Additional {
    /// None: other fields are unknown.
    #[default]
    Absent,
    /// Anything.
    Any,
    /// Values of one schema. The object is a map.
    Schema(Arc<Node>),
}

/// How list entries are identified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum ListKind {
    /// The list is atomic.
    #[default]
    Atomic,
    /// Each scalar is its own key.
    Set,
    /// Objects are identified by these fields.
    Map(Vec<String>),
}

/// Strategic-merge information of a built-in field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Strategic {
    /// The key by which lists are merged. An empty key means a list of primitives that merges as a set.
    pub(crate) merge_key: Option<&'static str>,
    /// Whether `$retainKeys` is supported.
    pub(crate) retain_keys: bool,
}

/// A pattern and its source text, which error messages quote.
#[derive(Debug)]
pub(crate) struct Pattern {
    pub(crate) source: String,
    pub(crate) regex: regex::Regex,
}

/// Value validations: restrictions that do not define structure.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    pub(crate) enumeration: Option<Vec<Value>>,
    pub(crate) pattern: Option<Pattern>,
    pub(crate) format: Option<Format>,
    pub(crate) minimum: Option<f64>,
    pub(crate) exclusive_minimum: bool,
    pub(crate) maximum: Option<f64>,
    pub(crate) exclusive_maximum: bool,
    pub(crate) multiple_of: Option<f64>,
    pub(crate) min_length: Option<u64>,
    pub(crate) max_length: Option<u64>,
    pub(crate) min_items: Option<u64>,
    pub(crate) max_items: Option<u64>,
    pub(crate) unique_items: bool,
    pub(crate) min_properties: Option<u64>,
    pub(crate) max_properties: Option<u64>,
    pub(crate) required: Vec<String>,
    pub(crate) all_of: Vec<Arc<Node>>,
    pub(crate) any_of: Vec<Arc<Node>>,
    pub(crate) one_of: Vec<Arc<Node>>,
    pub(crate) not: Option<Arc<Node>>,
}

/// One node of a compiled schema.
#[derive(Debug, Default)]
pub(crate) struct Node {
    pub(crate) kind: Option<JsonType>,
    pub(crate) nullable: bool,
    pub(crate) int_or_string: bool,
    pub(crate) preserve_unknown: bool,
    pub(crate) embedded_resource: bool,
    /// Whether this node is a `metadata`. CEL sees only its `name` and `generateName`.
    pub(crate) object_meta: bool,
    pub(crate) properties: BTreeMap<String, Arc<Node>>,
    pub(crate) additional: Additional,
    pub(crate) items: Option<Arc<Node>>,
    pub(crate) default: Option<Value>,
    pub(crate) list: ListKind,
    pub(crate) atomic_map: bool,
    pub(crate) strategic: Strategic,
    pub(crate) checks: Checks,
    pub(crate) rules: Vec<Rule>,
    /// Whether this node or a descendant has CEL rules. Other branches are skipped.
    pub(crate) has_rules: bool,
    /// Whether this node or a descendant has a default.
    pub(crate) has_defaults: bool,
    /// Whether this node or a descendant is a list-set or a list-map.
    pub(crate) has_keyed_lists: bool,
}

impl Node {
    /// Returns a node that accepts and keeps any value.
    pub(crate) fn anything() -> Self {
        Self {
            preserve_unknown: true,
            ..Self::default()
        }
    }

    /// Returns the schema of a field of an object.
    pub(crate) fn child(&self, name: &str) -> Option<&Arc<Node>> {
        self.properties.get(name).or(match &self.additional {
            Additional::Schema(node) => Some(node),
            _ => None,
        })
    }

    pub(super) fn settle(&mut self) {
        let mut below: Vec<&Arc<Node>> = self.properties.values().collect();
        below.extend(self.items.iter());
        if let Additional::Schema(node) = &self.additional {
            below.push(node);
        }
        let has_rules = !self.rules.is_empty() || below.iter().any(|n| n.has_rules);
        let has_defaults = self.default.is_some() || below.iter().any(|n| n.has_defaults);
        let has_keyed_lists = self.list != ListKind::Atomic || below.iter().any(|n| n.has_keyed_lists);
        self.has_rules = has_rules;
        self.has_defaults = has_defaults;
        self.has_keyed_lists = has_keyed_lists;
    }
}
