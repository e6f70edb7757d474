//! The rules of this repository that no compiler and no linter holds, and the figures that `cargo xtask measure`
//! prints.
//!
//! The tests in `xtask/tests/it/tidy.rs` call these functions on every file that git tracks.

pub mod links;
pub mod modules;
pub mod names;
pub mod prose;
pub mod rust;
pub mod words;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};

/// A text file that git tracks.
#[derive(Debug, Clone)]
pub struct TextFile {
    /// Path relative to the root of the repository, with `/`.
    pub path: String,
    /// The whole content.
    pub text: String,
}

impl TextFile {
    /// Returns the extension, or the whole file name if it has none.
    #[must_use]
    pub fn extension(&self) -> &str {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        name.rsplit('.').next().unwrap_or_default()
    }

    /// Returns whether the file belongs to a test: not to what is built and shipped.
    #[must_use]
    pub fn is_test(&self) -> bool {
        let in_tests = |part: &str| matches!(part, "tests" | "test");
        self.path.split('/').any(in_tests) || self.path.starts_with("crates/legion-testkit/")
    }
}

/// A place that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file, relative to the root.
    pub path: String,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong, and what to do.
    pub message: String,
}

impl Finding {
    fn new(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            line,
            message: message.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}

/// Extensions of the files that are read.
const TEXT: [&str; 9] = ["rs", "md", "py", "yaml", "yml", "tpl", "sh", "toml", "json"];

/// Reads every text file that git tracks below `root`.
///
/// # Errors
///
/// If `root` is no checkout, or a file cannot be read.
pub fn tracked_files(root: &Path) -> anyhow::Result<Vec<TextFile>> {
    let output = Command::new("git")
        .args(["ls-files", "-z"])
        .current_dir(root)
        .output()
        .context("git cannot be started")?;
    ensure!(
        output.status.success(),
        "git ls-files in {}: {}",
        root.display(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let mut files = Vec::new();
    for path in String::from_utf8(output.stdout)?.split('\0') {
        let extension = path.rsplit('.').next().unwrap_or_default();
        let absolute: PathBuf = root.join(path);
        // A file may be deleted in the work tree and not yet in the index.
        if TEXT.contains(&extension) && absolute.is_file() {
            let bytes = fs::read(&absolute).with_context(|| absolute.display().to_string())?;
            // Test data holds files that are not UTF-8 on purpose.
            if let Ok(text) = String::from_utf8(bytes) {
                files.push(TextFile {
                    path: path.to_owned(),
                    text,
                });
            }
        }
    }
    ensure!(
        files.len() > 100,
        "git lists only {} text files in {}",
        files.len(),
        root.display()
    );
    Ok(files)
}

/// Longest line of Rust and Markdown, in characters. rustfmt holds code to it, but neither comments nor strings.
pub const MAX_WIDTH: usize = 120;
/// Longest Rust file, in lines.
pub const MAX_LINES: usize = 800;

/// Finds comments over [`MAX_WIDTH`].
#[must_use]
pub fn wide_comments(files: &[TextFile]) -> Vec<Finding> {
    let rust = files.iter().filter(|file| file.extension() == "rs");
    rust.flat_map(|file| {
        file.text.lines().enumerate().filter_map(|(number, line)| {
            let is_comment = line.trim_start().starts_with("//");
            // An address cannot be broken.
            let wide = line.chars().count() > MAX_WIDTH && !line.contains("://");
            (is_comment && wide).then(|| {
                let message = format!("the comment is wider than {MAX_WIDTH} columns: break the line");
                Finding::new(&file.path, number + 1, message)
            })
        })
    })
    .collect()
}

/// A generated page with one line for each difference, however long its reason is.
const ONE_LINE_PER_ITEM: &str = "docs/reference/kube-embed-differences.md";

/// Finds prose of pages over [`MAX_WIDTH`]. Headings, tables, code blocks and addresses cannot be broken.
#[must_use]
pub fn wide_prose(files: &[TextFile]) -> Vec<Finding> {
    let pages = files.iter().filter(|file| file.extension() == "md");
    pages
        .filter(|file| file.path != ONE_LINE_PER_ITEM)
        .flat_map(|file| {
            let mut in_code = false;
            let mut findings = Vec::new();
            for (number, line) in file.text.lines().enumerate() {
                in_code ^= line.trim_start().starts_with("```");
                let is_prose = !in_code && !line.starts_with("    ") && !line.trim_start().starts_with(['|', '<', '#']);
                if is_prose && line.chars().count() > MAX_WIDTH && !line.contains("://") {
                    let message = format!("the line is wider than {MAX_WIDTH} columns: break it");
                    findings.push(Finding::new(&file.path, number + 1, message));
                }
            }
            findings
        })
        .collect()
}

/// Finds Rust files over [`MAX_LINES`].
#[must_use]
pub fn long_files(files: &[TextFile]) -> Vec<Finding> {
    let rust = files.iter().filter(|file| file.extension() == "rs");
    rust.filter_map(|file| {
        let lines = file.text.lines().count();
        (lines > MAX_LINES).then(|| {
            let message = format!("{lines} lines, at most {MAX_LINES}: split it by ideas");
            Finding::new(&file.path, lines, message)
        })
    })
    .collect()
}
