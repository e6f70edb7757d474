//! Legion under GitOps: what the tools that wait make of every state, and what applying again, pruning and deleting does on a
//! real API server.
//!
//! Those of the server need a cluster and are ignored without one:
//! `cargo xtask cluster run -- cargo test -p legion-tests --test gitops -- --ignored`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop where it stands")]

mod apply;
mod argocd;
mod kstatus;
mod manifests;
mod states;
