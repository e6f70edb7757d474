//! The compiled form of a schema: one [`Node`] tree serves pruning, defaulting, validation,
//! server-side apply and strategic merge, for custom and for built-in kinds alike.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::cel::Rule;
use super::error::FieldError;
use super::formats::Format;
use super::regexp;

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

/// What may stand beside the named properties of an object.
#[derive(Debug, Default)]
pub(crate) enum Additional {
    /// Nothing: other fields are unknown.
    #[default]
    Absent,
    /// Anything.
    Any,
    /// Values of one schema: the object is a map.
    Schema(Arc<Node>),
}

/// How the entries of a list are identified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum ListKind {
    /// The list is one value.
    #[default]
    Atomic,
    /// Each scalar is its own key.
    Set,
    /// Objects are told apart by these fields.
    Map(Vec<String>),
}

/// Strategic-merge information of a built-in field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Strategic {
    /// Lists are merged by this key; an empty key means a list of primitives that merges as a set.
    pub(crate) merge_key: Option<&'static str>,
    /// `$retainKeys` is understood here.
    pub(crate) retain_keys: bool,
}

/// A pattern with the text that error messages quote.
#[derive(Debug)]
pub(crate) struct Pattern {
    pub(crate) source: String,
    pub(crate) regex: regex::Regex,
}

/// Value validations: everything that narrows without giving structure.
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
    /// This node is a `metadata`: CEL sees only `name` and `generateName` of it.
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
    /// This node or one below has CEL rules; branches without are skipped.
    pub(crate) has_rules: bool,
    /// This node or one below has a default.
    pub(crate) has_defaults: bool,
    /// This node or one below is a list-set or a list-map.
    pub(crate) has_keyed_lists: bool,
}

impl Node {
    /// A node that accepts and keeps anything.
    pub(crate) fn anything() -> Self {
        Self {
            preserve_unknown: true,
            ..Self::default()
        }
    }

    /// The schema of a field of an object.
    pub(crate) fn child(&self, name: &str) -> Option<&Arc<Node>> {
        self.properties.get(name).or(match &self.additional {
            Additional::Schema(node) => Some(node),
            _ => None,
        })
    }

    fn settle(&mut self) {
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

/// Turns JSON schemas into nodes.
///
/// Custom resources have no references; built-in kinds refer to named definitions, whose nodes are
/// shared, and get their list and merge keys from an overlay by definition and field.
pub(crate) struct Compiler<'a> {
    definitions: Option<&'a Map<String, Value>>,
    tables: Tables,
    done: HashMap<String, Arc<Node>>,
    open: Vec<String>,
    object_meta: Option<Arc<Node>>,
    errors: Vec<FieldError>,
}

/// What is known about built-in definitions beyond their JSON schemas.
#[derive(Clone, Copy)]
pub(crate) struct Tables {
    /// Knowledge about a field of a definition.
    pub(crate) overlay: fn(definition: &str, field: &str) -> Overlay,
    /// Whether objects of a definition are one value.
    pub(crate) is_atomic: fn(definition: &str) -> bool,
}

/// What the built-in tables know about one field.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Overlay {
    pub(crate) list: ListKind,
    pub(crate) atomic_map: bool,
    pub(crate) strategic: Strategic,
    pub(crate) default: Option<Value>,
}

impl<'a> Compiler<'a> {
    /// A compiler for a custom resource; `object_meta` becomes every implicit `metadata`.
    pub(crate) fn for_custom_resource(object_meta: Arc<Node>) -> Self {
        Self {
            definitions: None,
            tables: Tables {
                overlay: |_, _| Overlay::default(),
                is_atomic: |_| false,
            },
            done: HashMap::new(),
            open: Vec::new(),
            object_meta: Some(object_meta),
            errors: Vec::new(),
        }
    }

    /// A compiler for built-in definitions.
    pub(crate) fn for_definitions(definitions: &'a Map<String, Value>, tables: Tables) -> Self {
        Self {
            definitions: Some(definitions),
            tables,
            done: HashMap::new(),
            open: Vec::new(),
            object_meta: None,
            errors: Vec::new(),
        }
    }

    /// The root of a custom resource.
    pub(crate) fn root(&mut self, schema: &Value, at: &str) -> Node {
        self.build(schema, at, "", true)
    }

    /// Errors found on the way: rules and patterns that do not compile.
    pub(crate) fn into_errors(self) -> Vec<FieldError> {
        self.errors
    }

