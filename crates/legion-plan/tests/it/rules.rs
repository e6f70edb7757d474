//! The rules of runs and attempts, one by one.

use std::sync::Arc;

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStateRunning, Pod};
use legion_api::{
    condition::{SUCCEEDED, find},
    run::RunResult,
};
use legion_plan::{
    Action, StepResult,
    training::{World, classify_existing, decide},
};
use legion_protocol::{
    exit::ExitRecord,
    message::PublishOutcome,
    reason::{StepError, StepReason},
};
use rstest::rstest;
use serde_json::json;

use crate::{
    factory::{
        self, after, condition, created, end, ended, exit, phase, publish_message, set, settings, start, status,
        succeed, train, training, world,
    },
    universe::Universe,
};

/// Returns the class of a pod's end: the name of its counter, or the result.
fn classify(change: impl FnOnce(&mut Pod)) -> (&'static str, String) {
    let mut world = world(training(json!({"retries": 1})));
    let mut pod = created(&world, start());
    train(&mut pod);
    change(&mut pod);
    world.pods = vec![Arc::new(pod)];
    let status = decide(&world, &settings(), after(20)).status.unwrap();
    let run = status.run.unwrap();
    let what = match (
        run.result,
        run.attempt,
        run.failures,
        run.disruptions,
        run.rejections,
        run.step_failures,
    ) {
        (Some(RunResult::Succeeded), 1, ..) => "succeeded",
        (Some(_), 1, 0, 0, 0, 0) => "final",
        (None, 2, 1, 0, 0, 0) => "failure",
        (None, 2, 0, 1, 0, 0) => "disruption",
        (None, 2, 0, 0, 1, 0) => "rejection",
        (None, 2, 0, 0, 0, 1) => "step",
        (None, 1, 0, 0, 0, 0) => "runs",
        other => panic!("{other:?}"),
    };
    (what, status.failure.map(|failure| failure.reason).unwrap_or_default())
}

fn publish(
    pod: &mut Pod,
    trainer: (i32, &str),
    outcome: PublishOutcome,
    record: Option<ExitRecord>,
    error: Option<StepError>,
) {
    let code = i32::from(!matches!(outcome, PublishOutcome::Published | PublishOutcome::Skipped));
    end(
        pod,
        ended(trainer.0, trainer.1, "", 7),
        code,
        &publish_message(outcome, record, error),
        8,
    );
}

/// Makes a container running again: the kubelet has not reported its end yet.
fn still_runs(pod: &mut Pod, container: &str) {
    let status = status(pod);
    status.phase = Some("Running".into());
    for seen in status.container_statuses.iter_mut().flatten() {
        if seen.name == container {
            seen.state = Some(ContainerState {
                running: Some(ContainerStateRunning::default()),
                ..ContainerState::default()
            });
        }
    }
}

