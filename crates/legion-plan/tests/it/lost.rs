//! A lost status and a restored object: the run goes on, and what has a success record does not train again.

use legion_api::run::RunResult;
use serde_json::json;

use crate::{
    factory::training,
    universe::{Stage, Universe},
};

const STAGES: [Stage; 6] = [
    Stage::Created,
    Stage::Scheduled,
    Stage::Fetching,
    Stage::Training,
    Stage::Publishing,
    Stage::Over,
];

/// Returns a universe where this attempt of this run has reached this stage. Earlier attempts have failed, and earlier
/// runs have succeeded.
fn reached(run: usize, attempt: i32, stage: Stage) -> Universe {
    let mut universe = Universe::new(training(json!({"retries": 5})));
    for earlier in 1..run {
        universe.settle_down();
        universe.edit(|spec| spec.trigger = Some(earlier.to_string()));
    }
    for _ in 0..1000 {
        while universe.pass() {}
        let latest = universe.latest();
        if latest == Some((attempt, stage)) {
            // The status reports a state that passes soon after some seconds.
            universe.advance(6);
            universe.pass();
            return universe;
        }
        if latest == Some((attempt, Stage::Publishing)) {
            universe.advance(6);
            universe.pass();
        }
        if latest.is_some_and(|(latest, _)| latest < attempt) {
            universe.fail(0);
        }
        universe.progress(0);
        universe.advance(if latest.is_some_and(|(_, stage)| stage == Stage::Over) {
            700
        } else {
            1
        });
        // The last stage of the attempt is over before the operator sees it.
        if stage == Stage::Over && universe.latest() == Some((attempt, stage)) {
            return universe;
        }
    }
    panic!("attempt {attempt} of run {run} did not reach {stage:?}");
}

fn every_state(mut check: impl FnMut(Universe, &str)) {
    for run in 1..=3 {
        for attempt in 1..=3 {
            for stage in STAGES {
                check(
                    reached(run, attempt, stage),
                    &format!("run {run}, attempt {attempt}, {stage:?}"),
                );
            }
        }
    }
}

#[test]
fn a_run_goes_on_from_its_pod_when_its_status_is_lost() {
    for whole in [false, true] {
        every_state(|mut universe, state| {
            let lost = universe.status().run.unwrap();
            universe.lose_status(whole);
            universe.settle_down();
            let run = universe.status().run.unwrap();
            assert_eq!((&run.id, run.sequence), (&lost.id, lost.sequence), "{state}");
            assert!(run.attempt >= lost.attempt, "{state}: attempt {}", run.attempt);
            assert_eq!(run.result, Some(RunResult::Succeeded), "{state}");
            assert_eq!(universe.published(&run.id), 1, "{state}");
        });
    }
}

#[test]
fn a_new_trigger_starts_the_next_run_when_the_status_is_lost() {
    every_state(|mut universe, state| {
        let lost = universe.status().run.unwrap();
        universe.lose_status(false);
        universe.edit(|spec| spec.trigger = Some("after the loss".into()));
        universe.settle_down();
        let run = universe.status().run.unwrap();
        assert_eq!(run.result, Some(RunResult::Succeeded), "{state}");
        assert_ne!(run.id, lost.id, "{state}");
    });
}

#[test]
fn a_finished_run_does_not_train_again_when_only_its_status_is_lost() {
    let mut universe = Universe::new(training(json!({})));
    for run in 1..=8 {
        universe.settle_down();
        let finished = universe.status().run.unwrap();
        let creations = universe.creations;
        universe.lose_status(false);
        universe.settle_down();
        let after = universe.status().run.unwrap();
        assert_eq!(
            (&after.id, after.sequence),
            (&finished.id, finished.sequence),
            "run {run}"
        );
        assert_eq!(after.result, Some(RunResult::Succeeded), "run {run}");
        assert_eq!(universe.creations, creations, "run {run}");
        universe.edit(|spec| spec.trigger = Some(run.to_string()));
    }
}

#[test]
fn a_finished_run_is_the_same_in_an_object_that_is_created_again_with_its_status() {
    for runs in 1..=3 {
        let mut universe = reached(runs, 2, Stage::Over);
        universe.settle_down();
        let (finished, creations) = (universe.status().run.unwrap(), universe.creations);
        for _ in 0..2 {
            universe.recreate();
            universe.settle_down();
            let after = universe.status().run.unwrap();
            assert_eq!(
                (&after.id, after.result),
                (&finished.id, finished.result),
                "{runs} runs"
            );
            assert_eq!(universe.creations, creations, "{runs} runs");
        }
        // The content decides, also where generation and source look unchanged.
        universe.recreate();
        universe.training.spec.trigger = Some("changed in the backup".into());
        universe.settle_down();
        let after = universe.status().run.unwrap();
        assert_ne!(after.id, finished.id, "{runs} runs");
        assert_eq!(universe.creations, creations + 1, "{runs} runs");
    }
}

#[test]
fn a_run_under_way_goes_on_in_an_object_that_is_created_again_with_its_status() {
    every_state(|mut universe, state| {
        let before = universe.status().run.unwrap();
        universe.recreate();
        universe.settle_down();
        let after = universe.status().run.unwrap();
        assert_eq!(after.result, Some(RunResult::Succeeded), "{state}");
        // The id of a run that had no pod yet may change. Nothing of it exists.
        if before.pod_uid.is_some() {
            assert_eq!(after.id, before.id, "{state}");
        }
        assert_eq!(universe.published(&after.id), 1, "{state}");
    });
}

/// The cached object may only be behind its pods. So nothing is recovered before it was read live.
#[test]
fn an_outdated_object_is_read_before_anything_is_decided() {
    let universe = reached(1, 2, Stage::Training);
    let old = {
        let mut old = universe.training.clone();
        let run = old.status.as_mut().unwrap().run.as_mut().unwrap();
        run.attempt = 1;
        old
    };
    let mut stale = universe.world();
    stale.training = std::sync::Arc::new(old);
    let plan = legion_plan::training::decide(&stale, &universe.settings, universe.now);
    assert_eq!(plan.needs, [legion_plan::Need::Object]);
    assert!(plan.actions.is_empty() && plan.status.is_none());
    stale.confirmed = true;
    let plan = legion_plan::training::decide(&stale, &universe.settings, universe.now);
    assert_eq!(plan.needs, []);
    assert_eq!(plan.status.unwrap().run.unwrap().attempt, 2);
}
