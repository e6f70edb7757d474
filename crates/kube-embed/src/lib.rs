//! An embedded, single-node Kubernetes API for tests and for one machine.
