//! The rules of attempts: what is pinned, how long an attempt waits, what the status reports, and what a pod's end
//! means.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::Pod;
use legion_api::{
    ModelTraining,
    condition::{SUCCEEDED, find},
    run::RunResult,
};
use legion_plan::{
    Action, Need, Write,
    training::{ConfigMapView, World, decide},
};
use legion_protocol::{
    message::PublishOutcome,
    reason::{StepError, StepReason},
    result::WireNotice,
    summary::MetricSummary,
    task::{FetchTask, SourceTask},
};
use rstest::rstest;
use serde_json::json;

use crate::{
    factory::{
        self, after, condition, end, ended, exit, fetch_failed, fetch_message, fetched, kstatus, phase,
        publish_message, running, schedule, set, settings, start, status, train, training, waiting, world,
    },
    universe::Universe,
};

use crate::passes::{attempt, change, deletions, failure, reconcile, reported, status_of, training_started};

#[test]
fn an_unreconciled_training_counts_as_in_progress() {
    let object = json!({
        "apiVersion": "legion-platform.org/v1alpha1", "kind": "ModelTraining",
        "metadata": {"name": "wine", "generation": 1},
        "spec": {"model": {"name": "wine", "version": "1"}, "toolchain": "mlflow", "source": {"configMap": {"name": "s"}}},
    });
    let fresh: ModelTraining = serde_json::from_value(legion_api::validate::with_defaults(&object)).unwrap();
    let status = fresh.status.unwrap();
    assert_eq!(
        kstatus(Some(1), status.observed_generation, &status.conditions),
        "InProgress"
    );
}

/// The pod changes its state often, and no state lasts five seconds.
#[test]
fn the_first_report_comes_within_five_seconds_despite_quick_changes() {
    let mut world = world(training(json!({})));
    assert!(!reconcile(&mut world, 0).written);
    change(&mut world, |pod| schedule(pod, 3));
    let first = reconcile(&mut world, 3);
    assert!(!first.written);
    assert_eq!(first.plan.requeue_at, Some(after(5)), "it is requeued in time");
    change(&mut world, |pod| set(pod, "fetch", running(4)));
    assert!(!reconcile(&mut world, 4).written);
    let due = reconcile(&mut world, 5);
    assert!(due.written);
    assert_eq!(due.plan.write, Write::Now, "the time has come");
    assert_eq!(reported(&world), "Fetching");
    assert_eq!(status_of(&world).observed_generation, Some(1));
}

#[test]
fn a_training_that_waits_longer_costs_one_more_write() {
    let mut world = world(training(json!({})));
    reconcile(&mut world, 0);
    let mut writes = 0;
    for second in 1..30 {
        writes += i32::from(reconcile(&mut world, second).written);
    }
    assert_eq!((writes, reported(&world).as_str()), (1, "PodCreated"));
    change(&mut world, train);
    assert!(reconcile(&mut world, 30).written);
    assert!(!reconcile(&mut world, 31).written);
}

#[test]
fn later_attempts_use_the_pinned_inputs_of_the_first() {
    let source = json!({"git": {"uri": "https://example.com/wine.git", "ref": "main"}});
    let mut world = world(training(json!({"source": source, "retries": 1})));
    let first = reconcile(&mut world, 0).created.unwrap();
    change(&mut world, |pod| {
        train(pod);
        set(pod, "fetch", ended(0, "Completed", &fetched("c0ffee"), 2));
    });
    reconcile(&mut world, 4);
    let message = publish_message(PublishOutcome::Failed, Some(exit(3)), None);
    change(&mut world, |pod| end(pod, ended(3, "Error", "", 7), 1, &message, 8));
    reconcile(&mut world, 9);
    assert_eq!((attempt(&world), failure(&world).exit_code), (2, Some(3)));
    // In the meantime every referenced object has changed.
    let mut newer = Arc::unwrap_or_clone(factory::toolchain(json!({"image": "other:2", "command": ["other"]})));
    newer.metadata.generation = Some(2);
    world.platform_toolchain = Some(Arc::new(newer));
    world.default_outputs = vec![factory::connection("else", json!({"type": "pvc", "uri": "pvc://else"}))];
    let second = reconcile(&mut world, 60).created.unwrap();
    let parts = |pod: &Pod| {
        let spec = pod.spec.clone().unwrap();
        let fetch = &spec.init_containers.unwrap()[0];
        let task = fetch
            .env
            .iter()
            .flatten()
            .find(|variable| variable.name == "LEGION_TASK");
        let task: FetchTask = serde_json::from_str(task.unwrap().value.as_ref().unwrap()).unwrap();
        let SourceTask::Git { commit, .. } = task.source else {
            panic!("{:?}", task.source)
        };
        (
            spec.containers[0].image.clone().unwrap(),
            spec.containers[0].command.clone(),
            task.output,
            commit,
        )
    };
    let (first, second) = (parts(&first), parts(&second));
    assert_eq!((&first.0, &first.1, &first.2), (&second.0, &second.1, &second.2));
    assert_eq!(
        (first.3.as_str(), second.3.as_str()),
        ("", "c0ffee"),
        "a branch is resolved once a run"
    );
    let shown = status_of(&world);
    assert_eq!(shown.source.unwrap().commit.as_deref(), Some("c0ffee"));
    assert_eq!(shown.toolchain.unwrap().generation, 1);
}

