//! Legion under GitOps: how tools that wait read every state, and what repeated apply, pruning and deletion do on a
//! real API server.
//!
//! Tests of the server need a cluster and are ignored without one:
//! `cargo xtask cluster run -- cargo test -p legion-tests --test gitops -- --ignored`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop where it stands")]

mod apply;
mod argocd;
mod kstatus;
mod manifests;
mod states;