#[test]
fn ends_are_classified_in_order() {
    use PublishOutcome as P;
    let interrupted = || ExitRecord {
        outside_signal: Some(15),
        ..exit(0)
    };
    // A stored success counts, whatever else happened to the pod.
    assert_eq!(
        classify(|pod| {
            publish(pod, (0, "Completed"), P::Published, Some(exit(0)), None);
            status(pod).reason = Some("Evicted".into());
        }),
        ("succeeded", String::new())
    );
    assert_eq!(
        classify(|pod| publish(pod, (0, "Completed"), P::Skipped, None, None)).0,
        "succeeded"
    );
    // A trainer that got TERM and ended with 0 has not finished.
    assert_eq!(
        classify(|pod| publish(pod, (0, "Completed"), P::Failed, Some(interrupted()), None)),
        ("disruption", "Interrupted".into())
    );
    // Exceeding the pod's own limit is no interruption.
    assert_eq!(
        classify(|pod| {
            publish(pod, (143, "Error"), P::Failed, Some(interrupted()), None);
            status(pod).reason = Some("Evicted".into());
        }),
        ("failure", "Evicted".into())
    );
    assert_eq!(
        classify(|pod| {
            publish(pod, (143, "Error"), P::Failed, Some(interrupted()), None);
            status(pod).reason = Some("Evicted".into());
            status(pod).conditions.get_or_insert_default().push(condition(
                "DisruptionTarget",
                "True",
                "TerminationByKubelet",
                "",
                5,
            ));
        })
        .0,
        "disruption"
    );
    assert_eq!(
        classify(|pod| publish(
            pod,
            (124, "Error"),
            P::Failed,
            Some(ExitRecord {
                timed_out: true,
                ..exit(143)
            }),
            None
        ))
        .0,
        "final"
    );
    assert_eq!(
        classify(|pod| publish(pod, (3, "Error"), P::Failed, Some(exit(3)), None)),
        ("failure", "TrainerFailed".into())
    );
    // The kernel killed a child process: the record shows the signal, the container shows the cause.
    let killed = ExitRecord {
        exit_code: None,
        signal: Some(9),
        ..exit(0)
    };
    assert_eq!(
        classify(|pod| publish(pod, (137, "OOMKilled"), P::Failed, Some(killed.clone()), None)),
        ("failure", "OutOfMemory".into())
    );
    // The cause follows when the code has failed. Otherwise there is nothing to wait for.
    for (record, verdict) in [
        (Some(killed), "runs"),
        (Some(exit(3)), "runs"),
        (Some(exit(0)), "step"),
        (None, "step"),
    ] {
        let (seen, _) = classify(|pod| {
            publish(pod, (137, "OOMKilled"), P::Failed, record.clone(), None);
            still_runs(pod, "trainer");
        });
        assert_eq!(seen, verdict, "{record:?}");
    }
    assert_eq!(
        classify(|pod| publish(pod, (137, "OOMKilled"), P::Failed, None, None)),
        ("failure", "OutOfMemory".into())
    );
    assert_eq!(
        classify(|pod| publish(pod, (137, "Error"), P::Failed, None, None)),
        ("disruption", "Killed".into())
    );
    assert_eq!(
        classify(|pod| publish(pod, (255, "Error"), P::Failed, None, None)),
        ("disruption", "Killed".into())
    );
    assert_eq!(
        classify(|pod| publish(pod, (1, "Error"), P::Failed, None, None)),
        ("failure", "TrainerFailed".into())
    );
    // Legion's own steps, by class.
    let step = |reason| Some(StepError::new(reason, "words"));
    assert_eq!(
        classify(|pod| publish(
            pod,
            (0, "Completed"),
            P::Error,
            Some(exit(0)),
            step(StepReason::UploadFailed)
        )),
        ("step", "UploadFailed".into())
    );
    assert_eq!(
        classify(|pod| publish(
            pod,
            (0, "Completed"),
            P::Error,
            Some(exit(0)),
            step(StepReason::ModelMissing)
        )),
        ("final", "ModelMissing".into())
    );
    // The pod's own deadline.
    assert_eq!(
        classify(|pod| {
            publish(pod, (143, "Error"), P::Failed, Some(interrupted()), None);
            status(pod).reason = Some("DeadlineExceeded".into());
        }),
        ("final", "PodDeadlineExceeded".into())
    );
    // Refused by the kubelet before anything ran.
    assert_eq!(
        classify(|pod| {
            status(pod).container_statuses = None;
            status(pod).init_container_statuses = None;
            status(pod).reason = Some("OutOfcpu".into());
            phase(pod, "Failed");
        }),
        ("rejection", "PodRejected".into())
    );
    // `publish` ended before the trainer. Nothing would store the trainer's work.
    assert_eq!(classify(|pod| set(pod, "publish", ended(1, "Error", "", 5))).0, "step");
    // The trainer could not be started. `publish` would wait forever.
    assert_eq!(
        classify(|pod| set(pod, "trainer", ended(128, "StartError", "exec: not found", 5))),
        ("rejection", "TrainerNotStarted".into())
    );
    // An injected container says nothing about the end.
    assert_eq!(classify(|pod| set(pod, "sidecar", ended(1, "Error", "", 5))).0, "runs");
}

#[test]
fn an_injected_container_that_never_ends_is_not_waited_for() {
    let mut universe_world = world(training(json!({})));
    let mut pod = created(&universe_world, start());
    train(&mut pod);
    succeed(&mut pod, 11);
    phase(&mut pod, "Running");
    set(&mut pod, "istio-proxy", factory::running(2));
    universe_world.pods = vec![Arc::new(pod)];
    let plan = decide(&universe_world, &settings(), after(12));
    assert!(plan.actions.is_empty(), "the report is stored first: {plan:#?}");
    Arc::make_mut(&mut universe_world.training).status = plan.status;
    let plan = decide(&universe_world, &settings(), after(13));
    assert_eq!(
        (plan.actions.len(), plan.requeue_at),
        (0, Some(after(16))),
        "then the other container has time to end on its own: {plan:#?}"
    );
    let plan = decide(&universe_world, &settings(), after(16));
    assert!(
        matches!(plan.actions.as_slice(), [Action::DeletePod { .. }]),
        "then the leftover goes: {plan:#?}"
    );
}

