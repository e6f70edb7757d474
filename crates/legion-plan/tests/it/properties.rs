//! Properties of every history: random faults and edits, then an undisturbed end.

use legion_plan::training::decide;
use proptest::prelude::*;
use serde_json::json;

use crate::{factory, universe::Universe};

#[derive(Debug, Clone, Copy)]
enum Step {
    Pass,
    Progress(usize),
    Advance(i64),
    Fail(usize),
    FailFetch(usize),
    Delete(usize),
    Lose(usize),
    Relabel(usize),
    Conflict,
    Quota,
    Toolchain,
    Suspend,
    HyperParameter(u8),
    Trigger(u8),
    Source,
    Retries(i32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => Just(Step::Pass),
        8 => (0usize..3).prop_map(Step::Progress),
        3 => (0i64..30).prop_map(Step::Advance),
        1 => (0usize..3).prop_map(Step::Fail),
        1 => (0usize..3).prop_map(Step::FailFetch),
        1 => (0usize..3).prop_map(Step::Delete),
        1 => (0usize..3).prop_map(Step::Lose),
        1 => (0usize..3).prop_map(Step::Relabel),
        1 => Just(Step::Conflict),
        1 => Just(Step::Quota),
        1 => Just(Step::Toolchain),
        1 => Just(Step::Suspend),
        1 => (0u8..3).prop_map(Step::HyperParameter),
        1 => (0u8..3).prop_map(Step::Trigger),
        1 => Just(Step::Source),
        1 => (0i32..3).prop_map(Step::Retries),
    ]
}

fn apply(universe: &mut Universe, step: Step) {
    match step {
        Step::Pass => {
            universe.pass();
        }
        Step::Progress(index) => universe.progress(index),
        Step::Advance(seconds) => universe.advance(seconds),
        Step::Fail(index) => universe.fail(index),
        Step::FailFetch(index) => universe.fail_fetch(index),
        Step::Delete(index) => universe.delete_from_outside(index),
        Step::Lose(index) => universe.lose(index),
        Step::Relabel(index) => universe.relabel(index),
        Step::Conflict => universe.conflict = true,
        Step::Quota => universe.quota = !universe.quota,
        Step::Toolchain => universe.toolchain = !universe.toolchain,
        Step::Suspend => universe.edit(|spec| spec.suspend = !spec.suspend),
        Step::HyperParameter(value) => universe.edit(|spec| {
            spec.hyper_parameters.insert("c".into(), value.to_string());
        }),
        Step::Trigger(value) => universe.edit(|spec| spec.trigger = Some(value.to_string())),
        Step::Source => universe.edit_source(),
        Step::Retries(retries) => universe.edit(|spec| spec.retries = retries),
    }
}

#[test]
fn an_undisturbed_run_costs_three_writes() {
    let mut universe = Universe::new(factory::training(json!({})));
    while universe.pass() {}
    for _ in 0..3 {
        universe.progress(0);
        while universe.pass() {}
    }
    universe.advance(60);
    while universe.pass() {}
    for _ in 0..2 {
        universe.progress(0);
        while universe.pass() {}
    }
    assert!(universe.status().artifact.is_some(), "{:#?}", universe.status());
    // One for the created pod, one for the running code, one for the result.
    assert_eq!(universe.writes, 3);
    universe.settle_down();
    // Ten minutes later the pod is deleted.
    assert_eq!(universe.writes, 4);
}

/// Number of histories. `PROPTEST_CASES` sets another number.
fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok())
        .unwrap_or(100);
    println!("{cases} histories");
    let default = ProptestConfig::default();
    ProptestConfig {
        cases,
        // Fewer if PROPTEST_MAX_SHRINK_ITERS says so.
        max_shrink_iters: default.max_shrink_iters.min(400),
        failure_persistence: None,
        ..default
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_history_ends_in_one_result(steps in proptest::collection::vec(step(), 0..60)) {
        let mut universe = Universe::new(factory::training(json!({})));
        for step in steps {
            apply(&mut universe, step);
        }
        universe.settle_down();
    }

    #[test]
    fn an_interrupted_run_is_never_a_failure(at in 0usize..8, how in 0usize..3) {
        let mut universe = Universe::new(factory::training(json!({})));
        for _ in 0..at {
            universe.pass();
            universe.progress(0);
        }
        match how {
            0 => universe.lose(0),
            1 => universe.delete_from_outside(0),
            _ => universe.relabel(0),
        }
        universe.settle_down();
        let status = universe.status();
        prop_assert_eq!(status.run.unwrap().failures, 0);
        prop_assert!(status.artifact.is_some());
    }

    #[test]
    fn nothing_is_decided_about_a_training_that_is_being_deleted(steps in proptest::collection::vec(step(), 0..40)) {
        let mut universe = Universe::new(factory::training(json!({})));
        for step in steps {
            apply(&mut universe, step);
        }
        universe.training.metadata.deletion_timestamp = factory::time(0);
        let plan = decide(&universe.world(), &universe.settings, universe.now);
        prop_assert!(plan.is_empty());
    }
}

