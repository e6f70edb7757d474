//! Compiles JSON schemas to [`Node`] trees.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::error::FieldError;
use super::formats::Format;
use super::node::{Additional, Checks, JsonType, ListKind, Node, Pattern, Strategic};
use super::regexp;
use super::rule_compiler;

/// Compiles JSON schemas to nodes.
///
/// Custom resources have no references. Built-in kinds refer to named definitions and share their nodes. Their list
/// and merge keys come from an overlay by definition and field.
pub(crate) struct Compiler<'a> {
    definitions: Option<&'a Map<String, Value>>,
    tables: Tables,
    done: HashMap<String, Arc<Node>>,
    open: Vec<String>,
    object_meta: Option<Arc<Node>>,
    errors: Vec<FieldError>,
}

/// Functions that return information about built-in definitions beyond their JSON schemas.
#[derive(Clone, Copy)]
pub(crate) struct Tables {
    /// Returns the information about a field of a definition.
    pub(crate) overlay: fn(definition: &str, field: &str) -> Overlay,
    /// Returns whether objects of a definition are atomic.
    pub(crate) is_atomic: fn(definition: &str) -> bool,
}

/// Information about one field from the built-in tables.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Overlay {
    pub(crate) list: ListKind,
    pub(crate) atomic_map: bool,
    pub(crate) strategic: Strategic,
    pub(crate) default: Option<Value>,
}

impl<'a> Compiler<'a> {
    /// Creates a compiler for a custom resource. `object_meta` is used for every implicit `metadata`.
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

    /// Creates a compiler for built-in definitions.
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

    /// Compiles the root of a custom resource.
    pub(crate) fn root(&mut self, schema: &Value, at: &str) -> Node {
        self.build(schema, at, "", true)
    }

    /// Returns the errors of rules and patterns that do not compile.
    pub(crate) fn into_errors(self) -> Vec<FieldError> {
        self.errors
    }

    /// Returns the node of a named built-in definition.
    pub(crate) fn definition(&mut self, name: &str) -> Arc<Node> {
        if let Some(node) = self.done.get(name) {
            return node.clone();
        }
        // The recursion of a definition that contains itself (JSONSchemaProps) ends in a node that accepts any value.
        // Its inner fields are neither pruned nor merged by key.
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
        // Rules are last, because they are checked against everything above.
        if let Some(rules) = schema.get("x-kubernetes-validations").and_then(Value::as_array) {
            for (i, raw) in rules.iter().enumerate() {
                match rule_compiler::compile(raw, &node, &format!("{at}.x-kubernetes-validations[{i}]")) {
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

    /// Adds `apiVersion`, `kind` and `metadata`. Every resource has these three, even if they are not in its schema.
    /// The schema can only restrict the name.
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

/// Returns the definition that a built-in schema refers to. The reference is either plain or, next to a description,
/// the only member of `allOf`.
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
    // Property nodes of lists and maps were created above, so this is the only owner. A shared definition (an atomic
    // object such as a selector) is copied at its top level only.
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

/// Returns whether a definition has only the type "object" in its schema but accepts any content.
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
