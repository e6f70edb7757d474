//! Runs tiers: lanes beside each other, the commands of a lane one after the other.

use std::{
    collections::hash_map::DefaultHasher,
    ffi::OsString,
    fs,
    hash::{Hash as _, Hasher as _},
    path::{Path, PathBuf},
    process, thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use super::{
    output::Output,
    tiers::{Command, Tier},
};
use crate::setup;

/// Tiers that run one after the other.
pub(super) type Lane<'a> = &'a [&'a [Tier]];

/// What decides whether caches have what a tier needs.
const DECIDES_CACHES: [&str; 3] = [
    "Cargo.lock",
    "tests/kubernetes/tools/go.mod",
    "toolchains/mlflow/requirements.lock",
];

/// Returns the tiers of all phases.
pub(super) fn tiers_of<'a>(phases: &'a [&'a [Lane<'a>]]) -> impl Iterator<Item = &'a Tier> {
    let lanes = phases.iter().flat_map(|lanes| lanes.iter().copied());
    lanes.flat_map(|lane| lane.iter().copied()).flatten()
}

/// Runs tiers in one environment.
pub(super) struct Runner {
    /// Commands run here.
    pub(super) root: PathBuf,
    /// The directory of builds.
    pub(super) target: PathBuf,
    /// Variables that commands get, or do not get.
    pub(super) environment: Vec<(&'static str, Option<OsString>)>,
    /// Whether a tier that is left out, or far over its budget, is a failure.
    pub(super) strict: bool,
}

/// How a tier ended.
#[derive(Debug, PartialEq, Eq)]
enum Ending {
    Passed,
    Failed,
    /// It passed, but took more than one and a half times its budget.
    OverBudget,
    /// It did not run, because this is missing.
    LeftOut(Vec<String>),
}

/// A tier that has ended.
struct Outcome {
    name: &'static str,
    took: Duration,
    budget: Duration,
    is_warm: bool,
    ending: Ending,
}

impl Runner {
    /// Compiles, runs every phase and prints a summary. Returns whether all passed.
    pub(super) fn run(&self, compilation: &Tier, phases: &[&[Lane<'_>]]) -> anyhow::Result<bool> {
        let began = Instant::now();
        let mut outcomes = vec![self.tier(compilation, &Output::Stdout)?];
        if outcomes[0].ending == Ending::Failed {
            println!("compilation failed");
            return Ok(false);
        }
        for lanes in phases {
            let of_lanes = concurrently(lanes, &Output::Stdout, |lane, output| -> anyhow::Result<Vec<Outcome>> {
                lane.iter()
                    .copied()
                    .flatten()
                    .map(|tier| self.tier(tier, output))
                    .collect()
            })?;
            outcomes.extend(of_lanes.into_iter().flatten());
        }
        print!("{}", summary(&outcomes, began.elapsed(), self.strict));
        Ok(outcomes.iter().all(|outcome| outcome.is_good(self.strict)))
    }

    fn tier(&self, tier: &Tier, output: &Output) -> anyhow::Result<Outcome> {
        output.line(&format!("\n== {}", tier.name))?;
        let is_warm = self.is_warm(tier);
        let budget = Duration::from_secs(if is_warm { tier.budget.warm } else { tier.budget.cold });
        let began = Instant::now();
        let missing = setup::missing(tier.needs);
        let ending = if !missing.is_empty() {
            output.line(&format!("left out: {}", missing.join("; ")))?;
            Ending::LeftOut(missing)
        } else if !self.commands(tier, output)? {
            Ending::Failed
        } else if began.elapsed() > budget * 3 / 2 {
            Ending::OverBudget
        } else {
            Ending::Passed
        };
        if ending == Ending::Passed {
            self.mark_warm(tier)?;
        }
        Ok(Outcome {
            name: tier.name,
            took: began.elapsed(),
            budget,
            is_warm,
            ending,
        })
    }

    fn commands(&self, tier: &Tier, output: &Output) -> anyhow::Result<bool> {
        let Some(cluster) = &tier.cluster else {
            return self.each(tier.commands, output);
        };
        let mut passed = true;
        for command in cluster.up {
            passed = passed && self.timed(command, output)?;
        }
        if passed {
            let results = concurrently(cluster.concurrent, output, |command, output| {
                self.timed(command, output)
            })?;
            passed = results.into_iter().all(|passed| passed);
            passed &= self.each(tier.commands, output)?;
        }
        Ok(self.execute(cluster.down, output)? && passed)
    }

    /// Runs every command, also after one that failed.
    fn each(&self, commands: &[Command], output: &Output) -> anyhow::Result<bool> {
        let mut passed = true;
        for command in commands {
            passed &= self.timed(command, output)?;
        }
        Ok(passed)
    }

    /// Runs a command and prints what it took.
    fn timed(&self, command: &[&str], output: &Output) -> anyhow::Result<bool> {
        let began = Instant::now();
        let passed = self.execute(command, output)?;
        output.line(&format!("took {} s", seconds(began.elapsed())))?;
        Ok(passed)
    }

    /// Runs a command. Returns whether it succeeded.
    pub(super) fn execute(&self, command: &[&str], output: &Output) -> anyhow::Result<bool> {
        let [program, arguments @ ..] = command else {
            return Ok(true);
        };
        output.line(&format!("$ {}", command.join(" ")))?;
        // A program of the repository is named by its path from the root, also when this is called elsewhere.
        let program = if program.contains('/') {
            self.root.join(program)
        } else {
            program.into()
        };
        let mut process = process::Command::new(&program);
        // Suites in other languages find the built binaries beside this one.
        if let Ok(this) = std::env::current_exe() {
            process.env("LEGIONCTL", this.with_file_name("legionctl"));
            process.env("LEGION_SERVER", this.with_file_name("legion-server"));
        }
        for (name, value) in &self.environment {
            match value {
                Some(value) => process.env(name, value),
                None => process.env_remove(name),
            };
        }
        output.redirect(&mut process)?;
        let status = process
            .args(arguments)
            .current_dir(&self.root)
            .status()
            .with_context(|| format!("{} cannot be started", program.display()))?;
        Ok(status.success())
    }

    /// Returns the file that says which state of the caches a tier passed with.
    fn mark(&self, tier: &Tier) -> PathBuf {
        let name = tier.name.replace(|c: char| !c.is_alphanumeric(), "-");
        self.target.join("legion-tiers").join(name)
    }

    fn is_warm(&self, tier: &Tier) -> bool {
        fs::read_to_string(self.mark(tier)).is_ok_and(|mark| mark == state_of_caches(&self.root))
    }

    fn mark_warm(&self, tier: &Tier) -> anyhow::Result<()> {
        let mark = self.mark(tier);
        fs::create_dir_all(mark.parent().unwrap_or(&self.target))?;
        fs::write(&mark, state_of_caches(&self.root)).with_context(|| mark.display().to_string())
    }
}

/// Returns what changes when the caches of builds, environments and programs lose their use, or are deleted.
fn state_of_caches(root: &Path) -> String {
    let mut hasher = DefaultHasher::new();
    for path in DECIDES_CACHES {
        fs::read(root.join(path)).unwrap_or_default().hash(&mut hasher);
    }
    for directory in [
        setup::cache("legion-tests", "LEGION_TEST_CACHE"),
        setup::cache("legion", "LEGION_TOOLS"),
    ] {
        // Its creation, not its change: caches grow.
        let created = fs::metadata(&directory).and_then(|metadata| metadata.created());
        created.ok().hash(&mut hasher);
    }
    format!("{:016x}\n", hasher.finish())
}

impl Outcome {
    fn is_good(&self, strict: bool) -> bool {
        match self.ending {
            Ending::Passed => true,
            Ending::Failed => false,
            Ending::OverBudget | Ending::LeftOut(_) => !strict,
        }
    }
}

/// Runs all of something at the same time. The output of the first is seen immediately, that of the others afterwards.
fn concurrently<T: Sync, R: Send>(
    all: &[T],
    output: &Output,
    run: impl Fn(&T, &Output) -> anyhow::Result<R> + Sync,
) -> anyhow::Result<Vec<R>> {
    let Some((first, others)) = all.split_first() else {
        return Ok(Vec::new());
    };
    let others = others
        .iter()
        .map(|one| anyhow::Ok((one, Output::buffered()?)))
        .collect::<Result<Vec<_>, _>>()?;
    thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> = others
            .iter()
            .map(|(one, buffer)| (scope.spawn(move || run(one, buffer)), buffer))
            .collect();
        let mut results = vec![run(first, output)?];
        for (thread, buffer) in threads {
            let result = thread.join().map_err(|_| anyhow::anyhow!("a tier panicked"))?;
            output.write(&buffer.content()?)?;
            results.push(result?);
        }
        Ok(results)
    })
}

/// Returns the table of what each tier took, and the list of tiers that were left out.
fn summary(outcomes: &[Outcome], took: Duration, strict: bool) -> String {
    let mut lines = vec![format!("\n{:>8}  {:>11}  {:<11}  tier", "seconds", "budget", "result")];
    for outcome in outcomes {
        let result = match outcome.ending {
            Ending::Passed => "ok",
            Ending::Failed => "FAILED",
            Ending::OverBudget => "OVER BUDGET",
            Ending::LeftOut(_) => "left out",
        };
        let budget = format!(
            "{} {}",
            outcome.budget.as_secs(),
            if outcome.is_warm { "warm" } else { "cold" }
        );
        lines.push(format!(
            "{:>8}  {budget:>11}  {result:<11}  {}",
            seconds(outcome.took),
            outcome.name
        ));
    }
    let count = |wanted: fn(&Ending) -> bool| outcomes.iter().filter(|outcome| wanted(&outcome.ending)).count();
    let over = count(|ending| *ending == Ending::OverBudget);
    lines.push(format!(
        "\ntest tiers: {} passed; {} failed; {over} over budget by half; {} left out; finished in {} s",
        count(|ending| *ending == Ending::Passed),
        count(|ending| *ending == Ending::Failed),
        count(|ending| matches!(ending, Ending::LeftOut(_))),
        seconds(took)
    ));
    let left_out: Vec<String> = outcomes
        .iter()
        .filter_map(|outcome| match &outcome.ending {
            Ending::LeftOut(missing) => Some(format!("  {}: {}", outcome.name, missing.join("; "))),
            _ => None,
        })
        .collect();
    if !left_out.is_empty() {
        lines.push("left out, with what is missing:".to_owned());
        lines.extend(left_out);
    }
    if over > 0 && !strict {
        lines.push("Budgets are for two cores that do nothing else: only CI fails because of them.".to_owned());
    }
    lines.join("\n") + "\n"
}

fn seconds(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::{
        super::tiers::{Budget, Cluster},
        *,
    };
    use crate::setup::Need;

    const fn tier(name: &'static str, commands: &'static [Command]) -> Tier {
        Tier {
            name,
            budget: Budget { warm: 60, cold: 60 },
            needs: &[],
            commands,
            cluster: None,
        }
    }

    static COMPILATION: Tier = tier("compilation", &[&["true"]]);

    fn runner(root: &Path, strict: bool) -> Runner {
        Runner {
            root: root.to_owned(),
            target: root.join("target"),
            environment: vec![("LEGION_SEED", Some("7".into()))],
            strict,
        }
    }

    #[test]
    fn lanes_run_to_their_end_and_a_failure_is_seen() {
        static GOOD: [Tier; 1] = [tier("good", &[&["sh", "-c", "echo $LEGION_SEED > seed"]])];
        static BAD: [Tier; 2] = [
            tier("bad", &[&["false"], &["touch", "after-failure"]]),
            tier("later", &[&["touch", "later"]]),
        ];
        let root = tempfile::tempdir().unwrap();
        let runner = runner(root.path(), false);
        assert!(runner.run(&COMPILATION, &[&[&[&GOOD]]]).unwrap());
        assert!(!runner.run(&COMPILATION, &[&[&[&GOOD], &[&BAD]]]).unwrap());
        assert_eq!(fs::read_to_string(root.path().join("seed")).unwrap(), "7\n");
        assert!(root.path().join("after-failure").exists() && root.path().join("later").exists());
    }

    #[test]
    fn a_cluster_is_removed_also_after_a_failure_and_suites_wait_for_it() {
        static CLUSTER: [Tier; 1] = [Tier {
            cluster: Some(Cluster {
                up: &[&["false"]],
                concurrent: &[&["touch", "concurrent"]],
                down: &["touch", "removed"],
            }),
            ..tier("cluster", &[&["touch", "suite"]])
        }];
        let root = tempfile::tempdir().unwrap();
        assert!(!runner(root.path(), false).run(&COMPILATION, &[&[&[&CLUSTER]]]).unwrap());
        assert!(root.path().join("removed").exists());
        assert!(!root.path().join("suite").exists() && !root.path().join("concurrent").exists());
    }

    #[test]
    fn a_tier_without_what_it_needs_is_left_out_and_fails_in_ci_only() {
        static NEEDY: [Tier; 1] = [Tier {
            needs: &[Need::Nothing],
            ..tier("needy", &[&["touch", "ran"]])
        }];
        let root = tempfile::tempdir().unwrap();
        assert!(runner(root.path(), false).run(&COMPILATION, &[&[&[&NEEDY]]]).unwrap());
        assert!(!runner(root.path(), true).run(&COMPILATION, &[&[&[&NEEDY]]]).unwrap());
        assert!(!root.path().join("ran").exists());
    }

    #[test]
    fn a_tier_far_over_its_budget_fails_in_ci_and_is_warm_after_it_passed() {
        static SLOW: Tier = Tier {
            budget: Budget { warm: 0, cold: 60 },
            ..tier("slow", &[&["true"]])
        };
        let root = tempfile::tempdir().unwrap();
        let runner = runner(root.path(), true);
        let first = runner.tier(&SLOW, &Output::Stdout).unwrap();
        assert_eq!((first.ending, first.is_warm), (Ending::Passed, false));
        let second = runner.tier(&SLOW, &Output::Stdout).unwrap();
        assert!(second.is_warm && !second.is_good(true) && second.is_good(false));
        let text = summary(&[second], Duration::from_secs(1), true);
        assert!(text.contains("0 warm  OVER BUDGET  slow"), "{text}");
    }
}