    /// The node of a named built-in definition.
    pub(crate) fn definition(&mut self, name: &str) -> Arc<Node> {
        if let Some(node) = self.done.get(name) {
            return node.clone();
        }
        // A definition that contains itself (JSONSchemaProps) ends in a node that accepts anything:
        // its inner fields are neither pruned nor merged by key.
        if self.open.iter().any(|open| open == name) {
            return Arc::new(Node::anything());
        }
        let Some(schema) = self.definitions.and_then(|d| d.get(name)) else {
            return Arc::new(Node::anything());
        };
        self.open.push(name.to_owned());
        let mut node = self.node(schema, name, name);
        node.object_meta = name.ends_with(".meta.v1.ObjectMeta");
        node.atomic_map |= (self.tables.is_atomic)(name);
        if opaque_definition(name) {
            node.preserve_unknown = true;
        }
        node.settle();
        self.open.pop();
        let node = Arc::new(node);
        self.done.insert(name.to_owned(), node.clone());
        node
    }

    fn arc(&mut self, schema: &Value, at: &str, definition: &str) -> Arc<Node> {
        if let Some(reference) = reference(schema) {
            let name = reference.rsplit('/').next().unwrap_or(reference).to_owned();
            return self.definition(&name);
        }
        Arc::new(self.node(schema, at, definition))
    }

    fn node(&mut self, schema: &Value, at: &str, definition: &str) -> Node {
        self.build(schema, at, definition, false)
    }

    fn build(&mut self, schema: &Value, at: &str, definition: &str, is_root: bool) -> Node {
        let flag = |name: &str| schema.get(name).and_then(Value::as_bool) == Some(true);
        let mut node = Node {
            kind: schema.get("type").and_then(Value::as_str).and_then(JsonType::parse),
            nullable: flag("nullable"),
            int_or_string: flag("x-kubernetes-int-or-string"),
            preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
            embedded_resource: flag("x-kubernetes-embedded-resource"),
            default: schema.get("default").filter(|d| !d.is_null()).cloned(),
            list: list_kind(schema),
            atomic_map: schema.get("x-kubernetes-map-type").and_then(Value::as_str) == Some("atomic"),
            checks: self.checks(schema, at, definition),
            ..Node::default()
        };
        if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
            for (name, child) in properties {
                let child_at = format!("{at}.properties[{name}]");
                let mut compiled = self.arc(child, &child_at, definition);
                if self.definitions.is_some() {
                    compiled = overlaid(compiled, (self.tables.overlay)(definition, name));
                }
                node.properties.insert(name.clone(), compiled);
            }
        }
        node.additional = match schema.get("additionalProperties") {
            None | Some(Value::Bool(false)) => Additional::Absent,
            Some(Value::Bool(true)) => Additional::Any,
            Some(child) => Additional::Schema(self.arc(child, &format!("{at}.additionalProperties"), definition)),
        };
        if let Some(items) = schema.get("items") {
            node.items = Some(self.arc(items, &format!("{at}.items"), definition));
        }
        if node.embedded_resource || is_root {
            self.add_type_and_object_meta(&mut node, schema.pointer("/properties/metadata"), at);
        }
        // Last, because rules are checked against everything above.
        if let Some(rules) = schema.get("x-kubernetes-validations").and_then(Value::as_array) {
            for (i, raw) in rules.iter().enumerate() {
                match Rule::compile(raw, &node, &format!("{at}.x-kubernetes-validations[{i}]")) {
                    Ok(rule) => node.rules.push(rule),
                    Err(error) => self.errors.push(error),
                }
            }
        }
        node.settle();
        node
    }

    fn checks(&mut self, schema: &Value, at: &str, definition: &str) -> Checks {
        let float = |name: &str| schema.get(name).and_then(Value::as_f64);
        let count = |name: &str| schema.get(name).and_then(Value::as_u64);
        let flag = |name: &str| schema.get(name).and_then(Value::as_bool) == Some(true);
        let mut branches = |name: &str| -> Vec<Arc<Node>> {
            let list = schema
                .get(name)
                .and_then(Value::as_array)
                .map(Vec::as_slice)
                .unwrap_or_default();
            list.iter()
                .enumerate()
                .map(|(i, branch)| self.arc(branch, &format!("{at}.{name}[{i}]"), definition))
                .collect()
        };
        let (all_of, any_of, one_of) = (branches("allOf"), branches("anyOf"), branches("oneOf"));
        let not = schema.get("not").map(|n| self.arc(n, &format!("{at}.not"), definition));
        let pattern = schema
            .get("pattern")
            .and_then(Value::as_str)
            .filter(|p| !p.is_empty())
            .and_then(|source| match regexp::compile(source) {
                Ok(regex) => Some(Pattern {
                    source: source.to_owned(),
                    regex,
                }),
                Err(error) => {
                    self.errors.push(FieldError::invalid(
                        format!("{at}.pattern"),
                        source,
                        format!("must be a valid regular expression, but isn't: {error}"),
                    ));
                    None
                }
            });
        Checks {
            enumeration: schema
                .get("enum")
                .and_then(Value::as_array)
                .filter(|e| !e.is_empty())
                .cloned(),
            pattern,
            format: Format::of(
                schema.get("type").and_then(Value::as_str),
                schema.get("format").and_then(Value::as_str),
            ),
            minimum: float("minimum"),
            exclusive_minimum: flag("exclusiveMinimum"),
            maximum: float("maximum"),
            exclusive_maximum: flag("exclusiveMaximum"),
            multiple_of: float("multipleOf"),
            min_length: count("minLength"),
            max_length: count("maxLength"),
            min_items: count("minItems"),
            max_items: count("maxItems"),
            unique_items: flag("uniqueItems"),
            min_properties: count("minProperties"),
            max_properties: count("maxProperties"),
            required: schema
                .get("required")
                .and_then(Value::as_array)
                .map(|r| r.iter().filter_map(Value::as_str).map(str::to_owned).collect())
                .unwrap_or_default(),
            all_of,
            any_of,
            one_of,
            not,
        }
    }

    /// Every resource has these three whether its schema says so or not; what a schema may add are
    /// restrictions of the name.
    fn add_type_and_object_meta(&mut self, node: &mut Node, metadata: Option<&Value>, at: &str) {
        let Some(object_meta) = self.object_meta.clone() else {
            return;
        };
        for field in ["apiVersion", "kind"] {
            node.properties.entry(field.to_owned()).or_insert_with(|| {
                Arc::new(Node {
                    kind: Some(JsonType::String),
                    ..Node::default()
                })
            });
        }
        let mut meta = Node {
            kind: Some(JsonType::Object),
            object_meta: true,
            properties: object_meta.properties.clone(),
            ..Node::default()
        };
        for field in ["name", "generateName"] {
            if let Some(restricted) = metadata.and_then(|m| m.get("properties")).and_then(|p| p.get(field)) {
                let child = self.node(
                    restricted,
                    &format!("{at}.properties[metadata].properties[{field}]"),
                    "",
                );
                meta.properties.insert(field.to_owned(), Arc::new(child));
            }
        }
        meta.settle();
        node.properties.insert("metadata".to_owned(), Arc::new(meta));
    }
}