#[test]
fn the_own_namespace_comes_before_the_platform() {
    let mut world = world(training(json!({})));
    world.toolchain = Some(factory::toolchain(json!({"image": "lab/own:1"})));
    let pod = reconcile(&mut world, 0).created.unwrap();
    assert_eq!(pod.spec.unwrap().containers[0].image.as_deref(), Some("lab/own:1"));
    reconcile(&mut world, 6);
    assert_eq!(status_of(&world).toolchain.unwrap().namespace, "lab");
}

#[test]
fn a_pod_missing_from_the_watch_is_probed_before_it_counts_as_lost() {
    let mut world = training_started(json!({}));
    let pod = world.pods.pop().unwrap();
    let name = pod.metadata.name.clone().unwrap();
    let plan = decide(&world, &settings(), after(10));
    assert_eq!(plan.needs, [Need::Pod { name: name.clone() }]);
    assert!(plan.actions.is_empty() && plan.status.is_none());
    // It exists: only its label was removed.
    world.probed = BTreeMap::from([(name.clone(), Some(pod))]);
    assert!(!reconcile(&mut world, 10).written);
    assert_eq!(attempt(&world), 1);
    // It no longer exists.
    world.probed = BTreeMap::from([(name, None)]);
    reconcile(&mut world, 11);
    assert_eq!((attempt(&world), failure(&world).reason.as_str()), (2, "PodLost"));
    assert_eq!(status_of(&world).run.unwrap().disruptions, 1);
}

#[test]
fn a_pod_whose_publish_ended_first_is_deleted_and_waited_for() {
    let mut world = training_started(json!({}));
    change(&mut world, |pod| set(pod, "publish", ended(1, "Error", "", 9)));
    reconcile(&mut world, 10);
    assert_eq!((attempt(&world), status_of(&world).run.unwrap().step_failures), (2, 1));
    let first = world.pods[0].metadata.name.clone().unwrap();
    let next = reconcile(&mut world, 60);
    assert_eq!(deletions(&next.plan), [first]);
    assert!(next.created.is_none(), "the trainer may still run");
    change(&mut world, |pod| {
        pod.metadata.deletion_timestamp = factory::time(135);
        set(pod, "trainer", ended(143, "Error", "", 62));
        phase(pod, "Failed");
    });
    assert!(reconcile(&mut world, 63).created.is_some());
}

#[test]
fn an_unscheduled_pod_counts_as_ended_once_it_is_being_deleted() {
    let mut world = world(training(json!({})));
    reconcile(&mut world, 0);
    reconcile(&mut world, 6);
    change(&mut world, |pod| pod.metadata.deletion_timestamp = factory::time(80));
    reconcile(&mut world, 7);
    assert_eq!((attempt(&world), status_of(&world).run.unwrap().disruptions), (2, 1));
    assert!(
        reconcile(&mut world, 60).created.is_some(),
        "there is nothing to wait for"
    );
}

