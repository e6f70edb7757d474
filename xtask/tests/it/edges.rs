//! Which crate may import which: the directions of `docs/concepts/architecture.md`, held over `cargo metadata`.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, PackageId};
use xtask::{edges::ALLOWED, repository};

/// Crates whose functions give the same answer to the same question: no client, no runtime, no randomness in reach.
const PURE: [&str; 3] = ["legion-api", "legion-plan", "legion-protocol"];
const IMPURE: [&str; 8] = [
    "kube",
    "kube-client",
    "kube-runtime",
    "tokio",
    "hyper",
    "reqwest",
    "rustix",
    "tempfile",
];

/// Never in the tree: a second TLS provider makes rustls panic, and C libraries of the system make builds differ.
const BANNED: [&str; 5] = ["ring", "openssl", "openssl-sys", "native-tls", "serde_yaml"];

fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(repository().join("Cargo.toml"))
        // Of this platform only: what other platforms need is neither downloaded nor built.
        .other_options(vec![
            "--offline".to_owned(),
            "--locked".to_owned(),
            format!("--filter-platform={}-unknown-linux-gnu", std::env::consts::ARCH),
        ])
        .exec()
        .unwrap()
}

/// Everything that a crate reaches through normal dependencies, by name.
fn reach(metadata: &Metadata, crate_name: &str) -> BTreeSet<String> {
    let nodes: BTreeMap<&PackageId, _> = metadata
        .resolve
        .as_ref()
        .unwrap()
        .nodes
        .iter()
        .map(|node| (&node.id, node))
        .collect();
    let start = metadata
        .workspace_packages()
        .into_iter()
        .find(|package| package.name == crate_name)
        .unwrap();
    let mut open = vec![&start.id];
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        for dependency in &nodes[id].deps {
            let normal = dependency
                .dep_kinds
                .iter()
                .any(|kind| kind.kind == DependencyKind::Normal);
            if normal && seen.insert(&dependency.pkg) {
                open.push(&dependency.pkg);
            }
        }
    }
    seen.into_iter().map(|id| metadata[id].name.to_string()).collect()
}

#[test]
fn crates_import_only_what_their_place_allows() {
    let metadata = metadata();
    let allowed: BTreeMap<&str, BTreeSet<&str>> = ALLOWED
        .iter()
        .map(|(name, allowed)| (*name, allowed.iter().copied().collect()))
        .collect();
    let ours: BTreeSet<String> = metadata
        .workspace_packages()
        .iter()
        .map(|package| package.name.to_string())
        .collect();
    assert_eq!(
        ours.iter().map(String::as_str).collect::<BTreeSet<_>>(),
        allowed.keys().copied().collect(),
        "the table in xtask/src/edges.rs names every crate of the workspace, and no other"
    );
    for package in metadata.workspace_packages() {
        let name = package.name.as_str();
        for dependency in package
            .dependencies
            .iter()
            .filter(|dependency| ours.contains(&dependency.name))
        {
            match dependency.kind {
                DependencyKind::Development => {}
                _ => assert!(
                    allowed[name].contains(dependency.name.as_str()),
                    "{name} must not import {}",
                    dependency.name
                ),
            }
            assert!(
                dependency.kind == DependencyKind::Development || dependency.name != "legion-testkit",
                "{name} uses the testkit outside its tests"
            );
        }
    }
}

#[test]
fn pure_crates_reach_no_client_no_runtime_and_no_system() {
    let metadata = metadata();
    for name in PURE {
        let reached = reach(&metadata, name);
        for impure in IMPURE {
            assert!(
                !reached.contains(impure),
                "{name} is pure and must not reach {impure}: `cargo tree -p {name} -i {impure}`"
            );
        }
    }
    assert!(
        reach(&metadata, "legion-operator").contains("kube"),
        "the walk sees dependencies at all"
    );
}

#[test]
fn pid_one_of_the_trainer_stays_tiny() {
    let reached = reach(&metadata(), "legion-entry");
    for heavy in ["tokio", "rustls", "kube", "reqwest", "clap"] {
        assert!(!reached.contains(heavy), "legion-entry must not reach {heavy}");
    }
}

#[test]
fn no_second_tls_provider_and_no_library_of_the_system() {
    // Not `cargo metadata`: it lists optional dependencies that no feature turns on.
    let tree = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--workspace",
            "--edges",
            "all",
            "--prefix",
            "none",
            "--format",
            "{p}",
        ])
        .args(["--offline", "--locked"])
        .current_dir(repository())
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8(tree.stdout).unwrap();
    let built: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(built.contains("aws-lc-rs"), "the walk sees the one TLS provider");
    for banned in BANNED {
        assert!(
            !built.contains(banned),
            "{banned} is in the tree: `cargo tree --workspace -i {banned}`"
        );
    }
}

/// Every crate that is compiled, with its features.
fn compiled(edges: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--workspace", "--offline", "--locked", "--edges", edges])
        .args(["--prefix", "none", "--format", "{p} with {f}"])
        .current_dir(repository())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    // What was shown before is marked.
    text.lines()
        .map(|line| line.trim_end_matches(" (*)").to_owned())
        .collect()
}

#[test]
fn programs_and_tests_are_made_of_the_same_compiled_crates() {
    let (programs, tests) = (compiled("normal,build"), compiled("normal,build,dev"));
    let twice: Vec<_> = programs.difference(&tests).collect();
    assert!(
        programs.len() > 100 && twice.is_empty(),
        "compiled once for programs and once more, with what dev-dependencies ask for, for tests; and so is what depends on \
         it. Ask for the same features in Cargo.toml: {twice:#?}"
    );
}
