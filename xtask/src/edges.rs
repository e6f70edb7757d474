//! The allowed dependencies between the crates of this repository.
//!
//! A test holds the crates to this table, and `cargo xtask gen` writes it into `docs/concepts/architecture.md`.

/// The crates of this repository that each crate may depend on.
///
/// A crate that is missing here fails the test: decide its place first.
pub const ALLOWED: [(&str, &[&str]); 16] = [
    ("legion-protocol", &[]),
    ("legion-api", &[]),
    ("legion-plan", &["legion-api", "legion-protocol"]),
    ("legion-runtime", &[]),
    (
        "legion-operator",
        &["legion-api", "legion-plan", "legion-protocol", "legion-runtime"],
    ),
    ("legion-agent", &["legion-protocol"]),
    ("legion-entry", &["legion-protocol"]),
    // It runs in images of models, without anything of the platform.
    ("legion-server", &[]),
    ("kube-embed", &[]),
    (
        "legion-cli",
        &[
            "kube-embed",
            // The one function that extracts archives.
            "legion-agent",
            "legion-api",
            "legion-operator",
            "legion-plan",
            "legion-protocol",
            "legion-runtime",
            "legion-server",
        ],
    ),
    (
        "legion-testkit",
        &[
            "kube-embed",
            "legion-api",
            "legion-plan",
            "legion-protocol",
            "legion-runtime",
        ],
    ),
    ("xtask", &[]),
    ("legion-cluster", &["xtask"]),
    (
        "legion-generators",
        &[
            "legion-api",
            "legion-cli",
            "legion-operator",
            "legion-plan",
            "legion-protocol",
            "xtask",
        ],
    ),
    ("legion-benchmark", &["legion-tests"]),
    // The tests compare the audit log with the operator's table of permissions.
    ("legion-tests", &["legion-api", "legion-operator", "legion-protocol"]),
];