#[rstest]
#[case::the_users(StepReason::GitRefNotFound, Some(RunResult::Failed), 0)]
#[case::transient(StepReason::SourceUnreachable, None, 1)]
#[case::read_only_output(StepReason::OutputNotWritable, Some(RunResult::Failed), 0)]
fn a_failed_fetch_is_retried_where_that_helps(
    #[case] reason: StepReason,
    #[case] result: Option<RunResult>,
    #[case] step_failures: i32,
) {
    let mut world = world(training(json!({})));
    reconcile(&mut world, 0);
    change(&mut world, |pod| {
        schedule(pod, 1);
        let error = StepError::new(reason, "no \"value\"")
            .field("spec.field")
            .remedy("do this");
        set(pod, "fetch", ended(1, "Error", &fetch_failed(error), 3));
        phase(pod, "Failed");
    });
    reconcile(&mut world, 4);
    let run = status_of(&world).run.unwrap();
    assert_eq!((run.result, run.step_failures), (result, step_failures));
    let failure = failure(&world);
    assert_eq!(
        (failure.step.as_str(), failure.field.as_deref()),
        ("fetch", Some("spec.field"))
    );
    let status = status_of(&world);
    let message = &find(&status.conditions, SUCCEEDED).unwrap().message;
    assert!(
        message.contains("no \"value\"") && message.contains("do this"),
        "{message}"
    );
}

#[test]
fn a_missing_secret_is_retried_without_limit() {
    let mut world = world(training(json!({})));
    let mut at = 0;
    for round in 1..=15 {
        let pass = reconcile(&mut world, at);
        assert!(pass.created.is_some(), "round {round}: {}", reported(&world));
        change(&mut world, |pod| {
            schedule(pod, at + 1);
            let error = StepError::new(StepReason::SecretMissing, "Secret \"git\" has no key \"password\"");
            set(pod, "fetch", ended(1, "Error", &fetch_failed(error), at + 1));
            phase(pod, "Failed");
        });
        reconcile(&mut world, at + 2);
        assert_eq!(reported(&world), "SecretMissing");
        let again = status_of(&world).run.unwrap().not_before.unwrap().0;
        let delay = again.as_second() - after(at + 1).as_second();
        assert!((9..=750).contains(&delay), "round {round}: {delay}");
        at = again.as_second() - start().as_second() + 1;
    }
}

/// A transient fault that does not pass ends the run after the maximum number of attempts, with its own reason.
#[rstest]
#[case::steps(StepReason::SourceUnreachable, "FetchFailed")]
#[case::storage(StepReason::UploadFailed, "PublishFailed")]
fn a_step_that_never_succeeds_ends_the_run(#[case] fault: StepReason, #[case] reason: &str) {
    let mut world = world(training(json!({})));
    let most = settings().max_step_failures;
    let mut at = 0;
    for round in 1..=most + 1 {
        assert!(
            reconcile(&mut world, at).created.is_some(),
            "round {round}: {}",
            reported(&world)
        );
        change(&mut world, |pod| {
            let error = StepError::new(fault, "no answer");
            if fault == StepReason::UploadFailed {
                train(pod);
                let message = publish_message(PublishOutcome::Error, Some(exit(0)), Some(error));
                end(pod, ended(0, "Completed", "", at + 3), 1, &message, at + 4);
            } else {
                schedule(pod, at + 1);
                set(pod, "fetch", ended(1, "Error", &fetch_failed(error), at + 2));
                phase(pod, "Failed");
            }
        });
        reconcile(&mut world, at + 5);
        let run = status_of(&world).run.unwrap();
        assert_eq!((run.step_failures, run.failures), (round, 0));
        at = run.not_before.map_or(at, |at| at.0.as_second() - start().as_second());
    }
    assert_eq!((reported(&world).as_str(), attempt(&world)), (reason, most + 1));
    let failure = failure(&world);
    assert!(failure.remedy.is_some_and(|remedy| !remedy.is_empty()));
    assert!(reconcile(&mut world, at + 100_000).created.is_none());
}

