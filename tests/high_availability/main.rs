//! Several operator replicas on a real API server: which one acts, how fast another one takes over, and what a deposed
//! one does.
//!
//! `cargo xtask cluster up --control-plane`, then `cargo xtask cluster run -- cargo test -p legion-tests --test
//! high_availability -- --ignored --nocapture --test-threads 1`.

mod backup;
mod herd;
mod observability;
mod replica;
mod traces;
mod world;

use std::time::{Duration, Instant};

use anyhow::ensure;
use jiff::Timestamp;
use legion_tests::{audit::Request, cluster::process, sample};
use rustix::process::Signal;

use crate::{replica::Replica, world::World};

/// The operator's lease.
const LEASE: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real API server"]
async fn a_terminated_leader_hands_over_within_a_second() -> anyhow::Result<()> {
    let world = World::new("ha-term").await?;
    let mut leader = Replica::start(&world, "a").await?;
    world.led_by("a", Instant::now()).await?;
    let mut standby = Replica::start(&world, "b").await?;
    let mut times = Vec::new();
    let mut trainings = 0;
    for _ in 0..sample::count(5, 2) {
        ensure!(leader.metric("legion_operator_leader")? == 1.0);
        ensure!(standby.metric("legion_operator_leader")? == 0.0);
        // Some trainings are running during the signal.
        world.train(trainings..trainings + 10).await?;
        let signaled = Instant::now();
        leader.signal(Signal::TERM)?;
        times.push(world.led_by(&standby.name, signaled).await?);
        ensure!(leader.ended(&world).await?.success(), "{}", leader.log()?);
        world.train(trainings + 10..trainings + 20).await?;
        trainings += 20;
        world.all_succeed(trainings).await?;
        leader.restart(&world).await?;
        std::mem::swap(&mut leader, &mut standby);
    }
    println!("SIGTERM to the next leader: {times:?}; {trainings} trainings, one pod each");
    ensure!(times.iter().all(|time| *time <= Duration::from_secs(1)), "{times:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real API server"]
async fn a_killed_leader_is_replaced_within_its_lease() -> anyhow::Result<()> {
    let world = World::new("ha-kill").await?;
    let mut replicas = vec![Replica::start(&world, "a").await?];
    world.led_by("a", Instant::now()).await?;
    for name in ["b", "c"] {
        replicas.push(Replica::start(&world, name).await?);
    }
    world.train(0..20).await?;
    let killed = Instant::now();
    replicas[0].signal(Signal::KILL)?;
    world.train(20..40).await?;
    let (next, time) = world
        .until("another replica leads", async || {
            let holder = world.holder().await?;
            Ok(holder
                .filter(|holder| holder != "a")
                .map(|holder| (holder, killed.elapsed())))
        })
        .await?;
    world.all_succeed(40).await?;
    println!("kill -9 to the next leader ({next}): {time:?}; 40 trainings, one pod each");
    // Plus a second for the two requests that acquire the lease.
    ensure!(time <= LEASE + Duration::from_secs(1), "{time:?}");
    for replica in &replicas[1..] {
        let leads = if replica.name == next { 1.0 } else { 0.0 };
        ensure!(replica.metric("legion_operator_leader")? == leads, "{}", replica.name);
        ensure!(
            replica.ask("/readyz")?.starts_with("HTTP/1.1 200"),
            "a standby is ready"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real API server"]
async fn a_leader_paused_beyond_its_lease_writes_nothing() -> anyhow::Result<()> {
    let world = World::new("ha-pause").await?;
    let mut deposed = Replica::start(&world, "a").await?;
    world.led_by("a", Instant::now()).await?;
    let standby = Replica::start(&world, "b").await?;
    // Paused while it reconciles.
    world.train(0..8).await?;
    let paused = Instant::now();
    deposed.signal(Signal::STOP)?;
    world.train(8..16).await?;
    let time = world.led_by("b", paused).await?;
    world.train(16..20).await?;
    world.all_succeed(20).await?;

    let resumed = Timestamp::now();
    deposed.signal(Signal::CONT)?;
    let status = deposed.ended(&world).await?;
    let ended = Timestamp::now();
    ensure!(status.code() == Some(1), "{status}: {}", deposed.log()?);
    ensure!(
        deposed.log()?.contains("the leader lease was lost"),
        "{}",
        deposed.log()?
    );
    world.train(20..24).await?;
    world.all_succeed(24).await?;

    let audit = world.audit()?;
    let by_deposed = |entry: &&Request| entry.user == deposed.user;
    let before = audit.iter().filter(by_deposed).filter(|entry| entry.received < resumed);
    let wrote = before.filter(|entry| entry.is_write()).count();
    ensure!(wrote > 0, "it wrote while it led, and the log shows it");
    let after: Vec<_> = audit
        .iter()
        .filter(by_deposed)
        .filter(|entry| entry.received >= resumed && entry.is_write())
        .collect();
    let accepted: Vec<_> = after
        .iter()
        .filter(|entry| entry.code < 300)
        .map(ToString::to_string)
        .collect();
    println!(
        "SIGSTOP to the next leader: {time:?}; {wrote} writes before, after SIGCONT {} accepted and {} refused, ended {:#} later; \
         24 trainings, one pod each",
        accepted.len(),
        after.len() - accepted.len(),
        ended.duration_since(resumed),
    );
    ensure!(accepted.is_empty(), "written by the deposed leader: {accepted:?}");
    let expected = concat!("legion-operator/", env!("CARGO_PKG_VERSION"));
    let other = audit.iter().filter(by_deposed).find(|entry| entry.agent != expected);
    ensure!(other.is_none(), "every request says who asks: {other:?}");
    drop(standby);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real API server"]
async fn a_restarted_api_server_loses_nothing_and_the_standby_stays_complete() -> anyhow::Result<()> {
    let world = World::new("ha-api").await?;
    let mut leader = Replica::start(&world, "a").await?;
    world.led_by("a", Instant::now()).await?;
    let mut standby = Replica::start(&world, "b").await?;
    world.train(0..20).await?;
    let outage = restart_api_server(&world).await?;
    world.train(20..40).await?;
    world.all_succeed(40).await?;
    // A replica whose lease expired meanwhile has ended. It is restarted, as the kubelet would.
    let mut ended = 0;
    for replica in [&mut leader, &mut standby] {
        if !replica.runs()? {
            ended += 1;
            replica.restart(&world).await?;
        }
    }
    let holder = world
        .until("a replica leads", async || Ok(world.holder().await?))
        .await?;
    if holder == standby.name {
        std::mem::swap(&mut leader, &mut standby);
    }
    for (resource, count) in [("modeltrainings", 40.0), ("pods", 40.0), ("connections", 1.0)] {
        let series = format!("legion_operator_cache_objects{{resource=\"{resource}\"}}");
        world
            .until(&format!("the standby has every one of {resource}"), async || {
                Ok((standby.metric(&series)? == count).then_some(()))
            })
            .await?;
    }
    let (killed, at) = (Instant::now(), Timestamp::now());
    leader.signal(Signal::KILL)?;
    world.train(40..50).await?;
    let time = world.led_by(&standby.name, killed).await?;
    world.all_succeed(50).await?;
    let lists: Vec<String> = world
        .audit()?
        .into_iter()
        .filter(|entry| entry.user == standby.user && entry.verb == "list" && entry.received >= at)
        // Its watch of the lease starts with a list, and restarts with one after every failure.
        .filter(|entry| entry.resource != "leases")
        .map(|entry| entry.to_string())
        .collect();
    println!(
        "API server away for {outage:?}, {ended} replicas ended; then kill -9 to the next leader: {time:?}, with {} lists of \
         what it keeps; 50 trainings, one pod each",
        lists.len()
    );
    ensure!(lists.is_empty(), "it took over with what it had: {lists:?}");
    Ok(())
}

/// Kills the API server and starts it again. Returns how long it was down.
async fn restart_api_server(world: &World) -> anyhow::Result<Duration> {
    let killed = Instant::now();
    process("kube-apiserver", "kill")?;
    process("kube-apiserver", "start")?;
    world
        .until("the API server is ready", async || {
            Ok(world.kubectl(&["get", "--raw", "/readyz"]).is_ok().then_some(()))
        })
        .await?;
    Ok(killed.elapsed())
}
