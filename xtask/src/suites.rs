//! `cargo xtask test`: all tests, the fast tiers first, each with its time.

#![allow(clippy::print_stdout, reason = "a command-line tool speaks through stdout")]

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    path::Path,
    process::{self, ExitCode},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;

/// A tier: commands that belong together.
struct Tier {
    name: &'static str,
    /// What it needs besides Rust.
    needs: &'static str,
    commands: &'static [Command],
    /// The cluster that it needs, if it needs one.
    cluster: Option<Cluster>,
}

/// Program and arguments.
type Command = &'static [&'static str];

/// A cluster of a tier's own.
struct Cluster {
    /// Builds and starts it. Where one of these fails, the tier's commands are left out.
    up: &'static [Command],
    /// Before the tier's other commands, all at the same time.
    at_once: &'static [Command],
    /// Removes it, whatever became of the commands.
    down: Command,
}

/// A suite of ignored tests inside of the cluster's network, with KUBECONFIG set.
macro_rules! on {
    ($cluster:expr, $suite:literal $(, $argument:literal)*) => {
        [
            "cargo", "xtask", "cluster", "run", "--dir", $cluster, "--", "cargo", "test", "--offline", "--test", $suite,
            "--no-fail-fast", "--", "--ignored", $($argument,)*
        ]
    };
}

/// Builds a program that suites need, where it is not in the cache.
macro_rules! tool {
    ($name:literal) => {
        ["cargo", "xtask", "cluster", "tool", $name]
    };
}

/// Whether a toolchain keeps the protocol.
macro_rules! conforms {
    ($directory:literal) => {
        [
            "cargo",
            "run",
            "--quiet",
            "--bin",
            "legionctl",
            "--",
            "toolchain",
            "test",
            $directory,
        ]
    };
}

/// Compilation alone: it is no part of a tier's time.
const COMPILE: [Command; 2] = [
    &["cargo", "test", "--workspace", "--no-run", "--quiet"],
    &["cargo", "build", "--workspace", "--bins", "--quiet"],
];

const FAST: [Tier; 1] = [Tier {
    name: "unit, property and in-process tests",
    needs: "nothing",
    commands: &[&[
        "cargo",
        "test",
        "--workspace",
        "--exclude",
        "legion-tests",
        "--no-fail-fast",
    ]],
    cluster: None,
}];

// No `--package` in them: a package alone is compiled with the features that it alone asks for, and so are its dependencies,
// once more for each. Tests are found by the names of suites and of tests instead.
const SLOW: [Tier; 6] = [
    Tier {
        name: "fetch and publish against S3-compatible and ssh servers",
        needs: "Python 3.11, PyPI",
        commands: &[&["cargo", "test", "--test", "it", "--", "--ignored", "s3::", "ssh"]],
        cluster: None,
    },
    Tier {
        name: "every single fault and disturbance of a training, through the real controllers",
        needs: "nothing",
        commands: &[&[
            "cargo",
            "test",
            "--test",
            "it",
            "--",
            "--ignored",
            "--nocapture",
            "every_",
        ]],
        cluster: None,
    },
    Tier {
        name: "toolchain conformance",
        needs: "Python 3.11, PyPI",
        commands: &[&conforms!("toolchains/script"), &conforms!("toolchains/mlflow")],
        cluster: None,
    },
    Tier {
        name: "end to end: examples, bad input, crashes, kubectl, charts, GitOps",
        needs: "Python 3.11, PyPI, Go (for kubectl, Helm and others)",
        commands: &[&[
            "cargo",
            "test",
            "--no-fail-fast",
            "--test",
            "legionctl",
            "--test",
            "bad_input",
            "--test",
            "crash",
            "--test",
            "kubectl",
            "--test",
            "charts",
            "--test",
            "gitops",
            "--test",
            "acceptance",
        ]],
        cluster: None,
    },
    Tier {
        name: "the embedded API under the real kubectl",
        needs: "Go",
        commands: &[&["cargo", "test", "--test", "it", "--", "--ignored", "kubectl"]],
        cluster: None,
    },
    Tier {
        name: "Legion and its MLflow toolchain against plain mlflow run, MLflow 3 and 2.22",
        needs: "Python 3.11, PyPI",
        commands: &[&["toolchains/mlflow/test"]],
        cluster: None,
    },
];