/// A kubelet reports the ends of all containers before the pod's last phase.
#[test]
fn a_pod_without_running_containers_is_kept_in_any_phase() {
    let mut world = world(training(json!({})));
    let mut pod = created(&world, start());
    train(&mut pod);
    succeed(&mut pod, 11);
    phase(&mut pod, "Running");
    world.pods = vec![Arc::new(pod)];
    let plan = decide(&world, &settings(), after(12));
    Arc::make_mut(&mut world.training).status = plan.status;
    let ttl = world.training.spec.ttl_after_finished.get();
    let goes = after(11).checked_add(ttl).unwrap();
    for now in [after(12), after(30)] {
        let plan = decide(&world, &settings(), now);
        assert_eq!((plan.actions.len(), plan.requeue_at), (0, Some(goes)), "{plan:#?}");
    }
    let plan = decide(&world, &settings(), goes);
    assert!(
        matches!(plan.actions.as_slice(), [Action::DeletePod { .. }]),
        "{plan:#?}"
    );
}

#[rstest]
#[case(true, false, "created")]
#[case(true, true, "not yet")]
#[case(false, false, "taken")]
fn an_existing_pod_is_classified(#[case] ours: bool, #[case] terminating: bool, #[case] expected: &str) {
    let world = world(training(json!({})));
    let wanted = created(&world, start());
    let mut found = wanted.clone();
    if !ours {
        found.metadata.owner_references = None;
    }
    found.metadata.deletion_timestamp = factory::time(0).filter(|_| terminating);
    let result = match classify_existing(&world, &wanted, &found) {
        StepResult::Created => "created",
        StepResult::NotYet => "not yet",
        StepResult::NameTaken => "taken",
        other => panic!("{other:?}"),
    };
    assert_eq!(result, expected);
}

fn run_to_the_end(universe: &mut Universe) {
    universe.settle_down();
}

#[test]
fn a_new_run_clears_the_last_status_and_keeps_the_artifact() {
    let mut universe = Universe::new(training(json!({})));
    run_to_the_end(&mut universe);
    let first = universe.status();
    universe.edit(|spec| spec.trigger = Some("again".into()));
    for _ in 0..3 {
        universe.pass();
        universe.progress(0);
    }
    universe.pass();
    let status = universe.status();
    let run = status.run.as_ref().unwrap();
    assert_eq!(run.sequence, 2);
    assert!(status.metrics.is_empty() && status.score.is_none() && status.failure.is_none());
    assert_eq!(status.artifact, first.artifact);
    assert_eq!(status.history[0].run_id, first.run.unwrap().id);
    assert_eq!(status.history[0].score.as_deref(), Some("val_accuracy=0.9722"));
    universe.settle_down();
}

#[test]
fn going_back_to_an_earlier_spec_is_a_new_run_and_history_keeps_five() {
    let mut universe = Universe::new(training(json!({})));
    let mut ids = std::collections::BTreeSet::new();
    for round in 0..8 {
        universe.edit(|spec| {
            spec.hyper_parameters.insert("c".into(), (round % 2).to_string());
        });
        universe.settle_down();
        ids.insert(universe.status().run.unwrap().id);
    }
    assert_eq!(ids.len(), 8);
    let history: Vec<i64> = universe.status().history.iter().map(|entry| entry.sequence).collect();
    assert_eq!(history, [7, 6, 5, 4, 3]);
}

#[test]
fn a_changed_file_of_a_config_map_starts_a_run_and_is_reported_immediately() {
    let mut universe = Universe::new(training(json!({})));
    universe.settle_down();
    universe.edit_source();
    universe.pass();
    let status = universe.status();
    assert_eq!(status.run.unwrap().sequence, 2);
    assert_eq!(find(&status.conditions, SUCCEEDED).unwrap().status, "Unknown");
    universe.settle_down();
}

