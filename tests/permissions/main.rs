//! Runs after all other suites in a real cluster. Checks in the API server's audit log that the operator used exactly
//! the permissions of its table.
#![allow(clippy::print_stdout, reason = "how much was compared belongs to the result")]

use anyhow::ensure;
use legion_tests::{audit, cluster::cluster_directory};

/// Permissions that only a status write with a conflict needs. The in-process tests provoke a conflict at every write.
/// Here it cannot be provoked.
const ON_CONFLICT: [&str; 3] = ["modeltrainings", "connections", "toolchainintegrations"];

#[test]
#[ignore = "needs the log of the other suites: cargo xtask test --kubernetes"]
fn the_operator_used_every_permission_and_lacked_none() -> anyhow::Result<()> {
    let log = cluster_directory()?.join("logs/audit.log");
    let mut report = audit::compare(&log, "legion-system", "legion-operator", "legion-operator")?;
    println!("{} requests of the operator were compared", report.requests);
    ensure!(
        report.requests > 100,
        "{} requests of the operator are in the log: the other suites have not run",
        report.requests
    );
    report.unused.retain(|unused| {
        !ON_CONFLICT
            .iter()
            .any(|resource| unused.starts_with(&format!("get {resource}")))
    });
    ensure!(
        report.missing.is_empty(),
        "not in the table, or refused: {:#?}",
        report.missing
    );
    ensure!(
        report.unused.is_empty(),
        "in the table, and never asked for: {:#?}",
        report.unused
    );
    Ok(())
}
