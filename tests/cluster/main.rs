//! What only a real cluster can do to a training: nodes, quotas, policies, images, and the parts of Kubernetes itself.
//!
//! `cargo xtask test --kubernetes` runs them in the harness' cluster: those of [`alone`] one at a time, the others beside each
//! other (`--skip=alone::`).
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test ends at the first thing that is not as it should be"
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

/// A command that goes on until [`let_go`].
pub const UNTIL_TOLD: &str =
    "echo under way\nwhile [ ! -e /tmp/go ]; do sleep 0.2; done\necho 1 > \"$LEGION_OUTPUT/model/weights\"";
/// A command that is done at once.
pub const QUICK: &str = "echo 1 > \"$LEGION_OUTPUT/model/weights\"";

/// A namespace in the real cluster.
pub fn cluster(purpose: &str) -> anyhow::Result<Cluster> {
    Cluster::new(Backend::Kubernetes, purpose)
}

/// Applies a training whose command goes on until [`let_go`]; gives back its pod once that command has begun.
pub fn under_way(cluster: &Cluster, name: &str, spec: Value) -> anyhow::Result<Value> {
    cluster.apply(&script(name, UNTIL_TOLD, spec))?;
    cluster.printed(name, "under way")
}

/// Lets the command [`UNTIL_TOLD`] of a pod come to its end.
pub fn let_go(cluster: &Cluster, pod: &Value) -> anyhow::Result<()> {
    let name = name_of(pod)?;
    cluster
        .run(&["exec", name, "--container=trainer", "--", "sh", "-c", ": > /tmp/go"])
        .map(drop)
}

/// Fails unless a training came to its end in this attempt of its first run, with one success.
pub fn ended_in_attempt(training: &Value, attempt: i64) -> anyhow::Result<()> {
    let run = &training["status"]["run"];
    ensure!(
        succeeded(training)["status"] == "True" && run["attempt"] == attempt && run["sequence"] == 1,
        "not a success in attempt {attempt} of run 1: {:#}",
        training["status"]
    );
    Ok(())
}
