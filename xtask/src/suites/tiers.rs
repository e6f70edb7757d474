//! The tiers: what each needs, what it runs, and how long it may take.

use crate::setup::{self, Need};

/// Seconds that a tier may take on two cores.
#[derive(Clone, Copy)]
pub(super) struct Budget {
    /// With dependencies, Python environments, images' bases and Go programs in their caches.
    pub(super) warm: u64,
    /// With empty caches.
    pub(super) cold: u64,
}

const fn budget(warm: u64, cold: u64) -> Budget {
    Budget { warm, cold }
}

/// Commands that belong together.
pub(super) struct Tier {
    pub(super) name: &'static str,
    pub(super) budget: Budget,
    /// What it needs besides Rust.
    pub(super) needs: &'static [Need],
    pub(super) commands: &'static [Command],
    /// The cluster that it needs, if it needs one.
    pub(super) cluster: Option<Cluster>,
}

/// Program and arguments.
pub(super) type Command = &'static [&'static str];

/// A cluster of a tier's own.
pub(super) struct Cluster {
    /// Builds and starts it. The tier's commands do not run after one of these failed.
    pub(super) up: &'static [Command],
    /// Before the tier's other commands, all at the same time.
    pub(super) concurrent: &'static [Command],
    /// Removes it, also after a failure.
    pub(super) down: Command,
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

/// Builds a program that suites need, unless it is in the cache.
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

/// Compilation is no part of a tier's time.
pub(super) const COMPILATION: Tier = Tier {
    name: "compilation",
    budget: budget(300, 700),
    needs: &[],
    commands: &[
        &["cargo", "test", "--workspace", "--no-run", "--quiet"],
        &["cargo", "build", "--workspace", "--bins", "--quiet"],
    ],
    cluster: None,
};

pub(super) const FAST: [Tier; 1] = [Tier {
    name: "unit, property and in-process tests",
    budget: budget(80, 100),
    needs: setup::BASIC,
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

// No `--package` in them. A package alone is compiled with its own features only, and all its dependencies once more.
// The names of suites and tests select what runs.
pub(super) const SLOW: [Tier; 10] = [
    Tier {
        name: "fetch and publish against S3-compatible and ssh servers",
        budget: budget(20, 50),
        needs: setup::SERVERS,
        commands: &[&["cargo", "test", "--test", "it", "--", "--ignored", "s3::", "ssh"]],
        cluster: None,
    },
    Tier {
        name: "every single fault and disturbance of a training, through the real controllers",
        budget: budget(40, 40),
        needs: setup::BASIC,
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
        name: "random requests to the model server",
        budget: budget(45, 45),
        needs: setup::BASIC,
        commands: &[&["cargo", "test", "--test", "it", "--", "--ignored", "random_requests"]],
        cluster: None,
    },
    Tier {
        name: "small faults in the code of decisions, and a test that fails for each",
        // Cold: cargo-mutants and, with the features of one crate alone, the dependencies of legion-plan.
        budget: budget(90, 400),
        needs: setup::BASIC,
        commands: &[&["cargo", "xtask", "mutants"]],
        cluster: None,
    },
    Tier {
        name: "toolchain conformance",
        budget: budget(90, 130),
        needs: setup::PYTHON,
        commands: &[&conforms!("toolchains/script"), &conforms!("toolchains/mlflow")],
        cluster: None,
    },
    Tier {
        name: "end to end: examples, bad input, crashes, kubectl, charts, GitOps",
        budget: budget(350, 500),
        needs: setup::PYTHON_AND_GO,
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
        budget: budget(20, 30),
        needs: setup::GO,
        commands: &[&["cargo", "test", "--test", "it", "--", "--ignored", "kubectl"]],
        cluster: None,
    },
    Tier {
        name: "Legion and its MLflow toolchain against plain mlflow run, MLflow 3 and 2.22",
        budget: budget(400, 550),
        needs: setup::PYTHON,
        commands: &[&[
            "toolchains/mlflow/test",
            "--ignore=tests/test_scoring.py",
            "--ignore=tests/test_clients.py",
            "--ignore=tests/test_bad_requests.py",
            "--ignore=tests/test_served.py",
            "--ignore=tests/test_model_commands.py",
            "--ignore=tests/test_page.py",
        ]],
        cluster: None,
    },
    Tier {
        name: "the model server: mlflow models serve, clients, wrong requests, libraries, commands, the page in Chromium",
        // The tier before it makes most of the environments.
        budget: budget(400, 550),
        needs: setup::PYTHON_AND_BROWSER,
        commands: &[&[
            "toolchains/mlflow/test",
            "tests/test_scoring.py",
            "tests/test_clients.py",
            "tests/test_bad_requests.py",
            "tests/test_served.py",
            "tests/test_model_commands.py",
            "tests/test_page.py",
        ]],
        cluster: None,
    },
    Tier {
        name: "what the benchmark of the model server computes",
        budget: budget(20, 30),
        needs: setup::BENCHMARKS,
        // pytest is in the environments of the toolchain's tests.
        commands: &[&["toolchains/mlflow/test", "../../benchmarks/serving/tests"]],
        cluster: None,
    },
];

/// In a cluster without a node, which the tier starts and removes. It runs alone because it measures.
pub(super) const ON_A_CONTROL_PLANE: [Tier; 1] = [Tier {
    name: "on a real control plane: charts, GitOps, high availability",
    budget: budget(280, 480),
    needs: setup::CONTROL_PLANE_TESTS,
    commands: &[
        &on!(CONTROL_PLANE, "charts"),
        &on!(CONTROL_PLANE, "gitops"),
        // One at a time: one of them restarts the API server.
        &on!(CONTROL_PLANE, "high_availability", "--test-threads=1", "--nocapture"),
    ],
    cluster: Some(Cluster {
        up: &[
            // Build programs and download CRDs first: no registry can be reached from the cluster's network.
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
        concurrent: &[],
        down: &["cargo", "xtask", "cluster", "down", "--dir", CONTROL_PLANE],
    }),
}];

/// The same with a node.
pub(super) const ON_A_NODE: [Tier; 1] = [Tier {
    name: "on a real Kubernetes: conformance, installation, acceptance, failures, permissions",
    budget: budget(1000, 2600),
    needs: setup::NODE,
    commands: &[
        &on!(CLUSTER, "acceptance"),
        &on!(CLUSTER, "cluster", "--skip=alone::", "--test-threads=4"),
        // One at a time: they stop parts that all others need.
        &on!(CLUSTER, "cluster", "alone::", "--test-threads=1"),
        // Last, because it reads what the operator did in all the others.
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
        // The page installs Legion for everything after it. Conformance needs nothing of Legion.
        concurrent: &[&on!(CLUSTER, "conformance"), &on!(CLUSTER, "install")],
        down: &["cargo", "xtask", "cluster", "down", "--dir", CLUSTER],
    }),
}];

/// Where the clusters keep their files.
const CONTROL_PLANE: &str = "target/cluster-of-tests/control-plane";
const CLUSTER: &str = "target/cluster-of-tests/node";
