//! Kills the local process (API, node and operator) at ten moments of a training, and starts it again.

use std::{io::Write as _, time::Instant};

use anyhow::{Context as _, ensure};
use legion_tests::{
    local::{kill, until},
    sample,
};
use serde_json::Value;

use crate::training::{GATES, NAME, Running, Training};

/// The moment of the kill.
struct Moment {
    name: &'static str,
    /// Number of gates that are open from the start. The others open when the process serves again.
    open: usize,
    /// Whether the training continues to its end while the process is down.
    alone: bool,
    reached: fn(&Training, &Running) -> anyhow::Result<bool>,
}

const MOMENTS: [Moment; 10] = [
    Moment {
        name: "the manifest is applied",
        open: GATES,
        alone: false,
        reached: |_, running| Ok(running.says("modeltraining/crash created")),
    },
    Moment {
        name: "the pod is on the node",
        open: GATES,
        alone: false,
        reached: |training, _| {
            Ok(training
                .local
                .path()
                .join("node/pods")
                .read_dir()
                .is_ok_and(|mut pods| pods.next().is_some()))
        },
    },
    Moment {
        name: "fetch runs",
        open: GATES,
        alone: false,
        reached: |training, _| Ok(training.has("fetch", "started.json")),
    },
    Moment {
        name: "the trainer's container is being started",
        open: GATES,
        alone: false,
        reached: |training, _| Ok(training.container("trainer").is_some()),
    },
    Moment {
        name: "the training code has begun",
        open: 0,
        alone: false,
        reached: |training, _| Ok(training.said("begin")? > 0),
    },
    Moment {
        name: "the training code is half through, and ends alone",
        open: 1,
        alone: true,
        reached: |training, _| Ok(training.said("half")? > 0),
    },
    Moment {
        name: "the training code has ended",
        open: GATES,
        alone: false,
        reached: |training, _| Ok(training.said("end")? > 0),
    },
    Moment {
        name: "publish writes the artifact",
        open: GATES,
        alone: false,
        reached: |training, _| Ok(!training.outputs().is_empty()),
    },
    Moment {
        name: "publish has written the success record",
        open: GATES,
        alone: false,
        reached: |training, _| Ok(!training.records().is_empty()),
    },
    Moment {
        name: "the status says how it ended",
        open: GATES,
        alone: false,
        reached: |_, running| Ok(running.says("RunSucceeded")),
    },
];

#[test]
fn killed_at_ten_moments_a_training_has_one_result() -> anyhow::Result<()> {
    let reference = undisturbed().context("without a crash")?;
    let mut report = format!(
        "\n{:>9} {:>9} {:>9}  killed when\n{:>9} {:>9} {:>9}\n",
        "killed", "up again", "ended", "after s", "in s", "s later"
    );
    for moment in sample::share(&MOMENTS, 3) {
        let row = survive(moment, &reference).with_context(|| format!("killed when {}", moment.name))?;
        report.push_str(&row);
    }
    // Written directly: the test harness would capture `println!`.
    std::io::stderr().write_all(report.as_bytes())?;
    Ok(())
}

/// Runs a training without any fault, and returns what it leaves behind.
fn undisturbed() -> anyhow::Result<Value> {
    let mut training = Training::new()?;
    training.open(GATES)?;
    training.local.up()?;
    let manifest = training.manifest();
    training
        .local
        .run(&["local", "run", "-f", manifest.to_str().context("UTF-8")?])?;
    let (object, code) = training.end()?;
    ensure!(code == Some(0), "exit code {code:?}: {object:#}");
    training.one_result(&object)?;
    let status = training.comparable(&object)?;
    training.local.down()?;
    Ok(status)
}

fn survive(moment: &Moment, reference: &Value) -> anyhow::Result<String> {
    let mut training = Training::new()?;
    training.open(moment.open)?;
    let began = Instant::now();
    let mut running = Running::start(&training)?;
    until(moment.name, || {
        if (moment.reached)(&training, &running)? {
            return Ok(Some(()));
        }
        ensure!(!running.has_ended()?, "it ended before: {}", running.said());
        Ok(None)
    })?;
    let killed = began.elapsed();
    running.kill()?;
    let held = moment.open < GATES;
    if held {
        let alive = training.local.processes();
        let code = training.code("begin")?;
        ensure!(
            alive.iter().any(|process| process.pid == code),
            "the training code ended with the node: {alive:?}"
        );
    }
    if moment.alone {
        training.open(GATES - moment.open)?;
        until("publish ends while nothing serves", || {
            Ok(training.has("publish", "exit.json").then_some(()))
        })?;
    }
    let again = Instant::now();
    training.local.up()?;
    let up = again.elapsed();
    // More than one execution needs. A second execution would not wait without an end; the checks below would find it.
    training.open(10 * GATES)?;
    let (object, code) = training.end()?;
    let ended = again.elapsed() - up;
    ensure!(code == Some(0), "exit code {code:?}: {object:#}");
    training.one_result(&object)?;
    let status = training.comparable(&object)?;
    ensure!(
        status == *reference,
        "the status lacks something: {status:#}\nwithout a crash: {reference:#}"
    );
    training.local.down()?;
    Ok(format!(
        "{:>9.2} {:>9.2} {:>9.2}  {}\n",
        killed.as_secs_f64(),
        up.as_secs_f64(),
        ended.as_secs_f64(),
        moment.name
    ))
}

#[test]
fn a_kill_while_nothing_runs_loses_nothing_and_starts_nothing() -> anyhow::Result<()> {
    let mut training = Training::new()?;
    training.open(10 * GATES)?;
    training.local.up()?;
    let manifest = training.manifest();
    let run = ["local", "run", "-f", manifest.to_str().context("UTF-8")?, "-o", "json"];
    training.local.run(&run)?;
    let before = training.objects()?;
    ensure!(before.to_string().contains(NAME), "{before:#}");

    kill(training.local.server()?)?;
    training.local.deserted()?;
    training.local.up()?;
    ensure!(
        training.objects()? == before,
        "before: {before:#}\nafter: {:#}",
        training.objects()?
    );

    // When the operator answers this, it has reconciled all objects. It answers that there is nothing to do.
    let object: Value = serde_json::from_str(&training.local.run(&run)?)?;
    training.one_result(&object)?;
    training.local.down()
}