#[test]
fn back_off_doubles_and_is_counted_from_the_end() {
    let mut world = world(training(json!({"retries": 3})));
    let mut at = 0;
    for least in [10, 20, 40] {
        assert!(reconcile(&mut world, at).created.is_some());
        change(&mut world, train);
        reconcile(&mut world, at + 4);
        let message = publish_message(PublishOutcome::Failed, Some(exit(3)), None);
        change(&mut world, |pod| {
            end(pod, ended(3, "Error", "", at + 7), 1, &message, at + 8)
        });
        // The end is seen late. The time since the end counts.
        reconcile(&mut world, at + 12);
        let not_before = status_of(&world).run.unwrap().not_before.unwrap().0;
        let delay = not_before.as_second() - after(at + 8).as_second();
        assert!((least..=least * 5 / 4).contains(&delay), "{least}: {delay}");
        at = not_before.as_second() - start().as_second();
        assert!(reconcile(&mut world, at - 1).created.is_none());
    }
    assert_eq!((attempt(&world), reported(&world).as_str()), (4, "Retrying"));
}

#[test]
fn a_pod_that_does_not_start_in_time_is_replaced_with_back_off() {
    let mut world = world(training(json!({"startTimeout": "10m"})));
    reconcile(&mut world, 0);
    reconcile(&mut world, 6);
    // Waiting for a node does not count: the pod holds no resources.
    reconcile(&mut world, 1000);
    assert_eq!(attempt(&world), 1);
    change(&mut world, |pod| {
        schedule(pod, 1000);
        set(pod, "fetch", waiting("PodInitializing", ""));
    });
    assert_eq!(reconcile(&mut world, 1599).plan.requeue_at, Some(after(1600)));
    assert_eq!(attempt(&world), 1);
    reconcile(&mut world, 1600);
    let run = status_of(&world).run.unwrap();
    assert_eq!((run.attempt, run.rejections, run.failures), (2, 1, 0));
    assert!(run.not_before.unwrap().0 >= after(1610));
    assert!(
        !run.inputs.is_empty(),
        "nothing has changed, so nothing is resolved again"
    );
    assert!(
        failure(&world).message.contains("spec.startTimeout (10m)"),
        "{}",
        failure(&world).message
    );
    let first = world.pods[0].metadata.name.clone().unwrap();
    assert_eq!(deletions(&reconcile(&mut world, 1601).plan), [first]);
}

#[test]
fn a_pod_with_an_unavailable_image_is_recreated_when_the_toolchain_is_fixed() {
    let mut world = world(training(json!({})));
    world.platform_toolchain = Some(factory::toolchain(json!({"image": "no/such:1"})));
    reconcile(&mut world, 0);
    change(&mut world, |pod| {
        schedule(pod, 1);
        set(pod, "trainer", waiting("ErrImagePull", "not found"));
    });
    reconcile(&mut world, 10);
    assert_eq!((reported(&world).as_str(), attempt(&world)), ("ImageNotPulled", 1));
    let waits = status_of(&world).run.unwrap().waiting.unwrap();
    let mut fixed = Arc::unwrap_or_clone(factory::toolchain(json!({})));
    fixed.metadata.generation = Some(2);
    world.platform_toolchain = Some(Arc::new(fixed));
    let pass = reconcile(&mut world, 20);
    let run = status_of(&world).run.unwrap();
    assert_eq!(
        (run.attempt, run.rejections, run.not_before, run.waiting),
        (2, 0, None, None)
    );
    assert_eq!(waits.reason, "ImageNotPulled");
    assert!(
        pass.plan.events.iter().all(|event| !event.warning),
        "the change was requested"
    );
    assert_eq!(deletions(&reconcile(&mut world, 21).plan).len(), 1);
    change(&mut world, |pod| pod.metadata.deletion_timestamp = factory::time(90));
    assert!(
        reconcile(&mut world, 22).created.is_none(),
        "the node may still have it"
    );
    world.pods.clear();
    let pod = reconcile(&mut world, 23).created.unwrap();
    let image = pod.spec.unwrap().containers[0].image.clone().unwrap();
    assert_eq!(image, "legion-platform/toolchain-mlflow:0.1.0");
}

