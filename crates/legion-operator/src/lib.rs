//! The Kubernetes operator: observe, decide, act, settle.
