//! The program behind `cargo xtask cluster` and `cargo xtask image`.

#![allow(clippy::print_stderr, reason = "a command-line tool reports errors on stderr")]

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use legion_cluster::{cluster, image};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Builds the images with Buildah and prints their sizes.
    Image(image::Options),
    /// A complete Kubernetes on this machine, for tests.
    Cluster {
        #[command(subcommand)]
        action: cluster::Action,
    },
}

fn main() -> ExitCode {
    let root = xtask::repository();
    let result = match Cli::parse().command {
        Command::Image(options) => image::run(&root, &options),
        Command::Cluster { action } => cluster::act(&root, action),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
