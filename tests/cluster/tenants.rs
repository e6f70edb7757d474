//! Trainings of two tenants in one cluster.

use anyhow::{Context as _, ensure};

use crate::{cluster, ended_in_attempt};

#[test]
#[ignore = "needs a cluster with Legion: cargo xtask test --kubernetes"]
fn trainings_of_two_tenants_stay_separate() -> anyhow::Result<()> {
    let (red, blue) = (cluster("tenant-red")?, cluster("tenant-blue")?);
    let wine = std::fs::read_to_string(legion_tests::local::repository().join("examples/wine/training.yaml"))?;
    red.apply(&wine)?;
    blue.apply(&wine)?;
    let mut uris = Vec::new();
    for tenant in [&red, &blue] {
        let training = tenant.success("wine")?;
        ended_in_attempt(&training, 1)?;
        ensure!(
            training["status"]["score"] == "val_accuracy=0.9714",
            "{:#}",
            training["status"]
        );
        let uri = training["status"]["artifact"]["uri"]
            .as_str()
            .context("an artifact")?
            .to_owned();
        ensure!(uri.contains(tenant.namespace()), "{uri}");
        uris.push(uri);
    }
    ensure!(uris[0] != uris[1], "{uris:?}");
    Ok(())
}
