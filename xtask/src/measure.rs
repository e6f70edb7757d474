//! `cargo xtask measure`: figures about this repository, the same for any checkout of it.

#![allow(clippy::print_stdout, reason = "a command-line tool speaks through stdout")]

use std::{collections::BTreeMap, path::Path};

use crate::tidy::{
    TextFile,
    modules::{circles, graph},
    prose::Prose,
    rust::Source,
    tracked_files, words,
};

/// Functions with more lines are counted.
const LONG_FUNCTION: usize = 100;
/// How many of the longest functions are printed.
const LONGEST: usize = 10;

/// The figures of one crate.
#[derive(Default)]
struct Figures {
    files: usize,
    lines: usize,
    test_lines: usize,
    functions: Vec<(usize, String)>,
    public: usize,
    docs: usize,
    hollow: usize,
}

/// Prints the figures of the checkout at `root`.
///
/// # Errors
///
/// If the tracked files cannot be read.
pub fn run(root: &Path) -> anyhow::Result<()> {
    let files = tracked_files(root)?;
    let mut crates: BTreeMap<String, Figures> = BTreeMap::new();
    for file in files.iter().filter(|file| file.extension() == "rs") {
        let Some(name) = crate_of(&file.path) else { continue };
        crates.entry(name).or_default().add(file);
    }
    let mut total = Figures::default();
    let mut all_circles = Vec::new();
    println!(
        "crate                      files  lines  of tests  functions  p50  p90  p99  >{LONG_FUNCTION}  pub  docs  hollow  circles"
    );
    for (name, figures) in crates {
        let circles = circles(&graph(&files, &name));
        figures.print(&name, circles.len());
        total.merge(figures);
        all_circles.extend(
            circles
                .into_iter()
                .map(|modules| format!("{name}: {}", modules.join(", "))),
        );
    }
    total.print("all", all_circles.len());
    for circle in all_circles {
        println!("circle in {circle}");
    }

    total.functions.sort_by(|a, b| b.cmp(a));
    println!("\nlongest functions:");
    for (lines, name) in total.functions.iter().take(LONGEST) {
        println!("  {lines:>4}  {name}");
    }

    println!("\nper 1000 words           words  semicolons  that/which/who/what");
    let pages = |prefix: &'static str| {
        let is_page = move |file: &&TextFile| file.extension() == "md" && file.path.starts_with(prefix);
        files.iter().filter(is_page)
    };
    // Reference pages are mostly generated from the code's own descriptions.
    let (reference, written): (Vec<_>, Vec<_>) =
        pages("docs/").partition(|file| file.path.starts_with("docs/reference/"));
    for (title, group) in [
        ("docs/reference", reference),
        ("other docs", written),
        ("README.md", pages("README.md").collect()),
    ] {
        let prose = group
            .iter()
            .map(|file| Prose::of_markdown(file))
            .fold(Prose::default(), Prose::plus);
        println!(
            "  {title:<20} {:>7}  {:>10.1}  {:>19.1}",
            prose.words,
            prose.per_thousand(prose.semicolons),
            prose.per_thousand(prose.relatives)
        );
    }

    let refused = words::refused(&files);
    println!("\nrefused words: {}", refused.len());
    Ok(())
}

impl Figures {
    fn add(&mut self, file: &TextFile) {
        let lines = file.text.lines().count();
        self.files += 1;
        self.lines += lines;
        if file.is_test() {
            self.test_lines += lines;
            return;
        }
        let source = Source::new(&file.text);
        let functions = source.functions().into_iter();
        self.functions
            .extend(functions.map(|(name, lines)| (lines, format!("{} {name}", file.path))));
        self.public += source.public_items();
        self.docs += source.doc_comments().len();
        self.hollow += source.hollow_docs().len();
    }

    fn merge(&mut self, other: Self) {
        self.files += other.files;
        self.lines += other.lines;
        self.test_lines += other.test_lines;
        self.functions.extend(other.functions);
        self.public += other.public;
        self.docs += other.docs;
        self.hollow += other.hollow;
    }

    fn print(&self, name: &str, circles: usize) {
        let mut lengths: Vec<usize> = self.functions.iter().map(|(lines, _)| *lines).collect();
        lengths.sort_unstable();
        let percentile = |percent: usize| lengths.get(lengths.len() * percent / 100).copied().unwrap_or_default();
        let long = lengths.iter().filter(|lines| **lines > LONG_FUNCTION).count();
        println!(
            "{name:<26} {:>5} {:>6} {:>9} {:>10} {:>4} {:>4} {:>4} {long:>5} {:>4} {:>5} {:>7} {circles:>8}",
            self.files,
            self.lines,
            self.test_lines,
            lengths.len(),
            percentile(50),
            percentile(90),
            percentile(99),
            self.public,
            self.docs,
            self.hollow
        );
    }
}

/// Returns the directory of the crate to which a file belongs.
fn crate_of(path: &str) -> Option<String> {
    let mut parts = path.split('/');
    match parts.next()? {
        "crates" => Some(format!("crates/{}", parts.next()?)),
        first @ ("xtask" | "tests") => Some(first.to_owned()),
        _ => None,
    }
}
