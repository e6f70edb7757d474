//! Whatever is missing is named, and waited for.

use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use legion_api::{Connection, ToolchainIntegration};
use legion_testkit::{cluster::Cluster, manifests};

use crate::support::{LIMIT, logs, operator, reason, succeeded};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Part {
    Toolchain,
    Output,
    Source,
    Training,
}

async fn apply(cluster: &Cluster, part: Part) {
    match part {
        Part::Toolchain => drop(cluster.create(&manifests::toolchain()).await),
        Part::Output => drop(cluster.create(&manifests::default_output()).await),
        Part::Source => drop(cluster.create(&manifests::source("print('wine')")).await),
        Part::Training => drop(cluster.create(&manifests::training("wine")).await),
    }
}

fn permutations(parts: &[Part]) -> Vec<Vec<Part>> {
    if parts.len() <= 1 {
        return vec![parts.to_vec()];
    }
    let mut all = Vec::new();
    for (i, first) in parts.iter().enumerate() {
        let mut rest = parts.to_vec();
        rest.remove(i);
        all.extend(permutations(&rest).into_iter().map(|mut tail| {
            tail.insert(0, *first);
            tail
        }));
    }
    all
}

/// Applied in any order, a minute apart, it converges.
#[tokio::test(start_paused = true)]
async fn every_order_converges() {
    logs();
    for order in permutations(&[Part::Toolchain, Part::Output, Part::Source, Part::Training]) {
        let mut cluster = Cluster::new(operator()).await;
        cluster.start();
        for part in &order {
            apply(&cluster, *part).await;
            cluster.settle(Duration::from_secs(60)).await;
            if *part == Part::Training && order.last() != Some(part) {
                let training = cluster.training("wine").await;
                let told = reason(&training);
                assert!(
                    ["ToolchainNotFound", "DefaultOutputMissing", "SourceNotFound"].contains(&told.as_str()),
                    "{order:?}: {told:?}"
                );
                assert_eq!(training.status.unwrap().observed_generation, Some(1), "{order:?}");
            }
        }
        succeeded(cluster.wait_for("wine", "True", LIMIT).await);
        assert_eq!(cluster.agents.ledger().finished.values().sum::<usize>(), 1, "{order:?}");
        assert_eq!(cluster.history.violations(), Vec::<String>::new(), "{order:?}");
        cluster.shutdown().await;
    }
}

/// Each referent taken away is named; given back, the training goes on.
#[tokio::test(start_paused = true)]
async fn each_missing_referent_is_named() {
    for (part, expected) in [
        (Part::Toolchain, "ToolchainNotFound"),
        (Part::Output, "DefaultOutputMissing"),
        (Part::Source, "SourceNotFound"),
    ] {
        let mut cluster = Cluster::new(operator()).await;
        cluster.furnish().await;
        match part {
            Part::Toolchain => {
                let api = cluster.api::<ToolchainIntegration>(manifests::PLATFORM);
                api.delete("mlflow", &Default::default()).await.unwrap();
            }
            Part::Output => cluster.delete::<Connection>("models").await,
            _ => cluster.delete::<ConfigMap>("wine-source").await,
        }
        cluster.start();
        cluster.create(&manifests::training("wine")).await;
        cluster.settle(Duration::from_secs(10)).await;
        assert_eq!(reason(&cluster.training("wine").await), expected);
        apply(&cluster, part).await;
        succeeded(cluster.wait_for("wine", "True", LIMIT).await);
        cluster.shutdown().await;
    }
}
