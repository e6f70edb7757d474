//! Schemas: pruning, defaulting and validation of custom resources and of built-in kinds.
//!
//! All functions here are pure functions of JSON values. A custom resource's schema is compiled once into a
//! [`CrdSchema`]. Built-in kinds are in [`builtin`].

pub(crate) mod builtin;
mod cel;
mod compiled;
pub(crate) mod compiler;
mod correlation;
mod default;
mod error;
mod field_names;
mod formats;
pub(crate) mod node;
pub(crate) mod path;
mod prune;
mod regexp;
mod rule;
mod rule_compiler;
mod scope;
mod structural;
mod typeinfo;
mod types;
mod validate;

#[cfg(test)]
mod scope_tests;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

pub(crate) use self::builtin::Gvk;
use self::compiler::Compiler;
pub(crate) use self::error::{FieldError, FieldReason, aggregate};
use self::node::Node;
pub(crate) use self::typeinfo::TypeInfo;

/// A compiled custom resource schema.
#[derive(Clone, Debug)]
pub struct CrdSchema {
    root: Arc<Node>,
    id: u64,
}

/// Next schema number. A number is unique in this process, and 0 is never used.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl CrdSchema {
    /// Compiles `openAPIV3Schema`. Fails if Kubernetes would refuse the schema: it is not structural, it is outside
    /// the supported subset of OpenAPI, a rule or pattern does not parse, or a default is invalid. Paths start at
    /// `spec.validation.openAPIV3Schema`, as upstream reports them if all versions share a schema.
    pub fn compile(schema: &Value) -> Result<Self, Vec<FieldError>> {
        Self::compile_at(schema, "spec.validation.openAPIV3Schema")
    }

    /// Compiles a schema like [`CrdSchema::compile`] and reports errors below the path `at`.
    pub fn compile_at(schema: &Value, at: &str) -> Result<Self, Vec<FieldError>> {
        compiled::shared(schema, || Self::compile_uncached(schema, at))
    }

    fn compile_uncached(schema: &Value, at: &str) -> Result<Self, Vec<FieldError>> {
        let mut errors = structural::check(schema, at);
        if !errors.is_empty() {
            return Err(errors);
        }
        let mut compiler = Compiler::for_custom_resource(builtin::definitions::BUILTINS.object_meta.clone());
        let root = compiler.root(schema, at);
        errors.extend(compiler.into_errors());
        check_defaults(&root, at, &mut errors);
        if errors.is_empty() {
            Ok(Self {
                root: Arc::new(root),
                id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            })
        } else {
            Err(errors)
        }
    }

    /// Returns a number that identifies this schema in this process.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Removes fields that are not in the schema and returns their paths, sorted.
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        prune::prune(object, &self.root)
    }

    /// Removes nulls that are not nullable and fills in defaults.
    pub fn default(&self, object: &mut Value) {
        default::default(object, &self.root);
    }

    /// Validates an object on creation (`old` is `None`) or update. The structure is checked first. The CEL rules are
    /// evaluated next, unless structural errors make their results meaningless.
    pub fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = validate::validate(new, old, &self.root);
        // An update is not refused because of duplicates that were already stored.
        if old.is_none_or(|old| validate::keyed_lists(old, &self.root).is_empty()) {
            errors.extend(validate::keyed_lists(new, &self.root));
        }
        let blocking = errors.iter().any(|e| {
            matches!(
                e.reason,
                FieldReason::NotSupported
                    | FieldReason::Required
                    | FieldReason::TooLong
                    | FieldReason::TooMany
                    | FieldReason::TypeInvalid
            )
        });
        if blocking && self.root.has_rules {
            errors.push(FieldError::not_all_checked());
        } else if !blocking {
            errors.extend(cel::validate(new, old, &self.root));
        }
        errors
    }

    /// Returns whether the schema has rules. Rules are not evaluated while the structure has errors.
    pub fn has_rules(&self) -> bool {
        self.root.has_rules
    }

    /// Returns how objects of this schema merge.
    pub fn types(&self) -> TypeInfo {
        TypeInfo::new(self.root.clone())
    }
}

/// Checks that every default is a valid value of its schema without unknown fields.
fn check_defaults(node: &Node, at: &str, errors: &mut Vec<FieldError>) {
    if !node.has_defaults {
        return;
    }
    if let Some(value) = &node.default {
        let here = format!("{at}.default");
        let mut pruned = value.clone();
        for unknown in prune::prune(&mut pruned, node) {
            errors.push(FieldError::invalid(
                here.as_str(),
                value.clone(),
                format!("must not have unknown fields, but has {unknown}"),
            ));
        }
        // The API server fills in defaults inside the default, and the result must be valid.
        let mut value = value.clone();
        default::default(&mut value, node);
        let value = &value;
        for error in validate::validate(value, None, node)
            .into_iter()
            .chain(cel::validate(value, None, node))
        {
            let path = match error.path.as_str() {
                "" => here.clone(),
                below => format!("{here}.{below}"),
            };
            errors.push(FieldError { path, ..error });
        }
    }
    for (name, child) in &node.properties {
        check_defaults(child, &format!("{at}.properties[{name}]"), errors);
    }
    if let Some(items) = &node.items {
        check_defaults(items, &format!("{at}.items"), errors);
    }
    if let node::Additional::Schema(child) = &node.additional {
        check_defaults(child, &format!("{at}.additionalProperties"), errors);
    }
}
