//! Many concurrent trainings on a real control plane with a fake kubelet, beside the same number of plain Jobs and the
//! raw rate of creating pods, in one run: `docs/reports/benchmarks.md` says how, and what came out.
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
    /// Directory of the harness' cluster. It has no node and no running scheduler.
    #[arg(long, env = "LEGION_CLUSTER")]
    cluster: PathBuf,
    /// The operator's binary, a release build. Default: the one of cargo's target directory.
    #[arg(long, default_value_os_t = built("release/legion-operator"))]
    operator: PathBuf,
    /// The binary behind `cargo xtask cluster`. Default: the one of cargo's target directory.
    #[arg(long, default_value_os_t = built("debug/legion-cluster"))]
    xtask: PathBuf,
    /// Number of trainings, and of Jobs.
    #[arg(long, default_value_t = 1000)]
    objects: usize,
    /// Number of rounds of each contest.
    #[arg(long, default_value_t = 3)]
    repeat: usize,
    /// Also run the contest with Jobs at the controller manager's default limits. It takes minutes.
    #[arg(long)]
    shipped: bool,
    /// Number of finished trainings beside a restarted operator. 0 skips that measurement.
    #[arg(long, default_value_t = 10_000)]
    finished: usize,
}

/// Returns the path of a built program.
fn built(program: &str) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| "target".into(), PathBuf::from)
        .join(program)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    contest::hold(&Options::parse()).await
}
