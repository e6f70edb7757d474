//! Two replicas: one acts, the other takes over.

use std::{sync::Arc, time::Duration};

use legion_runtime::{
    Shutdown,
    lease::{self, HoldEnd, Leadership},
};
use legion_testkit::{cluster::Cluster, fault::Chaos, manifests};

use crate::support::{LIMIT, ServerClock, lease_of, logs, operator_with, settings, succeeded, writes};

/// A replica beside the one that the cluster runs; its requests, and the wish that ends it.
fn replica(cluster: &Cluster, identity: &str) -> (Chaos, Shutdown, tokio::task::JoinHandle<()>) {
    let chaos = Chaos::new(cluster.embedded.service(), None);
    let shutdown = Shutdown::new();
    let mut settings = settings();
    settings.lease = Some(lease_of(identity));
    let clock = Arc::new(ServerClock(cluster.embedded.clock()));
    let run = legion_operator::run(chaos.client(manifests::NAMESPACE), settings, clock, shutdown.clone());
    let task = tokio::spawn(async move { run.await.expect("the replica ends when it is asked to") });
    (chaos, shutdown, task)
}

/// A leader that is cut off knows that it no longer leads before anybody else may.
#[tokio::test(start_paused = true)]
async fn a_leader_that_is_cut_off_stops_in_time() {
    let cluster = Cluster::new(operator_with(settings())).await;
    let chaos = Chaos::new(cluster.embedded.service(), None);
    let clock = Arc::new(ServerClock(cluster.embedded.clock()));
    let (leadership, shutdown) = (Leadership::pending(), Shutdown::new());
    assert!(!leadership.is_current());
    let client = chaos.client(manifests::PLATFORM);
    let settings = lease_of("a");
    let end_of_lease = settings.duration;
    let held = lease::acquire(client, settings, clock, leadership.clone(), &shutdown)
        .await
        .expect("the lease is free");
    assert!(leadership.is_current());
    let holding = tokio::spawn(async move { held.hold(&shutdown).await });
    cluster.settle(Duration::from_secs(301)).await;
    assert!(leadership.is_current(), "renewed for five minutes");

    // The last renewal was a second ago.
    chaos.cut_off();
    let cut = tokio::time::Instant::now();
    while leadership.is_current() {
        cluster.settle(Duration::from_millis(100)).await;
    }
    assert!(
        cut.elapsed() < end_of_lease - Duration::from_secs(3),
        "{:?}",
        cut.elapsed()
    );
    assert_eq!(holding.await.expect("no panic"), HoldEnd::Lost);
    assert!(cut.elapsed() < end_of_lease, "{:?}", cut.elapsed());
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_replica_takes_over_when_the_leader_is_gone() {
    logs();
    let mut first = settings();
    first.lease = Some(lease_of("a"));
    let mut cluster = Cluster::new(operator_with(first)).await;
    cluster.furnish().await;
    cluster.start();
    cluster.settle(Duration::from_secs(1)).await;
    let (second, shutdown, task) = replica(&cluster, "b");
    cluster.settle(Duration::from_secs(60)).await;
    assert_eq!(
        writes(&second.calls()),
        Vec::<String>::new(),
        "the second replica only watches"
    );
    let idle = cluster
        .chaos
        .calls()
        .iter()
        .filter(|call| call.resource == "leases")
        .count();
    // Twelve renewals, and what it took to become the leader.
    assert!(idle <= 16, "{idle} requests for the lease in a minute");

    // The leader dies without a word.
    cluster.stop().await;
    cluster.create(&manifests::training("wine")).await;
    cluster.settle(Duration::from_secs(22)).await;
    assert!(
        !writes(&second.calls()).is_empty(),
        "taken over within the lease's time and one interval"
    );
    succeeded(cluster.wait_for("wine", "True", LIMIT).await);

    // An orderly end releases the lease: the next replica acquires it immediately.
    let (third, _running, _task) = replica(&cluster, "c");
    cluster.settle(Duration::from_secs(6)).await;
    shutdown.request();
    task.await.unwrap();
    cluster.create(&manifests::training("beer")).await;
    cluster.settle(Duration::from_secs(1)).await;
    assert!(!writes(&third.calls()).is_empty());
    succeeded(cluster.wait_for("beer", "True", LIMIT).await);
    assert_eq!(cluster.history.violations(), Vec::<String>::new());
    cluster.shutdown().await;
}
