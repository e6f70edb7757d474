//! The view of a schema that server-side apply and strategic merge need.

use std::sync::Arc;

use super::node::Node;

/// How the parts of an object merge: from a custom resource's schema, from a built-in kind, or
/// guessed for an object without a schema (maps merge, lists are one value).
#[derive(Clone, Debug)]
pub struct TypeInfo {
    root: Arc<Node>,
}

impl TypeInfo {
    pub(crate) fn new(root: Arc<Node>) -> Self {
        Self { root }
    }

    /// For objects without a schema.
    pub fn untyped() -> Self {
        Self::new(Arc::new(Node::anything()))
    }

    pub(crate) fn root(&self) -> &Node {
        &self.root
    }
}
