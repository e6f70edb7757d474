//! `docs/guides/backup.md` on a real API server: its own commands back up and restore trainings in all states.

use std::{collections::BTreeMap, path::Path, process::Command};

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
};
use legion_api::{
    ModelTraining,
    condition::{self, SUCCEEDED},
    run::RunStatus,
};
use legion_tests::{
    fake_kubelet::Course,
    guide::{self, Block},
    local::text,
};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{replica::Replica, world::World};

const PAGE: &str = "docs/guides/backup.md";
/// The namespace and the Deployment of the operator, as the page names them.
const OPERATOR: [&str; 4] = ["deployment", "legion-operator", "-n", "legion-system"];

/// Trainings with a common name: the number of them, and the state in which the backup finds them.
struct Group {
    name: &'static str,
    count: usize,
    /// Reason of the condition `Succeeded`, number of the run, number of the attempt.
    state: (&'static str, i64, i32),
    /// Whether their run is under way, so that the restore continues it.
    under_way: bool,
}

const fn group(name: &'static str, count: usize, state: (&'static str, i64, i32), under_way: bool) -> Group {
    Group {
        name,
        count,
        state,
        under_way,
    }
}

/// Trainings that have succeeded before any other begins.
const FIRST: [Group; 3] = [
    group("once", 5, ("RunSucceeded", 1, 1), false),
    group("twice", 2, ("RunSucceeded", 2, 1), false),
    group("again", 1, ("Training", 2, 1), true),
];
const SECOND: [Group; 8] = [
    group("fails", 2, ("TrainerFailed", 1, 1), false),
    group("exhausted", 1, ("TrainerFailed", 1, 2), false),
    group("retried", 2, ("Training", 1, 2), true),
    group("runs", 2, ("Training", 1, 1), true),
    group("pending", 1, ("Unschedulable", 1, 1), true),
    group("waiting", 1, ("ToolchainNotFound", 1, 1), false),
    group("suspended", 1, ("Suspended", 1, 1), false),
    group("paused", 2, ("Suspended", 1, 2), false),
];

impl Group {
    fn names(&self) -> impl Iterator<Item = String> {
        (1..=self.count).map(|number| format!("{}-{number}", self.name))
    }

    /// Returns what their specs have besides.
    fn fields(&self) -> Value {
        match self.name {
            "exhausted" => json!({"retries": 1}),
            "retried" => json!({"retries": 3}),
            "waiting" => json!({"toolchain": "none"}),
            "suspended" => json!({"suspend": true}),
            _ => json!({}),
        }
    }
}

/// What becomes of the pods of [`SECOND`], and of the second run of `again`.
fn course(pod: &Pod) -> Course {
    // GROUP-NUMBER-RUN-ATTEMPT
    let name = pod.name_any();
    let group = name.split('-').next().unwrap_or_default();
    match group {
        "fails" | "exhausted" => Course::Fails,
        "retried" if name.ends_with("-1") => Course::Fails,
        "pending" => Course::Waits,
        _ => Course::Runs,
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real API server"]
async fn the_commands_of_the_guide_restore_trainings_in_all_states() -> anyhow::Result<()> {
    let mut world = World::new("ha-backup").await?;
    // The commands of the page apply to all namespaces. What other tests have left is none of their business.
    world.kubectl(&["delete", "modeltrainings", "--all", "--all-namespaces"])?;
    install(&world)?;
    let mut replica = Replica::start(&world, "a").await?;
    create(&mut world).await?;
    let groups = || FIRST.iter().chain(&SECOND);
    for group in groups() {
        in_state(&world, group).await?;
    }
    let before = trainings(&world).await?;
    ensure!(before.len() == 20, "{} trainings", before.len());

    let blocks = guide::blocks(PAGE)?;
    let (backup, restore) = blocks.split_first().context("no commands")?;
    let directory = world.directory.path().to_owned();
    execute(backup, &directory)?;
    // The disaster. A new cluster has an operator and nothing else.
    world.kubectl(&["delete", "modeltrainings", "--all", "-n", &world.namespace])?;
    let pods: Api<Pod> = Api::namespaced(world.client.clone(), &world.namespace);
    world
        .until("the pods are deleted", async || {
            Ok(pods.list(&ListParams::default()).await?.items.is_empty().then_some(()))
        })
        .await?;
    // From now on every pod succeeds.
    world.replace_kubelet(|_| Course::Succeeds);
    for block in restore {
        execute(block, &directory)?;
        follow(&world, &mut replica).await?;
    }
    let under_way: Vec<String> = groups()
        .filter(|group| group.under_way)
        .flat_map(Group::names)
        .collect();
    for name in &under_way {
        world
            .until(&format!("{name} succeeds"), async || {
                Ok((state(&world.trainings().get(name).await?).0 == "RunSucceeded").then_some(()))
            })
            .await
            .with_context(|| replica.log().unwrap_or_default())?;
    }
    let after = trainings(&world).await?;
    for (name, old) in &before {
        let new = after.get(name).with_context(|| format!("{name} is not restored"))?;
        ensure!(new.uid() != old.uid(), "{name} is the old object");
        if under_way.contains(name) {
            let (_, sequence, attempt) = state(old);
            let expected = ("RunSucceeded".to_owned(), sequence, attempt + 1);
            ensure!(
                state(new) == expected,
                "{name}: {:?} after {:?}",
                state(new),
                state(old)
            );
            let artifact = new.status.as_ref().and_then(|status| status.artifact.as_ref());
            ensure!(
                artifact.map(|artifact| &artifact.run_id) == run(old).map(|run| &run.id),
                "{name}: {artifact:?} is of another run"
            );
        } else {
            let (old, new) = (lasting(old)?, lasting(new)?);
            ensure!(old == new, "{name}: {new:#} was {old:#}");
        }
    }
    let mut owners: Vec<String> = Vec::new();
    for pod in pods.list(&ListParams::default()).await?.items {
        owners.extend(pod.owner_references().iter().map(|owner| owner.name.clone()));
    }
    owners.sort();
    let mut expected = under_way.clone();
    expected.sort();
    ensure!(owners == expected, "{owners:?} have pods, and not {expected:?}");
    ensure!(world.kubelet.finished() == under_way.len(), "a pod more has run");
    println!(
        "{} trainings restored, {} of them continued",
        after.len(),
        under_way.len()
    );
    world.kubectl(&[&["delete"][..], &OPERATOR].concat())?;
    Ok(())
}

/// Creates the Deployment that the page scales. It is paused, because its pods could not run: the replica stands for
/// them.
fn install(world: &World) -> anyhow::Result<()> {
    let [_, name, _, namespace] = OPERATOR;
    let labels = json!({"app.kubernetes.io/name": name});
    world.apply(&[
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}),
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "paused": true,
                "replicas": 2,
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {"containers": [{"name": "operator", "image": "operator:1"}]},
                },
            },
        }),
    ])
}

