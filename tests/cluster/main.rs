//! Faults that only a real cluster has: of nodes, quotas, policies, images, and of Kubernetes' own parts.
//!
//! `cargo xtask test --kubernetes` runs them in the harness' cluster. Those of [`alone`] run one at a time, the others
//! in parallel (`--skip=alone::`).
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails at the first unexpected result"
)]

mod admission;
mod alone;
mod images;
mod pods;
mod resources;
mod tenants;

use anyhow::ensure;
use legion_tests::{
    cluster::{Backend, Cluster, name_of, script},
    local::succeeded,
};
use serde_json::Value;

/// A command that runs until [`let_go`].
pub const UNTIL_RELEASED: &str =
    "echo under way\nwhile [ ! -e /tmp/go ]; do sleep 0.2; done\necho 1 > \"$LEGION_OUTPUT/model/weights\"";
/// A command that ends immediately.
pub const QUICK: &str = "echo 1 > \"$LEGION_OUTPUT/model/weights\"";

/// Creates a namespace in the real cluster.
pub fn cluster(purpose: &str) -> anyhow::Result<Cluster> {
    Cluster::new(Backend::Kubernetes, purpose)
}

/// Applies a training whose command runs until [`let_go`]. Returns its pod once that command has started.
pub fn under_way(cluster: &Cluster, name: &str, spec: Value) -> anyhow::Result<Value> {
    cluster.apply(&script(name, UNTIL_RELEASED, spec))?;
    cluster.printed(name, "under way")
}

/// Lets the command [`UNTIL_RELEASED`] of a pod end.
pub fn let_go(cluster: &Cluster, pod: &Value) -> anyhow::Result<()> {
    let name = name_of(pod)?;
    cluster
        .run(&["exec", name, "--container=trainer", "--", "sh", "-c", ": > /tmp/go"])
        .map(drop)
}

/// Fails unless a training succeeded in this attempt of its first run.
pub fn ended_in_attempt(training: &Value, attempt: i64) -> anyhow::Result<()> {
    let run = &training["status"]["run"];
    ensure!(
        succeeded(training)["status"] == "True" && run["attempt"] == attempt && run["sequence"] == 1,
        "not a success in attempt {attempt} of run 1: {:#}",
        training["status"]
    );
    Ok(())
}
