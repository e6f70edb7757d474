//! Follows `docs/guides/install.md` as a new user would: runs every command block of it, in order, in one shell, on the
//! harness' cluster.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test ends at the first thing that is not as it should be, and shows what the commands printed"
)]

use std::{fs, process::Command};

use anyhow::{Context as _, ensure};
use legion_tests::{
    cluster::{REGISTRY, cluster_directory},
    guide,
    local::{repository, text},
    tool,
};

const PAGE: &str = "docs/guides/install.md";

#[test]
#[ignore = "needs the harness' cluster: cargo xtask test --kubernetes"]
fn every_command_of_the_page_runs() -> anyhow::Result<()> {
    cluster_directory()?;
    let blocks = guide::blocks(PAGE)?;
    ensure!(blocks.len() > 10, "only {} command blocks", blocks.len());
    // The commands write files. They run in a directory of links, so that nothing is written into the checkout.
    let directory = tempfile::tempdir()?;
    for entry in fs::read_dir(repository())? {
        let entry = entry?;
        std::os::unix::fs::symlink(
            fs::canonicalize(entry.path())?,
            directory.path().join(entry.file_name()),
        )?;
    }
    let programs = tool::path("helm")?.parent().context("a directory")?.to_owned();
    let path = std::env::var("PATH")?;
    let output = Command::new("bash")
        .args(["-c", &guide::script(PAGE, &blocks)])
        .current_dir(directory.path())
        .env("REGISTRY", REGISTRY)
        .env("PATH", format!("{}:{path}", programs.display()))
        .env("HOME", directory.path())
        .output()?;
    let said = text(&output);
    ensure!(output.status.success(), "{}\n{said}", output.status);
    ensure!(
        said.contains("val_accuracy=0.9714"),
        "the page shows the score of its training:\n{said}"
    );
    println!("{} command blocks ran", blocks.len());
    Ok(())
}