/// In a cluster of the harness without a node, which is started for it and removed afterwards. Alone: it measures.
const ON_A_CONTROL_PLANE: [Tier; 1] = [Tier {
    name: "on a real control plane: charts, GitOps, high availability",
    needs: "root, Go",
    commands: &[
        &on!(CONTROL_PLANE, "charts"),
        &on!(CONTROL_PLANE, "gitops"),
        // One at a time: one of them restarts the API server.
        &on!(CONTROL_PLANE, "high_availability", "--test-threads=1", "--nocapture"),
    ],
    cluster: Some(Cluster {
        up: &[
            // Programs are built and CRDs downloaded before the cluster's network is entered, from where no registry is reached.
            &tool!("helm"),
            &tool!("kubeconform"),
            &tool!("prometheus"),
            &["go", "-C", "tests/kubernetes/crds", "mod", "download"],
            &[
                "cargo",
                "xtask",
                "cluster",
                "up",
                "--control-plane",
                "--dir",
                CONTROL_PLANE,
            ],
        ],
        at_once: &[],
        down: &["cargo", "xtask", "cluster", "down", "--dir", CONTROL_PLANE],
    }),
}];

/// The same with a node.
const ON_A_NODE: [Tier; 1] = [Tier {
    name: "on a real Kubernetes: conformance, installation, acceptance, failures, permissions",
    needs: "root, cgroups, Go, Buildah, debootstrap",
    commands: &[
        &on!(CLUSTER, "acceptance"),
        &on!(CLUSTER, "cluster", "--skip=alone::", "--test-threads=4"),
        // One at a time: they stop parts that all others need.
        &on!(CLUSTER, "cluster", "alone::", "--test-threads=1"),
        // Last: it reads what the operator did in all of them.
        &on!(CLUSTER, "permissions"),
    ],
    cluster: Some(Cluster {
        up: &[
            &tool!("helm"),
            &["cargo", "xtask", "cluster", "up", "--dir", CLUSTER],
            &[
                "cargo",
                "xtask",
                "image",
                "--profile",
                "dev",
                "--load",
                "--dir",
                CLUSTER,
            ],
        ],
        // The page installs Legion, which everything after it needs, and conformance needs nothing of Legion.
        at_once: &[&on!(CLUSTER, "conformance"), &on!(CLUSTER, "install")],
        down: &["cargo", "xtask", "cluster", "down", "--dir", CLUSTER],
    }),
}];

/// Where the clusters keep their files.
const CONTROL_PLANE: &str = "target/cluster-of-tests/control-plane";
const CLUSTER: &str = "target/cluster-of-tests/node";

/// Which tiers are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// All.
    All,
    /// All that need no real cluster.
    Embedded,
    /// Those that need nothing besides Rust.
    Fast,
    /// Those in a real cluster.
    Kubernetes,
}

/// Runs the tiers and prints what each took. Every tier runs, also after one that failed.
pub fn run(root: &Path, choice: Choice) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    let aloud = Teller::Aloud;
    for command in COMPILE {
        if !execute(root, command, &aloud)? {
            println!("compilation failed");
            return Ok(ExitCode::FAILURE);
        }
    }
    let mut summary = vec![Outcome {
        name: "compilation",
        took: began.elapsed(),
        passed: true,
    }];
    // The fast tiers alone, then what waits most of the time beside what computes, and what measures alone again.
    let phases: &[&[&[Tier]]] = match choice {
        Choice::All => &[&[&FAST], &[&SLOW, &ON_A_NODE], &[&ON_A_CONTROL_PLANE]],
        Choice::Embedded => &[&[&FAST], &[&SLOW]],
        Choice::Fast => &[&[&FAST]],
        Choice::Kubernetes => &[&[&ON_A_NODE], &[&ON_A_CONTROL_PLANE]],
    };
    for lanes in phases {
        let outcomes = side_by_side(lanes, &aloud, |tiers, teller| -> anyhow::Result<Vec<Outcome>> {
            tiers.iter().map(|tier| tier.run(root, teller)).collect()
        })?;
        summary.extend(outcomes.into_iter().flatten());
    }

    println!("\n{:>8}  {:<6}  tier", "seconds", "result");
    for outcome in &summary {
        println!(
            "{:>8}  {:<6}  {}",
            seconds(outcome.took),
            if outcome.passed { "ok" } else { "FAILED" },
            outcome.name
        );
    }
    let failed = summary.iter().filter(|outcome| !outcome.passed).count();
    println!(
        "\ntest tiers: {} passed; {failed} failed; finished in {} s",
        summary.len() - failed,
        seconds(began.elapsed())
    );
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What became of a tier.
struct Outcome {
    name: &'static str,
    took: Duration,
    passed: bool,
}

