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
    local::{repository, text},
    tool,
};

/// Returns the command blocks of a page, each with its first line number.
fn blocks(page: &str) -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (index, line) in page.lines().enumerate() {
        match &mut open {
            None if line == "```sh" => open = Some((index + 1, String::new())),
            None => {}
            Some(_) if line == "```" => blocks.extend(open.take()),
            Some((_, block)) => {
                block.push_str(line);
                block.push('\n');
            }
        }
    }
    blocks
}

#[test]
#[ignore = "needs the harness' cluster: cargo xtask test --kubernetes"]
fn every_command_of_the_page_runs() -> anyhow::Result<()> {
    cluster_directory()?;
    let page = fs::read_to_string(repository().join("docs/guides/install.md"))?;
    let blocks = blocks(&page);
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
    let mut script = String::from("set -euo pipefail\n");
    for (line, block) in &blocks {
        script.push_str(&format!(
            "echo '== docs/guides/install.md, line {line}'\nset -x\n{block}{{ set +x; }} 2>/dev/null\n"
        ));
    }
    let programs = tool::path("helm")?.parent().context("a directory")?.to_owned();
    let path = std::env::var("PATH")?;
    let output = Command::new("bash")
        .args(["-c", &script])
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