/// Runs one block of the page.
fn execute(block: &Block, directory: &Path) -> anyhow::Result<()> {
    let script = guide::script(PAGE, std::slice::from_ref(block));
    let output = Command::new("bash")
        .args(["-c", &script])
        .current_dir(directory)
        .output()?;
    let said = text(&output);
    ensure!(output.status.success(), "{}\n{said}", output.status);
    Ok(())
}

/// Stops or starts the replica, as the Deployment says.
async fn follow(world: &World, replica: &mut Replica) -> anyhow::Result<()> {
    let path = ["-o", "jsonpath={.spec.replicas}"];
    let wanted = world.kubectl(&[&["get"][..], &OPERATOR, &path].concat())? != "0";
    match (wanted, replica.runs()?) {
        (false, true) => {
            replica.signal(Signal::TERM)?;
            replica.ended(world).await?;
        }
        (true, false) => replica.restart(world).await?,
        _ => {}
    }
    Ok(())
}

/// Creates all trainings and brings them to their states.
async fn create(world: &mut World) -> anyhow::Result<()> {
    for group in &FIRST {
        for name in group.names() {
            world.create(&name, &group.fields()).await?;
        }
    }
    world.all_succeed(FIRST.iter().map(|group| group.count).sum()).await?;
    let trigger = json!({"spec": {"trigger": "again"}});
    for name in FIRST[1].names() {
        patch(world, &name, &trigger).await?;
    }
    in_state(world, &FIRST[1]).await?;
    world.replace_kubelet(course);
    for name in FIRST[2].names() {
        patch(world, &name, &trigger).await?;
    }
    for group in &SECOND {
        for name in group.names() {
            world.create(&name, &group.fields()).await?;
        }
    }
    // A run that has begun, and is suspended.
    for name in group("paused", 2, ("Training", 1, 1), false).names() {
        world
            .until(&format!("{name} trains"), async || {
                Ok((state(&world.trainings().get(&name).await?).0 == "Training").then_some(()))
            })
            .await?;
        patch(world, &name, &json!({"spec": {"suspend": true}})).await?;
    }
    Ok(())
}

async fn patch(world: &World, name: &str, patch: &Value) -> anyhow::Result<()> {
    let patch = Patch::Merge(patch);
    world.trainings().patch(name, &PatchParams::default(), &patch).await?;
    Ok(())
}

/// Waits until all trainings of a group are in their state.
async fn in_state(world: &World, group: &Group) -> anyhow::Result<()> {
    for name in group.names() {
        let (reason, sequence, attempt) = group.state;
        let expected = (reason.to_owned(), sequence, attempt);
        let mut last = None;
        world
            .until(&format!("{name} is in the state {expected:?}"), async || {
                let current = state(&world.trainings().get(&name).await?);
                let reached = current == expected;
                last = Some(current);
                Ok(reached.then_some(()))
            })
            .await
            .with_context(|| format!("{name} is in the state {last:?}"))?;
    }
    Ok(())
}

async fn trainings(world: &World) -> anyhow::Result<BTreeMap<String, ModelTraining>> {
    let list = world.trainings().list(&ListParams::default()).await?;
    Ok(list
        .items
        .into_iter()
        .map(|training| (training.name_any(), training))
        .collect())
}

fn run(training: &ModelTraining) -> Option<&RunStatus> {
    training.status.as_ref()?.run.as_ref()
}

/// Returns the reason of the condition `Succeeded`, the number of the run and that of the attempt. What the status does
/// not have is empty or 0.
fn state(training: &ModelTraining) -> (String, i64, i32) {
    let conditions = training.status.as_ref().map_or(&[][..], |status| &status.conditions);
    let reason = condition::find(conditions, SUCCEEDED).map(|found| found.reason.clone());
    let (sequence, attempt) = run(training).map_or((0, 0), |run| (run.sequence, run.attempt));
    (reason.unwrap_or_default(), sequence, attempt)
}

/// Returns what a restore does not change of a training that is not under way: its spec and its status, without the
/// generations.
fn lasting(training: &ModelTraining) -> anyhow::Result<Value> {
    let mut status = serde_json::to_value(&training.status)?;
    if let Some(fields) = status.as_object_mut() {
        fields.remove("observedGeneration");
    }
    if let Some(run) = status["run"].as_object_mut() {
        run.remove("generation");
    }
    for condition in status["conditions"].as_array_mut().into_iter().flatten() {
        if let Some(fields) = condition.as_object_mut() {
            fields.remove("observedGeneration");
        }
    }
    Ok(json!({"spec": training.spec, "status": status}))
}
