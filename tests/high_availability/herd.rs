//! Many trainings under a small ResourceQuota of a real API server.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::{Api, api::PostParams};
use legion_tests::{audit::Request, sample};
use serde_json::json;

use crate::{replica::Replica, world::World};

/// The number of pods that the quota allows.
const HARD: usize = 8;

/// Every pod that ends makes room for one other. So the number of refused requests must not grow with the product of
/// trainings and pods.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real API server"]
async fn trainings_under_a_quota_run_in_turn_and_few_requests_are_refused() -> anyhow::Result<()> {
    let world = World::new("ha-quota").await?;
    let count = sample::count(1000, 64);
    limit_pods(&world).await?;
    let replica = Replica::start(&world, "a").await?;
    let began = Instant::now();
    world.train(0..count).await?;
    // The next pod follows a second after the end of one. The rest is for a busy machine.
    let limit = Duration::from_secs(120 + 5 * u64::try_from(count / HARD)?);
    world
        .until_within(limit, &format!("{count} pods have run"), async || {
            Ok((world.kubelet.finished() >= count).then_some(()))
        })
        .await
        .with_context(|| {
            format!(
                "{} have: {}",
                world.kubelet.finished(),
                replica.log().unwrap_or_default()
            )
        })?;
    world.all_succeed(count).await?;
    let took = began.elapsed();

    let mut herd = Herd::default();
    for request in world.audit()? {
        let creates = request.verb == "create" && request.resource == "pods" && request.namespace == world.namespace;
        if creates && request.user == replica.user && request.is_complete() {
            herd.add(&request)?;
        }
    }
    let refused: usize = herd.0.values().map(|asked| asked.refused.len()).sum();
    let most = herd
        .0
        .values()
        .map(|asked| asked.refused.len())
        .max()
        .unwrap_or_default();
    println!(
        "{count} trainings under a quota of {HARD} pods: {refused} refused requests, {most} at most for one training, \
         {took:.0?}"
    );
    ensure!(herd.0.len() == count, "{} of {count} have asked", herd.0.len());
    ensure!(refused > 0, "the quota has refused nothing");
    ensure!(refused <= count, "{refused} refused requests of {count} trainings");
    herd.check_order()
}

/// Creates the quota, and waits until the API server enforces it.
async fn limit_pods(world: &World) -> anyhow::Result<()> {
    let quotas: Api<ResourceQuota> = Api::namespaced(world.client.clone(), &world.namespace);
    let quota = serde_json::from_value(json!({
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "few"},
        "spec": {"hard": {"pods": HARD.to_string()}},
    }))?;
    quotas.create(&PostParams::default(), &quota).await?;
    world
        .until("the quota is enforced", async || {
            let status = quotas.get("few").await?.status;
            Ok(status.and_then(|status| status.hard?.contains_key("pods").then_some(())))
        })
        .await
}

/// The requests for pods, by pod. Every training has one.
#[derive(Default)]
struct Herd(BTreeMap<String, Asked>);

#[derive(Default)]
struct Asked {
    refused: Vec<Timestamp>,
    created: Option<Timestamp>,
}

impl Herd {
    fn add(&mut self, request: &Request) -> anyhow::Result<()> {
        let asked = self.0.entry(request.name.clone()).or_default();
        match request.code {
            201 => asked.created = Some(request.received),
            // 409: two requests have changed the quota at the same time.
            403 | 409 => asked.refused.push(request.received),
            code => anyhow::bail!("{request} was answered with {code}"),
        }
        Ok(())
    }

    /// Checks that those that waited got their pods in the order in which they began to wait. As many as the quota has
    /// room for can be under way at the same time, and a status shows whole seconds. So each may be early by the number
    /// of trainings that began to wait in the same or the next second, plus the room.
    fn check_order(&self) -> anyhow::Result<()> {
        let mut waited: Vec<(Timestamp, Timestamp)> = Vec::new();
        for (pod, asked) in &self.0 {
            let created = asked.created.with_context(|| format!("{pod} was not created"))?;
            waited.extend(asked.refused.first().map(|first| (*first, created)));
        }
        waited.sort_by_key(|(_, created)| *created);
        for (index, (since, created)) in waited.iter().enumerate() {
            let second = since.as_second() - 1;
            let overtaken = waited[index + 1..]
                .iter()
                .filter(|(earlier, _)| earlier.as_second() < second)
                .count();
            ensure!(
                overtaken <= HARD,
                "the pod of {created} was created before {overtaken} whose trainings had waited longer"
            );
        }
        Ok(())
    }
}
