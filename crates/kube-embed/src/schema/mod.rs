//! Schemas: pruning, defaulting and validation of custom resources and of built-in kinds.
//!
//! Everything here is a pure function of JSON values. A custom resource's schema is compiled once
//! into a [`CrdSchema`]; built-in kinds are in [`builtin`].

pub mod builtin;
mod cel;
mod compiled;
mod default;
mod error;
mod formats;
pub(crate) mod node;
pub(crate) mod path;
mod prune;
mod regexp;
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

pub use builtin::Gvk;
pub use error::{FieldError, FieldReason, aggregate};
pub use typeinfo::TypeInfo;

use node::{Compiler, Node};

/// A compiled custom resource schema.
#[derive(Clone, Debug)]
pub struct CrdSchema {
    root: Arc<Node>,
    id: u64,
}

/// Schemas are numbered as they are compiled; no two of a process share a number, and none has 0.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl CrdSchema {
    /// Compiles `openAPIV3Schema`, or tells why Kubernetes would not take it: not structural, outside
    /// the supported subset of OpenAPI, a rule or pattern that does not parse, an invalid default.
    /// Paths start at `spec.validation.openAPIV3Schema`, as upstream words them when all versions
    /// share a schema.
    pub fn compile(schema: &Value) -> Result<Self, Vec<FieldError>> {
        Self::compile_at(schema, "spec.validation.openAPIV3Schema")
    }

    /// As [`CrdSchema::compile`], with the path under which errors are reported.
    pub fn compile_at(schema: &Value, at: &str) -> Result<Self, Vec<FieldError>> {
        compiled::shared(schema, || Self::compile_anew(schema, at))
    }

    fn compile_anew(schema: &Value, at: &str) -> Result<Self, Vec<FieldError>> {
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

    /// What tells this schema from all others of this process.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Removes fields that the schema does not know and returns their paths, sorted.
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        prune::prune(object, &self.root)
    }

    /// Drops nulls that are not nullable and fills defaults in.
    pub fn default(&self, object: &mut Value) {
        default::default(object, &self.root);
    }

    /// Validates an object on creation (`old` absent) or update: structure first, then, unless that
    /// failed in a way that makes rules meaningless, the CEL rules.
    pub fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = validate::validate(new, old, &self.root);
        // Duplicates that were stored already are not held against an update.
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

    /// Whether there are rules, which are not checked while something else is wrong.
    pub fn has_rules(&self) -> bool {
        self.root.has_rules
    }

    /// How objects of this schema merge.
    pub fn types(&self) -> TypeInfo {
        TypeInfo::new(self.root.clone())
    }
}

/// A default must itself be a valid, fully known value of its schema.
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
        // What the API server would make of the default is what must be valid.
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