/// What a built-in schema refers to: plainly, or, where a description stands beside it, as the only
/// member of `allOf`.
pub(crate) fn reference(schema: &Value) -> Option<&str> {
    schema
        .get("$ref")
        .or_else(|| schema.pointer("/allOf/0/$ref"))
        .and_then(Value::as_str)
}

fn overlaid(node: Arc<Node>, overlay: Overlay) -> Arc<Node> {
    if overlay == Overlay::default() {
        return node;
    }
    // Property nodes of lists and maps are freshly made above, so this is the only owner; a shared
    // definition (an atomic object such as a selector) is copied at its top level only.
    let mut own = Arc::try_unwrap(node).unwrap_or_else(|shared| Node {
        kind: shared.kind,
        nullable: shared.nullable,
        int_or_string: shared.int_or_string,
        preserve_unknown: shared.preserve_unknown,
        object_meta: shared.object_meta,
        atomic_map: shared.atomic_map,
        properties: shared.properties.clone(),
        additional: match &shared.additional {
            Additional::Absent => Additional::Absent,
            Additional::Any => Additional::Any,
            Additional::Schema(n) => Additional::Schema(n.clone()),
        },
        items: shared.items.clone(),
        default: shared.default.clone(),
        ..Node::default()
    });
    own.list = overlay.list;
    own.atomic_map |= overlay.atomic_map;
    own.strategic = overlay.strategic;
    own.default = overlay.default.or(own.default);
    own.settle();
    Arc::new(own)
}

/// Definitions whose schema says only "object" although any content is meant.
fn opaque_definition(name: &str) -> bool {
    [
        ".FieldsV1",
        ".RawExtension",
        ".CustomResourceSubresourceStatus",
        ".v1.JSON",
    ]
    .iter()
    .any(|opaque| name.ends_with(opaque))
}

fn list_kind(schema: &Value) -> ListKind {
    match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
        Some("set") => ListKind::Set,
        Some("map") => ListKind::Map(
            schema
                .get("x-kubernetes-list-map-keys")
                .and_then(Value::as_array)
                .map(|keys| keys.iter().filter_map(Value::as_str).map(str::to_owned).collect())
                .unwrap_or_default(),
        ),
        _ => ListKind::Atomic,
    }
}