#[test]
fn changes_without_effect_start_nothing() {
    let mut universe = Universe::new(training(json!({})));
    universe.settle_down();
    let (creations, run) = (universe.creations, universe.status().run.unwrap());
    universe.edit(|spec| {
        spec.retries = 3;
        spec.timeout = "2h".parse().unwrap();
        spec.suspend = true;
    });
    universe.training.metadata.labels = Some([("team".to_owned(), "a".to_owned())].into());
    universe.settle_down();
    assert_eq!(universe.creations, creations);
    assert_eq!(universe.status().run.unwrap().id, run.id);
}

#[test]
fn suspending_ends_the_pod_and_does_not_count() {
    let mut universe = Universe::new(training(json!({})));
    for _ in 0..3 {
        universe.pass();
        universe.progress(0);
    }
    universe.edit(|spec| spec.suspend = true);
    for _ in 0..6 {
        universe.pass();
        universe.progress(0);
    }
    universe.pass();
    let status = universe.status();
    let condition = find(&status.conditions, SUCCEEDED).unwrap();
    assert_eq!(
        (condition.status.as_str(), condition.reason.as_str()),
        ("Unknown", "Suspended")
    );
    universe.settle_down();
    let run = universe.status().run.unwrap();
    assert_eq!(
        (run.result, run.attempt, run.disruptions, run.failures),
        (Some(RunResult::Succeeded), 2, 0, 0)
    );
}

#[test]
fn a_retry_waits_is_claimed_first_and_uses_the_pinned_inputs() {
    let mut universe = Universe::new(training(json!({"retries": 1})));
    for _ in 0..3 {
        universe.pass();
        universe.progress(0);
    }
    universe.pass();
    universe.fail(0);
    universe.progress(0);
    universe.progress(0);
    universe.pass();
    let claimed = universe.status().run.unwrap();
    assert_eq!(
        (claimed.attempt, claimed.failures, claimed.pod_uid.as_deref()),
        (2, 1, None)
    );
    assert_eq!(universe.creations, 1, "claiming and creating are two passes");
    universe.toolchain = false;
    universe.pass();
    assert_eq!(universe.creations, 1, "the back-off is between them");
    universe.now = universe.now.checked_add(SignedDuration::from_secs(15)).unwrap();
    universe.pass();
    assert_eq!(
        universe.creations, 2,
        "a toolchain that went does not matter to a run that has begun"
    );
    universe.settle_down();
    assert_eq!(universe.status().run.unwrap().result, Some(RunResult::Succeeded));
}

#[test]
fn an_outdated_status_deletes_no_newer_pod() {
    let mut universe = Universe::new(training(json!({})));
    universe.settle_down();
    let old: World = universe.world();
    for round in 0..2 {
        universe.edit(|spec| spec.trigger = Some(round.to_string()));
        universe.pass();
        universe.progress(0);
        universe.pass();
    }
    let stale = World {
        pods: universe.world().pods,
        training: old.training,
        ..universe.world()
    };
    let plan = decide(&stale, &universe.settings, universe.now);
    assert!(plan.actions.is_empty() && plan.status.is_none(), "{plan:#?}");
    assert_eq!(plan.needs, [legion_plan::Need::Object]);
}

#[test]
fn a_pod_that_cannot_start_is_recreated_when_its_shape_changes() {
    let mut world = world(training(json!({"resources": {"requests": {"cpu": "500"}}})));
    let mut pod = created(&world, start());
    let message = "0/3 nodes are available: 3 Insufficient cpu.";
    status(&mut pod).conditions = Some(vec![condition("PodScheduled", "False", "Unschedulable", message, 1)]);
    world.pods = vec![Arc::new(pod)];
    let waits = decide(&world, &settings(), after(30)).status.unwrap().run.unwrap();
    assert_eq!(waits.attempt, 1);
    let mut other = training(json!({"resources": {"requests": {"cpu": "1"}}}));
    other.metadata.generation = Some(2);
    world.training = Arc::new(other);
    let again = decide(&world, &settings(), after(30)).status.unwrap().run.unwrap();
    assert_eq!(
        (again.attempt, again.failures, again.rejections, again.not_before),
        (2, 0, 0, None)
    );
}