#[test]
fn a_wait_is_reported_once_with_its_start() {
    let mut world = world(training(json!({})));
    reconcile(&mut world, 0);
    change(&mut world, |pod| {
        let message = "0/3 nodes are available: 3 Insufficient cpu.";
        status(pod).conditions = Some(vec![condition("PodScheduled", "False", "Unschedulable", message, 1)]);
    });
    let first = reconcile(&mut world, 7);
    assert!(first.written && first.plan.events.len() == 1);
    let since = status_of(&world).run.unwrap().waiting.unwrap().since;
    assert_eq!(since.0, after(1));
    // The cluster grows, and the cause stays the same.
    change(&mut world, |pod| {
        let message = "0/9 nodes are available: 9 Insufficient cpu. preemption: none.";
        status(pod).conditions = Some(vec![condition("PodScheduled", "False", "Unschedulable", message, 1)]);
    });
    let second = reconcile(&mut world, 100);
    assert!(!second.written && second.plan.events.is_empty());
}

#[test]
fn unmounted_volumes_are_explained_by_the_events_of_the_pod() {
    let mut world = world(training(json!({})));
    reconcile(&mut world, 0);
    change(&mut world, |pod| {
        schedule(pod, 1);
        let conditions = status(pod).conditions.as_mut().unwrap();
        conditions.push(condition("PodReadyToStartContainers", "False", "", "", 1));
    });
    assert_eq!(reconcile(&mut world, 7).plan.needs, [], "disks may take their time");
    assert_eq!(reported(&world), "Starting");
    let uid = world.pods[0].metadata.uid.clone().unwrap();
    let needs = decide(&world, &settings(), after(21)).needs;
    assert!(
        matches!(needs.as_slice(), [Need::Mounts { uid: asked, .. }] if *asked == uid),
        "{needs:?}"
    );
    for (word, shown) in [
        (None, "the volumes or the network of pod"),
        (
            Some("MountVolume.SetUp failed for volume \"storage-output\" : permission denied"),
            "spec.output: a volume of pod",
        ),
        // The kubelet names a claim's volume by its PersistentVolume.
        (
            Some("MountVolume.SetUp failed for volume \"pvc-6f\" : no such device"),
            "spec.output: a volume of pod",
        ),
        (Some("Unable to attach or mount volumes: timed out"), "a volume of pod"),
    ] {
        world.mounts = BTreeMap::from([(uid.clone(), word.map(str::to_owned))]);
        reconcile(&mut world, 21);
        let status = status_of(&world);
        let condition = find(&status.conditions, SUCCEEDED).unwrap();
        assert_eq!(condition.reason, "VolumeNotMounted");
        assert!(
            condition.message.starts_with(shown) && condition.message.contains(word.unwrap_or("")),
            "{}",
            condition.message
        );
    }
}

/// The scheduler reports a missing claim. The status adds the field of the claim.
#[rstest]
#[case::output("models", json!({}), "spec.output: ")]
#[case::data("train", json!({"data": [{"name": "d", "connection": "nas"}]}), "spec.data[0]: ")]
#[case::source("code", json!({"source": {"volume": {"claimName": "code"}}}), "spec.source.volume.claimName: ")]
#[case::someone_elses("injected", json!({}), "pod wine-")]
fn a_missing_claim_is_reported_with_its_field(
    #[case] claim: &str,
    #[case] spec: serde_json::Value,
    #[case] begins: &str,
) {
    let mut world = world(training(spec));
    let nas = factory::connection("nas", json!({"type": "pvc", "uri": "pvc://train"}));
    world.connections = BTreeMap::from([("nas".to_owned(), nas)]);
    reconcile(&mut world, 0);
    change(&mut world, |pod| {
        let message = format!("persistentvolumeclaim {claim:?} not found");
        status(pod).conditions = Some(vec![condition("PodScheduled", "False", "Unschedulable", &message, 1)]);
    });
    reconcile(&mut world, 7);
    let status = status_of(&world);
    let condition = find(&status.conditions, SUCCEEDED).unwrap();
    assert_eq!(condition.reason, "VolumeNotMounted");
    assert!(
        condition.message.starts_with(begins) && condition.message.contains(claim),
        "{}",
        condition.message
    );
    assert!(!reconcile(&mut world, 20).written, "once");
}

