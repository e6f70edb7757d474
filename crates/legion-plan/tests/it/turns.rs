//! Suspension, interruption, a new run, and a quota's turn: when an attempt follows, and when it waits.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use legion_api::run::RunResult;
use legion_plan::{
    Action, Outcome, StepResult, Write,
    training::{ConfigMapContent, ConfigMapView, World, decide, requeue, settle},
};
use legion_protocol::message::PublishOutcome;
use rstest::rstest;
use serde_json::json;

use crate::factory::{
    self, after, condition, end, ended, exit, phase, publish_message, set, settings, start, status, train, training,
    world,
};
use crate::passes::{Pass, change, edit, failure, message, reconcile, reported, status_of, store, training_started};

#[rstest]
#[case::drain(|pod: &mut Pod| status(pod).conditions.as_mut().unwrap().push(condition("DisruptionTarget", "True", "EvictionByEvictionAPI", "", 9)), "Disrupted")]
#[case::node_shutdown(|pod: &mut Pod| status(pod).reason = Some("NodeShutdown".into()), "Disrupted")]
#[case::deleted(|pod: &mut Pod| pod.metadata.deletion_timestamp = factory::time(20), "Disrupted")]
fn an_interruption_without_a_record_does_not_count(#[case] how: fn(&mut Pod), #[case] word: &str) {
    let mut world = training_started(json!({}));
    change(&mut world, |pod| {
        how(pod);
        // Not 137: that exit code alone would have the same meaning.
        set(pod, "trainer", ended(143, "Error", "", 9));
        set(pod, "publish", ended(143, "Error", "", 9));
        phase(pod, "Failed");
    });
    reconcile(&mut world, 10);
    let run = status_of(&world).run.unwrap();
    assert_eq!((run.attempt, run.failures, run.disruptions), (2, 0, 1));
    assert_eq!((failure(&world).reason.as_str(), failure(&world).remedy), (word, None));
}

/// Ends the training code with an error of its own.
fn fail(pod: &mut Pod, seconds: i64) {
    let message = publish_message(PublishOutcome::Failed, Some(exit(3)), None);
    end(pod, ended(3, "Error", "", seconds - 1), 1, &message, seconds);
}

/// Ends the pod as its deletion does.
fn interrupt(pod: &mut Pod, seconds: i64) {
    pod.metadata.deletion_timestamp = factory::time(seconds);
    set(pod, "trainer", ended(143, "Error", "", seconds));
    set(pod, "publish", ended(143, "Error", "", seconds));
    phase(pod, "Failed");
}

/// The pod of a suspended run ends before the suspension is reported, after that, and after the run was resumed.
#[rstest]
#[case::unreported(false, false, "Suspended", "suspended: no pod runs")]
#[case::reported(true, false, "Suspended", "suspended: no pod runs")]
#[case::resumed(true, true, "Retrying", "attempt 2 resumes the run")]
fn an_end_by_a_suspension_does_not_count(
    #[case] reports: bool,
    #[case] resumes: bool,
    #[case] reason: &str,
    #[case] words: &str,
) {
    let mut world = training_started(json!({}));
    edit(&mut world, |spec| spec.suspend = true);
    if reports {
        reconcile(&mut world, 6);
        assert_eq!(reported(&world), "Suspended");
    }
    if resumes {
        edit(&mut world, |spec| spec.suspend = false);
    }
    change(&mut world, |pod| interrupt(pod, 9));
    reconcile(&mut world, 10);
    let status = status_of(&world);
    let run = status.run.unwrap();
    assert_eq!((run.attempt, run.disruptions), (2, 0));
    assert_eq!((run.not_before, status.failure), (None, None));
    assert_eq!((reported(&world).as_str(), message(&world).as_str()), (reason, words));
}

#[test]
fn training_code_that_fails_during_a_suspension_has_failed() {
    for resumes in [false, true] {
        let mut world = training_started(json!({"retries": 1}));
        edit(&mut world, |spec| spec.suspend = true);
        reconcile(&mut world, 6);
        if resumes {
            edit(&mut world, |spec| spec.suspend = false);
        }
        change(&mut world, |pod| fail(pod, 9));
        reconcile(&mut world, 10);
        let run = status_of(&world).run.unwrap();
        assert_eq!((run.attempt, run.failures), (2, 1), "resumes: {resumes}");
        assert!(run.not_before.unwrap().0 >= after(19), "resumes: {resumes}");
        assert_eq!(failure(&world).exit_code, Some(3), "resumes: {resumes}");
        if resumes {
            let shown = message(&world);
            assert!(
                shown.starts_with("attempt 2 follows after attempt 1 ended: "),
                "{shown}"
            );
        } else {
            assert_eq!(reported(&world), "Suspended");
            edit(&mut world, |spec| spec.suspend = false);
            reconcile(&mut world, 12);
            let shown = (reported(&world), message(&world));
            assert_eq!(
                shown,
                ("Retrying".into(), "attempt 2 follows after the back-off".into())
            );
        }
    }
}