impl Tier {
    fn run(&self, root: &Path, teller: &Teller) -> anyhow::Result<Outcome> {
        teller.say(&format!("\n== {} (needs {})", self.name, self.needs))?;
        let began = Instant::now();
        let (up, at_once) = self
            .cluster
            .as_ref()
            .map_or((&[][..], &[][..]), |cluster| (cluster.up, cluster.at_once));
        let mut passed = true;
        for command in up {
            passed = passed && timed(root, command, teller)?;
        }
        if passed {
            let results = side_by_side(at_once, teller, |command, teller| timed(root, command, teller))?;
            passed &= results.into_iter().all(|passed| passed);
            for command in self.commands {
                passed &= timed(root, command, teller)?;
            }
        }
        if let Some(cluster) = &self.cluster {
            passed &= execute(root, cluster.down, teller)?;
        }
        Ok(Outcome {
            name: self.name,
            took: began.elapsed(),
            passed,
        })
    }
}

/// Does all of something at the same time. The first tells what it does while it does it, the others afterwards.
fn side_by_side<T: Sync, R: Send>(
    all: &[T],
    teller: &Teller,
    run: impl Fn(&T, &Teller) -> anyhow::Result<R> + Sync,
) -> anyhow::Result<Vec<R>> {
    let Some((first, others)) = all.split_first() else {
        return Ok(Vec::new());
    };
    let others = others
        .iter()
        .map(|one| anyhow::Ok((one, Teller::into_file()?)))
        .collect::<Result<Vec<_>, _>>()?;
    thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> = others
            .iter()
            .map(|(one, quiet)| (scope.spawn(move || run(one, quiet)), quiet))
            .collect();
        let mut results = vec![run(first, teller)?];
        for (thread, quiet) in threads {
            let result = thread.join().map_err(|_| anyhow::anyhow!("a tier panicked"))?;
            teller.tell(&quiet.said()?)?;
            results.push(result?);
        }
        Ok(results)
    })
}

/// Where commands and their output are told.
enum Teller {
    Aloud,
    /// Into a file without a name, until somebody listens.
    Quietly(File),
}

impl Teller {
    fn into_file() -> anyhow::Result<Self> {
        Ok(Self::Quietly(tempfile::tempfile()?))
    }

    fn say(&self, line: &str) -> anyhow::Result<()> {
        self.tell(&format!("{line}\n"))
    }

    fn tell(&self, text: &str) -> anyhow::Result<()> {
        match self {
            Self::Aloud => print!("{text}"),
            Self::Quietly(file) => {
                let mut file = file;
                file.write_all(text.as_bytes())?;
            }
        }
        Ok(())
    }

    /// Has a command's output told here.
    fn listen(&self, command: &mut process::Command) -> anyhow::Result<()> {
        if let Self::Quietly(file) = self {
            command.stdout(file.try_clone()?).stderr(file.try_clone()?);
        }
        Ok(())
    }

    /// All that was said and not heard yet.
    fn said(&self) -> anyhow::Result<String> {
        let Self::Quietly(file) = self else {
            return Ok(String::new());
        };
        let (mut file, mut said) = (file, Vec::new());
        file.seek(SeekFrom::Start(0))?;
        file.read_to_end(&mut said)?;
        Ok(String::from_utf8_lossy(&said).into_owned())
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64())
}

/// Runs a command and tells what it took.
fn timed(root: &Path, command: &[&str], teller: &Teller) -> anyhow::Result<bool> {
    let began = Instant::now();
    let passed = execute(root, command, teller)?;
    teller.say(&format!("took {} s", seconds(began.elapsed())))?;
    Ok(passed)
}

fn execute(root: &Path, command: &[&str], teller: &Teller) -> anyhow::Result<bool> {
    let [program, arguments @ ..] = command else {
        return Ok(true);
    };
    teller.say(&format!("$ {}", command.join(" ")))?;
    // A program of the repository is named by its path from the root, whatever directory this was called in.
    let program = if program.contains('/') {
        root.join(program)
    } else {
        program.into()
    };
    let mut process = process::Command::new(&program);
    // Suites that are not Rust find the built binaries beside this one.
    if let Ok(this) = std::env::current_exe() {
        process.env("LEGIONCTL", this.with_file_name("legionctl"));
    }
    teller.listen(&mut process)?;
    let status = process
        .args(arguments)
        .current_dir(root)
        .status()
        .with_context(|| format!("{} cannot be started", program.display()))?;
    Ok(status.success())
}
