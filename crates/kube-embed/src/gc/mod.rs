//! Garbage collection: owners, and the content of namespaces.