/// What a run has begun with stays, also when a later attempt cannot start. A run that has not begun takes what is new.
#[test]
fn the_inputs_of_a_run_that_has_begun_stay() {
    for begun in [false, true] {
        let mut world = world(training(json!({"retries": 3})));
        let mut pod = created(&world, start());
        if begun {
            train(&mut pod);
            publish(&mut pod, (3, "Error"), PublishOutcome::Failed, Some(exit(3)), None);
            world.pods = vec![Arc::new(pod)];
            let status = decide(&world, &settings(), after(20)).status;
            Arc::make_mut(&mut world.training).status = status;
            pod = created(&world, after(60));
        }
        factory::schedule(&mut pod, 61);
        set(&mut pod, "trainer", factory::waiting("ImagePullBackOff", "not found"));
        world.pods = vec![Arc::new(pod)];
        let status = decide(&world, &settings(), after(70)).status;
        let attempt = status.as_ref().unwrap().run.as_ref().unwrap().attempt;
        Arc::make_mut(&mut world.training).status = status;
        world.platform_toolchain = Some(factory::toolchain(json!({"image": "legion-platform/other:2"})));
        let run = decide(&world, &settings(), after(80)).status.unwrap().run.unwrap();
        assert_eq!(run.attempt - attempt, i32::from(!begun), "begun: {begun}");
        assert_eq!(!run.inputs.is_empty(), begun, "begun: {begun}");
    }
}

#[test]
fn a_toolchain_without_arguments_takes_none() {
    let mut world = world(training(json!({"arguments": {"fast": true}})));
    world.platform_toolchain = Some(factory::toolchain(json!({"arguments": null})));
    let plan = decide(&world, &settings(), start());
    assert_eq!(plan.problems.len(), 1, "{plan:#?}");
    assert_eq!(plan.problems[0].reason, legion_api::Reason::InvalidArguments);
    assert!(plan.problems[0].message.contains("takes no arguments, but got fast"));
}

/// A clock that was two hours ahead has stored a time far in the future.
#[test]
fn a_back_off_that_is_longer_than_any_counts_as_over() {
    let mut universe = Universe::new(training(json!({"retries": 1})));
    while universe.pass() {}
    for _ in 0..3 {
        universe.progress(0);
        universe.advance(6);
        universe.pass();
    }
    universe.fail(0);
    universe.progress(0);
    universe.progress(0);
    universe.pass();
    let run = |universe: &mut Universe| universe.training.status.as_mut().unwrap().run.clone().unwrap();
    assert_eq!(run(&mut universe).attempt, 2);
    for (seconds, waits) in [(740, true), (7200, false)] {
        let mut world = universe.world();
        let training = Arc::make_mut(&mut world.training);
        let at = universe.now.checked_add(SignedDuration::from_secs(seconds)).unwrap();
        let run = training.status.as_mut().unwrap().run.as_mut().unwrap();
        run.not_before = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at));
        let plan = decide(&world, &universe.settings, universe.now);
        let creates = plan
            .actions
            .iter()
            .any(|action| matches!(action, Action::CreatePod { .. }));
        assert_eq!(creates, !waits, "{seconds}: {plan:#?}");
    }
}

#[test]
fn data_paths_must_not_overlap() {
    for (first, second, good) in [
        ("data", "data", false),
        ("data", "data/train", false),
        ("data/./train/", "data", false),
        ("data/a", "data/b", true),
        ("data", "database", true),
        ("../x", "y", false),
    ] {
        let mut world = world(training(json!({"data": [
            {"name": "one", "connection": "nas", "localPath": first}, {"name": "two", "connection": "nas", "localPath": second},
        ]})));
        let nas = factory::connection("nas", json!({"type": "pvc", "uri": "pvc://nas"}));
        world.connections = [("nas".to_owned(), nas)].into();
        let plan = decide(&world, &settings(), start());
        assert_eq!(plan.problems.is_empty(), good, "{first} {second}: {:?}", plan.problems);
        assert!(
            plan.problems
                .iter()
                .all(|problem| problem.field.starts_with("spec.data["))
        );
    }
}

/// A release build needs a few microseconds. This bound only finds a large increase.
#[test]
fn a_settled_training_costs_next_to_nothing() {
    let mut universe = Universe::new(training(json!({})));
    universe.settle_down();
    let world = universe.world();
    let begun = std::time::Instant::now();
    for _ in 0..1000 {
        assert!(decide(&world, &universe.settings, universe.now).is_empty());
    }
    let each = begun.elapsed() / 1000;
    println!("deciding about a settled training takes {each:?}");
    assert!(each < std::time::Duration::from_millis(1), "{each:?}");
}
