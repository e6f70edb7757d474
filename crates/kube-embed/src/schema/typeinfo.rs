//! The part of a schema that server-side apply and strategic merge use.

use std::sync::Arc;

use super::node::Node;

/// How the parts of an object merge. The source is a custom resource's schema or a built-in kind. Without a schema,
/// maps merge and lists are atomic.
#[derive(Clone, Debug)]
pub struct TypeInfo {
    root: Arc<Node>,
}

impl TypeInfo {
    pub(crate) fn new(root: Arc<Node>) -> Self {
        Self { root }
    }

    /// Creates the information for objects without a schema.
    pub fn untyped() -> Self {
        Self::new(Arc::new(Node::anything()))
    }

    pub(crate) fn root(&self) -> &Node {
        &self.root
    }
}
