//! Many trainings at once on a real control plane with a fake kubelet, beside as many plain Jobs and beside the raw rate
//! of creating pods, in one run: `docs/benchmarks.md` says how, and what came out.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool speaks through them"
)]

mod contest;
mod log;
mod process;

use std::path::PathBuf;

use clap::Parser;

/// Measures Legion's operator on the control plane of KUBECONFIG, beside plain Jobs.
#[derive(Debug, Parser)]
struct Options {
    /// Directory of the harness' cluster, which has no node and no scheduler that runs.
    #[arg(long, env = "LEGION_CLUSTER")]
    cluster: PathBuf,
    /// The operator's program; a release build.
    #[arg(long, default_value = "target/release/legion-operator")]
    operator: PathBuf,
    /// The program of `cargo xtask`.
    #[arg(long, default_value = "target/debug/xtask")]
    xtask: PathBuf,
    /// How many trainings, and how many Jobs.
    #[arg(long, default_value_t = 1000)]
    objects: usize,
    /// How often each contest is held.
    #[arg(long, default_value_t = 3)]
    repeat: usize,
    /// Also hold the contest with Jobs at the controller manager's shipped limits, which takes minutes.
    #[arg(long)]
    shipped: bool,
    /// How many finished trainings a restarted operator finds; 0 leaves that measurement out.
    #[arg(long, default_value_t = 10_000)]
    finished: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    contest::hold(&Options::parse()).await
}