#[test]
fn the_deletion_of_old_pods_does_not_delay_a_new_run() {
    let mut world = training_started(json!({"ttlAfterFinished": "10s"}));
    change(&mut world, |pod| factory::succeed(pod, 9));
    reconcile(&mut world, 10);
    let training = Arc::make_mut(&mut world.training);
    training.spec.trigger = Some("again".into());
    training.metadata.generation = Some(2);
    let plan = decide(&world, &settings(), after(60));
    let kinds: Vec<bool> = plan
        .actions
        .iter()
        .map(|action| matches!(action, Action::CreatePod { .. }))
        .collect();
    assert_eq!(kinds, [true, false]);
}

#[test]
fn history_contains_the_results_of_earlier_runs() {
    let mut universe = Universe::new(training(json!({})));
    universe.settle_down();
    // The second run fails, and a newer run replaces the third.
    universe.edit(|spec| spec.trigger = Some("fails".into()));
    for _ in 0..3 {
        universe.pass();
        universe.progress(0);
    }
    universe.pass();
    universe.fail(0);
    universe.settle_down();
    let failed = universe.status();
    let artifact = failed.artifact.clone().unwrap();
    assert_eq!(failed.run.as_ref().unwrap().result, Some(RunResult::Failed));
    assert_ne!(
        artifact.run_id,
        failed.run.unwrap().id,
        "the artifact stays that of the run before"
    );
    assert_eq!(failed.score, None);
    universe.edit(|spec| spec.trigger = Some("overtaken".into()));
    for _ in 0..3 {
        universe.pass();
        universe.progress(0);
    }
    universe.pass();
    universe.edit(|spec| spec.trigger = Some("last".into()));
    universe.settle_down();
    let status = universe.status();
    let history: Vec<_> = status.history.iter().map(|run| (run.sequence, run.result)).collect();
    assert_eq!(
        history,
        [
            (3, RunResult::Superseded),
            (2, RunResult::Failed),
            (1, RunResult::Succeeded)
        ]
    );
    let first = &status.history[2];
    assert_eq!(first.score.as_deref(), Some("val_accuracy=0.9722"));
    assert_eq!(first.artifact_digest, Some(artifact.digest));
    assert!(first.started_at.is_some() && first.finished_at.is_some() && first.generation == 1);
    assert_eq!(status.history[1].reason.as_deref(), Some("TrainerFailed"));
    assert_eq!(
        (&status.history[1].score, &status.history[1].artifact_digest),
        (&None, &None)
    );
}

#[test]
fn a_status_shows_at_most_64_metrics_with_the_objective_and_counts_the_others() {
    let mut world = training_started(json!({}));
    let mut message = publish_message(PublishOutcome::Published, Some(exit(0)), None);
    let objective = message.tail.metrics.pop().unwrap();
    message.tail.metrics = (0..64)
        .map(|n| MetricSummary {
            name: format!("m{n}"),
            ..objective.clone()
        })
        .chain([objective.clone()])
        .collect();
    (message.tail.omitted.metrics, message.tail.omitted.tags) = (10, 3);
    let text = message.encode(1 << 20);
    change(&mut world, |pod| {
        set(pod, "trainer", ended(0, "Completed", "", 8));
        set(pod, "publish", ended(0, "Completed", &text, 9));
        phase(pod, "Succeeded");
    });
    reconcile(&mut world, 10);
    let status = status_of(&world);
    assert_eq!(status.metrics.len(), 64);
    assert!(status.metrics.iter().any(|metric| metric.name == "val_accuracy"));
    let omitted = status.omitted.unwrap();
    assert_eq!((omitted.metrics, omitted.parameters, omitted.tags), (11, 0, 3));
}

#[test]
fn a_cut_report_still_counts_and_has_a_notice() {
    let mut world = training_started(json!({}));
    let whole = publish_message(PublishOutcome::Published, Some(exit(0)), None).encode(4096);
    change(&mut world, |pod| {
        set(pod, "trainer", ended(0, "Completed", "", 8));
        set(pod, "publish", ended(0, "Completed", &whole[..whole.len() - 20], 9));
        phase(pod, "Succeeded");
    });
    reconcile(&mut world, 10);
    let status = status_of(&world);
    assert_eq!(reported(&world), "RunSucceeded");
    let artifact = status.artifact.unwrap();
    assert!(
        artifact.digest.starts_with("sha256:") && artifact.uri.starts_with("pvc://models/"),
        "{artifact:?}"
    );
    assert_eq!(status.score.as_deref(), Some("val_accuracy=0.9722"));
    assert_eq!(status.notices[0].reason, "StatusIncomplete");
    let omitted = status.omitted.unwrap();
    assert_eq!((omitted.metrics, omitted.parameters, omitted.tags), (1, 1, 1));
}