#[test]
fn a_new_run_does_not_repeat_what_was_reported_about_the_run_before() {
    let mut world = training_started(json!({}));
    change(&mut world, |pod| set(pod, "publish", ended(1, "Error", "", 9)));
    reconcile(&mut world, 10);
    assert_eq!(reported(&world), "Retrying");
    edit(&mut world, |spec| spec.trigger = Some("again".into()));
    assert!(reconcile(&mut world, 60).created.is_none(), "the trainer may still run");
    assert_eq!(reported(&world), "Replacing");
}

/// Another version of the operator may have recorded a reason that this one does not have.
#[rstest]
#[case(RunResult::Succeeded, "RunSucceeded")]
#[case(RunResult::Failed, "TrainerFailed")]
fn a_result_with_an_unknown_reason_is_still_reported(#[case] result: RunResult, #[case] reason: &str) {
    for recorded in [None, Some("NoSuchReason")] {
        let mut world = training_started(json!({}));
        let status = Arc::make_mut(&mut world.training).status.as_mut().unwrap();
        let run = status.run.as_mut().unwrap();
        (run.result, run.reason) = (Some(result), recorded.map(str::to_owned));
        reconcile(&mut world, 10);
        assert_eq!(reported(&world), reason, "{recorded:?}");
    }
}

fn refused_by_quota() -> Outcome {
    Outcome {
        results: vec![StepResult::Refused(legion_plan::ApiError {
            code: 403,
            message: "exceeded quota: q, requested: cpu=1, used: cpu=1, limited: cpu=1".into(),
            ..Default::default()
        })],
    }
}

#[rstest]
#[case::not_its_turn(|world: &mut World| world.quota_turn = false, false)]
#[case::its_turn(|_: &mut World| {}, true)]
#[case::a_changed_spec_asks_out_of_turn(|world: &mut World| {
    world.quota_turn = false;
    edit(world, |spec| spec.retries = 3);
}, true)]
#[case::a_new_run_asks_out_of_turn(|world: &mut World| {
    world.quota_turn = false;
    let source = world.training.spec.source.config_map.clone().unwrap();
    let content = ConfigMapContent::of(&factory::config_map("6", "print(2)"), &source);
    world.config_map = ConfigMapView::Read(content);
}, true)]
fn a_pod_that_a_quota_refuses_waits_for_its_turn(#[case] change: fn(&mut World), #[case] asks: bool) {
    let mut world = world(training(json!({})));
    let plan = decide(&world, &settings(), start());
    let patch = settle(&world, &plan, &refused_by_quota(), start()).unwrap();
    store(&mut world, &patch);
    assert_eq!(reported(&world), "QuotaExceeded");
    let shown = message(&world);
    change(&mut world);
    let pass = reconcile(&mut world, 60);
    assert_eq!(pass.created.is_some(), asks);
    if !asks {
        assert_eq!(pass.plan.requeue_at, Some(after(90)));
        assert_eq!((reported(&world).as_str(), message(&world)), ("QuotaExceeded", shown));
    }
}

#[test]
fn only_a_pod_that_a_quota_has_refused_waits_for_its_turn() {
    let mut world = world(training(json!({})));
    world.quota_turn = false;
    assert!(reconcile(&mut world, 0).created.is_some());
}

/// Another writer may have claimed a later attempt. Only the first attempt follows from the run alone.
#[test]
fn a_later_attempt_is_created_only_while_the_object_has_the_version_of_its_claim() {
    let only_at = |pass: &Pass| match pass.plan.actions.as_slice() {
        [Action::CreatePod { only_at, .. }] => only_at.clone(),
        other => panic!("{other:?}"),
    };
    let mut world = world(training(json!({"retries": 1})));
    assert_eq!(only_at(&reconcile(&mut world, 0)), None);
    change(&mut world, train);
    reconcile(&mut world, 4);
    change(&mut world, |pod| fail(pod, 8));
    reconcile(&mut world, 9);
    assert_eq!(only_at(&reconcile(&mut world, 60)).as_deref(), Some("100"));
}

#[test]
fn a_refused_pod_is_retried_on_a_timer() {
    let world = world(training(json!({})));
    let plan = decide(&world, &settings(), start());
    let refused = refused_by_quota();
    assert_eq!(
        requeue(&plan, &refused, start()),
        Some(after(5)),
        "at first to say what it waits for"
    );
    assert_eq!(plan.retry_at, Some(after(30)));
    assert!(matches!(plan.write, Write::NotBefore(_)));
    assert!(
        settle(&world, &plan, &refused, start()).is_some(),
        "a refusal is reported immediately"
    );
}
