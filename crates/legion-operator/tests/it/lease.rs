//! Two replicas: one acts, the other takes over.

use std::{sync::Arc, time::Duration};

use legion_runtime::Shutdown;
use legion_testkit::{cluster::Cluster, fault::Chaos, manifests};

use crate::support::{LIMIT, ServerClock, lease, logs, operator_with, settings, succeeded, writes};

/// A replica beside the one that the cluster runs; its requests, and the wish that ends it.
fn replica(cluster: &Cluster, identity: &str) -> (Chaos, Shutdown, tokio::task::JoinHandle<()>) {
    let chaos = Chaos::new(cluster.embedded.service());
    let shutdown = Shutdown::new();
    let mut settings = settings();
    settings.lease = Some(lease(identity));
    let clock = Arc::new(ServerClock(cluster.embedded.clock()));
    let run = legion_operator::run(chaos.client(manifests::NAMESPACE), settings, clock, shutdown.clone());
    let task = tokio::spawn(async move { run.await.expect("the replica ends when it is asked to") });
    (chaos, shutdown, task)
}

#[tokio::test(start_paused = true)]
async fn a_replica_takes_over_when_the_leader_is_gone() {
    logs();
    let mut first = settings();
    first.lease = Some(lease("a"));
    let mut cluster = Cluster::new(operator_with(first)).await;
    cluster.furnish().await;
    cluster.start();
    cluster.settle(Duration::from_secs(1)).await;
    let (second, shutdown, task) = replica(&cluster, "b");
    cluster.settle(Duration::from_secs(60)).await;
    assert_eq!(writes(&second.calls()), Vec::<String>::new(), "the second replica only watches");
    let idle = cluster.chaos.calls().iter().filter(|call| call.resource == "leases").count();
    assert!(idle <= 14, "{idle} requests for the lease in a minute");

    // The leader dies without a word.
    cluster.stop().await;
    cluster.create(&manifests::training("wine")).await;
    cluster.settle(Duration::from_secs(22)).await;
    assert!(!writes(&second.calls()).is_empty(), "taken over within the lease's time and one interval");
    succeeded(cluster.wait_for("wine", "True", LIMIT).await);

    // An orderly end gives the lease back: the next replica need not wait for its end.
    let (third, _running, _task) = replica(&cluster, "c");
    cluster.settle(Duration::from_secs(6)).await;
    shutdown.request();
    task.await.unwrap();
    cluster.create(&manifests::training("beer")).await;
    cluster.settle(Duration::from_secs(6)).await;
    assert!(!writes(&third.calls()).is_empty());
    succeeded(cluster.wait_for("beer", "True", LIMIT).await);
    assert_eq!(cluster.history.violations(), Vec::<String>::new());
    cluster.shutdown().await;
}