#[test]
fn an_objective_that_was_never_logged_has_a_notice() {
    let mut world = training_started(json!({}));
    let mut message = publish_message(PublishOutcome::Published, Some(exit(0)), None);
    message.head.objective = None;
    change(&mut world, |pod| end(pod, ended(0, "Completed", "", 8), 0, &message, 9));
    reconcile(&mut world, 10);
    let status = status_of(&world);
    assert_eq!(status.score, None);
    assert_eq!(status.notices[0].reason, "ObjectiveMetricMissing");
    assert!(status.notices[0].message.contains("val_accuracy"));
}

#[test]
fn notices_of_fetch_are_shown_while_the_training_runs_and_after_its_end() {
    let mut world = training_started(json!({}));
    let notice = |reason: &str| WireNotice {
        reason: reason.into(),
        message: "the source is not complete".into(),
    };
    change(&mut world, |pod| {
        let mut message = fetch_message("");
        message.tail.notices = vec![notice("SubmodulesNotFetched")];
        set(pod, "fetch", ended(0, "Completed", &message.encode(4096), 2));
    });
    let shown = |world: &World| {
        status_of(world)
            .notices
            .into_iter()
            .map(|notice| notice.reason)
            .collect::<Vec<_>>()
    };
    reconcile(&mut world, 6);
    assert_eq!(shown(&world), ["SubmodulesNotFetched"]);
    let mut message = publish_message(PublishOutcome::Published, Some(exit(0)), None);
    message.tail.notices = vec![notice("NoSignature")];
    change(&mut world, |pod| end(pod, ended(0, "Completed", "", 8), 0, &message, 9));
    reconcile(&mut world, 10);
    assert_eq!(shown(&world), ["SubmodulesNotFetched", "NoSignature"]);
}

#[test]
fn an_unreadable_source_is_reported_and_recovers() {
    for (forbidden, reason) in [(true, "Forbidden"), (false, "ApiUnavailable")] {
        let mut world = world(training(json!({})));
        let readable = std::mem::replace(
            &mut world.config_map,
            ConfigMapView::Unreadable {
                forbidden,
                message: "no answer".into(),
            },
        );
        reconcile(&mut world, 0);
        assert_eq!(reported(&world), reason);
        assert_eq!(status_of(&world).observed_generation, Some(1));
        world.config_map = readable;
        assert!(reconcile(&mut world, 10).created.is_some());
    }
}

#[test]
fn a_running_earlier_attempt_is_deleted_immediately() {
    let mut world = training_started(json!({"retries": 2}));
    let training = Arc::make_mut(&mut world.training);
    let run = training.status.as_mut().unwrap().run.as_mut().unwrap();
    (run.attempt, run.failures, run.pod_uid) = (2, 1, None);
    let first = world.pods[0].metadata.name.clone().unwrap();
    let next = reconcile(&mut world, 60);
    assert_eq!(deletions(&next.plan), [first]);
    assert!(next.created.is_none());
}

#[test]
fn a_started_run_outlives_its_config_map_and_waits_for_it_before_a_retry() {
    let mut world = training_started(json!({"retries": 1}));
    world.config_map = ConfigMapView::Absent;
    assert!(!reconcile(&mut world, 10).written, "the running attempt has its files");
    let message = publish_message(PublishOutcome::Failed, Some(exit(3)), None);
    change(&mut world, |pod| end(pod, ended(3, "Error", "", 12), 1, &message, 13));
    reconcile(&mut world, 14);
    assert_eq!(attempt(&world), 2);
    assert!(reconcile(&mut world, 60).created.is_none());
    assert_eq!(reported(&world), "SourceNotFound");
}