/// Texts in a pod's status: of Legion or of others, valid or not.
fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "",
            "Failed",
            "Running",
            "Succeeded",
            "Pending",
            "Evicted",
            "NodeLost",
            "DeadlineExceeded",
            "OOMKilled",
            "Error",
            "StartError",
            "ErrImagePull",
            "ImagePullBackOff",
            "CreateContainerError",
            "Unschedulable",
            "True",
            "False",
            "{\"v\":1,\"outcome\":\"published\"}",
            "{\"v\":1,\"outcome\":\"failed\",\"exit\":{\"version\":1}}",
            "{\"v\":1,\"outcome\":\"error\",\"error\":{\"reason\":\"SecretMissing\"}}",
            "{\"v\":9}",
            "0/3 nodes are available: ",
            "Back-off pulling image \"a\"",
        ])
        .prop_map(str::to_owned),
        ".{0,24}",
    ]
}

fn moment() -> impl Strategy<Value = i64> {
    prop_oneof![-10i64..10_000, Just(i64::from(i32::MIN)), Just(200_000_000_000)]
}

prop_compose! {
    /// A pod of the training in any state, valid or not.
    fn any_pod()(
        (run, attempt, sequence) in (prop_oneof![Just(None), "[0-9a-f]{8}".prop_map(Some)], prop_oneof![1i32..4, any::<i32>()], word()),
        owned: bool, deleted in prop::option::of(moment()), node in prop::option::of("[a-z]{0,3}"),
        phase in word(), reason in word(), inputs in word(),
        conditions in prop::collection::vec((prop::sample::select(vec!["PodScheduled", "DisruptionTarget", "PodReadyToStartContainers"]), word(), word(), word(), moment()), 0..3),
        containers in prop::collection::vec((prop::sample::select(vec!["fetch", "trainer", "publish", "other"]), 0u8..4, any::<i32>(), word(), word(), moment()), 0..5),
    ) -> k8s_openapi::api::core::v1::Pod {
        let world = factory::world(factory::training(json!({})));
        let mut pod = factory::created(&world, factory::start());
        let metadata = &mut pod.metadata;
        if let Some(run) = run {
            metadata.name = Some(format!("wine-{run}-{attempt}"));
        }
        if !owned {
            metadata.owner_references = None;
        }
        metadata.deletion_timestamp = deleted.and_then(factory::time);
        let annotations = metadata.annotations.as_mut().unwrap();
        annotations.insert("legion-platform.org/sequence".into(), sequence);
        annotations.insert("legion-platform.org/inputs".into(), inputs);
        if let Some(node) = node {
            pod.spec.as_mut().unwrap().node_name = Some(node);
        }
        for (name, state, code, why, message, at) in containers {
            let state = match state {
                0 => k8s_openapi::api::core::v1::ContainerState::default(),
                1 => factory::waiting(&why, &message),
                2 => factory::running(at),
                _ => factory::ended(code, &why, &message, at),
            };
            factory::set(&mut pod, name, state);
        }
        let status = factory::status(&mut pod);
        (status.phase, status.reason) = (Some(phase), Some(reason));
        status.conditions = Some(conditions.iter().map(|(type_, is, why, message, at)| factory::condition(type_, is, why, message, *at)).collect());
        pod
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_world_gets_a_decision_and_no_pod_of_others_is_touched(
        pods in prop::collection::vec(any_pod(), 0..4), now in moment(), span in "[0-9]{1,5}(h|m|s)", retries in 0i32..100,
    ) {
        let mut training = factory::training(json!({"startTimeout": span, "ttlAfterFinished": span, "retries": retries}));
        for _ in 0..3 {
            let mut world = factory::world(training.clone());
            world.pods = pods.iter().cloned().map(std::sync::Arc::new).collect();
            world.probed = pods.iter().take(1).map(|pod| (pod.metadata.name.clone().unwrap(), None)).collect();
            let plan = decide(&world, &factory::settings(), factory::after(now));
            prop_assert_eq!(&plan, &decide(&world, &factory::settings(), factory::after(now)));
            for action in &plan.actions {
                if let legion_plan::Action::DeletePod { name, uid, .. } = action {
                    let found = pods.iter().any(|pod| {
                        pod.metadata.name.as_ref() == Some(name)
                            && pod.metadata.uid.as_ref() == Some(uid)
                            && pod.metadata.owner_references.is_some()
                    });
                    prop_assert!(found, "{name} is not the training's own");
                }
            }
            let outcome = legion_plan::Outcome::default();
            let _ = legion_plan::training::settle(&world, &plan, &outcome, factory::after(now));
            if plan.status.is_some() {
                training.status = plan.status;
            }
        }
    }
}
