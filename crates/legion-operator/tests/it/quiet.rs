//! Nothing happens where nothing changes.

use std::time::Duration;

use legion_testkit::manifests;

use crate::support::{LIMIT, furnished, reads, requests, succeeded, writes};

#[tokio::test(start_paused = true)]
async fn ten_finished_trainings_cost_nothing() {
    finished_trainings_cost_nothing(10).await;
}

#[tokio::test(start_paused = true)]
#[ignore = "takes half a minute: in a tier of its own in cargo xtask test"]
async fn every_one_of_a_hundred_finished_trainings_costs_nothing() {
    finished_trainings_cost_nothing(100).await;
}

async fn finished_trainings_cost_nothing(many: usize) {
    let mut cluster = furnished().await;
    for i in 0..many {
        cluster.create(&manifests::training(&format!("wine-{i}"))).await;
    }
    for i in 0..many {
        succeeded(cluster.wait_for(&format!("wine-{i}"), "True", LIMIT).await);
    }
    // Their pods are gone by then.
    cluster.settle(Duration::from_secs(900)).await;

    let before = cluster.chaos.calls().len();
    cluster.settle(Duration::from_secs(600)).await;
    let calls = cluster.chaos.calls().split_off(before);
    assert_eq!(requests(&calls), Vec::<String>::new(), "ten minutes at rest");

    // A restart lists and watches, and writes nothing.
    let before = cluster.chaos.calls().len();
    cluster.restart().await;
    cluster.settle(Duration::from_secs(600)).await;
    let calls = cluster.chaos.calls().split_off(before);
    assert_eq!(writes(&calls), Vec::<String>::new(), "after a restart");
    assert_eq!(reads(&calls).iter().filter(|read| read.contains("pods")).count(), 0);
    cluster.shutdown().await;
}
