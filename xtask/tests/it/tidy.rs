//! The rules that no compiler and no linter holds. Each failure names the place and what to do.

use std::sync::OnceLock;

use xtask::{
    repository,
    tidy::{self, Finding, TextFile, modules},
};

fn files() -> &'static [TextFile] {
    static FILES: OnceLock<Vec<TextFile>> = OnceLock::new();
    FILES.get_or_init(|| tidy::tracked_files(&repository()).unwrap())
}

fn none(findings: &[Finding]) {
    let list: String = findings.iter().map(|finding| format!("{finding}\n")).collect();
    assert!(findings.is_empty(), "{} places:\n{list}", findings.len());
}

#[test]
fn no_refused_words() {
    none(&tidy::words::refused(files()));
}

#[test]
fn imports_are_in_order() {
    let rust = files().iter().filter(|file| file.extension() == "rs");
    none(&rust.flat_map(tidy::rust::misplaced_imports).collect::<Vec<_>>());
}

#[test]
fn comments_keep_the_line_width() {
    none(&tidy::wide_comments(files()));
}

#[test]
fn prose_keeps_the_line_width() {
    none(&tidy::wide_prose(files()));
}

#[test]
fn names_of_types_say_whose_they_are() {
    none(&tidy::names::bare(files()));
}

#[test]
fn files_are_short() {
    none(&tidy::long_files(files()));
}

#[test]
fn links_lead_somewhere() {
    none(&tidy::links::broken(&repository(), files()));
}

#[test]
fn modules_form_no_circles() {
    for name in [
        "kube-embed",
        "legion-agent",
        "legion-cli",
        "legion-operator",
        "legion-plan",
        "legion-server",
        "legion-testkit",
    ] {
        let graph = modules::graph(files(), &format!("crates/{name}"));
        assert!(graph.len() > 5, "{name} has {} modules", graph.len());
        let circles = modules::circles(&graph);
        assert!(circles.is_empty(), "{name}: these modules use each other: {circles:#?}");
    }
}
