//! Kills the processes of a training, one at a time. The training ends, and its status reports the true cause.

use std::{io::Write as _, time::Instant};

use anyhow::{Context as _, ensure};
use legion_tests::local::{kill, until};

use crate::training::{GATES, Running, Training};

/// A process to kill, and the expected end of the training.
struct Case {
    who: &'static str,
    find: fn(&Training) -> anyhow::Result<i32>,
    /// Expected number of executions of the training code. Only a failure of Legion's own steps is retried without
    /// `spec.retries`.
    attempts: u64,
    /// Expected status and reason of the condition `Succeeded`.
    ends: (&'static str, &'static str),
    /// Text that its message contains.
    says: &'static str,
}

const CASES: [Case; 3] = [
    Case {
        who: "the training code",
        find: |training| training.code("half"),
        attempts: 1,
        ends: ("False", "TrainerFailed"),
        says: "exit code 137",
    },
    Case {
        who: "legion-entry, the trainer's main process",
        find: |training| Ok(training.supervised("trainer")?.1),
        attempts: 2,
        ends: ("True", "RunSucceeded"),
        says: "loss=1",
    },
    Case {
        who: "the supervisor of the trainer",
        find: |training| Ok(training.supervised("trainer")?.0),
        attempts: 2,
        ends: ("True", "RunSucceeded"),
        says: "loss=1",
    },
];

#[test]
fn a_training_with_killed_processes_reports_the_true_cause() -> anyhow::Result<()> {
    let mut report = String::from("\n");
    for case in &CASES {
        let began = Instant::now();
        let said = survive(case).with_context(|| format!("killed: {}", case.who))?;
        report.push_str(&format!(
            "{:>9.2}  {}: {said}\n",
            began.elapsed().as_secs_f64(),
            case.who
        ));
    }
    // Written directly: the test harness would capture `println!`.
    std::io::stderr().write_all(report.as_bytes())?;
    Ok(())
}

fn survive(case: &Case) -> anyhow::Result<String> {
    let mut training = Training::new()?;
    training.open(1)?;
    training.local.up()?;
    let running = Running::start(&training)?;
    training.code("half")?;
    let victim = (case.find)(&training)?;
    let before = training.local.processes();
    ensure!(
        before.iter().any(|process| process.pid == victim),
        "{victim} is not one of {before:?}"
    );
    kill(victim)?;
    // The killed attempt no longer waits at the gate. The next one must find it open.
    let killed = training.code("half")?;
    until("the training code ends with what was killed", || {
        Ok((!training.local.processes().iter().any(|process| process.pid == killed)).then_some(()))
    })?;
    training.open(10 * GATES)?;
    let (object, code) = training.end()?;
    running.kill()?;
    let succeeds = case.ends.0 == "True";
    ensure!(code == Some(i32::from(!succeeds)), "exit code {code:?}: {object:#}");
    let conditions = object["status"]["conditions"].as_array().context("conditions")?;
    let succeeded = conditions
        .iter()
        .find(|condition| condition["type"] == "Succeeded")
        .context("no condition Succeeded")?;
    let text = |name: &str| succeeded[name].as_str().unwrap_or_default();
    let said = format!("{}: {}", text("reason"), text("message"));
    ensure!((text("status"), text("reason")) == case.ends, "{succeeded:#}");
    ensure!(text("message").contains(case.says), "{:?} is not in: {said}", case.says);
    let run = &object["status"]["run"];
    ensure!(run["attempt"] == case.attempts, "attempts: {run:#}");
    ensure!(
        u64::try_from(training.said("begin")?)? == case.attempts,
        "executions: {:?}",
        training.ledger()?
    );
    // Whatever was killed, only the last attempt has a result.
    let results = usize::from(succeeds);
    ensure!(training.said("end")? == results, "executions: {:?}", training.ledger()?);
    ensure!(
        training.records().len() == results,
        "success records: {:?}",
        training.records()
    );
    ensure!(
        object["status"]["artifact"].is_object() == succeeds,
        "artifact: {:#}",
        object["status"]
    );
    training.local.down()?;
    Ok(said)
}
