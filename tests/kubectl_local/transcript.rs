//! A page of the documentation with commands and their output.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, ensure};
use regex::Regex;

/// Maximum length of an output line on the page.
const WIDTH: usize = 150;

/// A page under construction: its commands run while it is written.
pub(crate) struct Transcript {
    page: String,
    /// Values that differ between runs, and their replacements on the page. Both have the same length, so columns stay
    /// aligned.
    masks: Vec<(String, String)>,
}

impl Transcript {
    /// Starts a page.
    pub(crate) fn new(title: &str) -> Self {
        Self {
            page: format!("# {title}\n"),
            masks: Vec::new(),
        }
    }

    /// Adds a paragraph or a heading.
    pub(crate) fn text(&mut self, text: &str) {
        self.page.push_str(&format!("\n{text}\n"));
    }

    /// Adds a command and its output.
    pub(crate) fn command(&mut self, line: &str, output: &str) {
        self.page.push_str(&format!("\n    $ {line}\n"));
        for line in output.lines() {
            let line = cut(line.trim_end());
            self.page.push_str(&if line.is_empty() {
                "\n".to_owned()
            } else {
                format!("    {line}\n")
            });
        }
    }

    /// Replaces a value of this run everywhere by another one of the same length.
    pub(crate) fn mask(&mut self, value: &str, by: &str) -> anyhow::Result<()> {
        ensure!(
            !value.is_empty() && value.len() == by.len(),
            "{value:?} cannot be masked by {by:?}"
        );
        self.masks.push((value.to_owned(), by.to_owned()));
        Ok(())
    }

    /// Compares the page with the one in the repository, or writes it if `UPDATE` is set.
    pub(crate) fn compare(self, file: &Path) -> anyhow::Result<()> {
        let page = self.masked()?;
        if std::env::var_os("UPDATE").is_some() {
            return fs::write(file, page).with_context(|| file.display().to_string());
        }
        let stored = fs::read_to_string(file).unwrap_or_default();
        if page == stored {
            return Ok(());
        }
        let directory = tempfile::tempdir()?;
        let new = directory.path().join("new");
        fs::write(&new, page)?;
        let diff = Command::new("diff").arg("-u").arg(file).arg(&new).output()?;
        anyhow::bail!(
            "{} is out of date; run this test with UPDATE=1:\n{}",
            file.display(),
            String::from_utf8_lossy(&diff.stdout)
        );
    }

    fn masked(&self) -> anyhow::Result<String> {
        let mut page = self.page.clone();
        for (value, by) in &self.masks {
            page = page.replace(value, by);
        }
        let time = Regex::new(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")?;
        let uid = Regex::new(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")?;
        let version = Regex::new(r"((?:Resource|Source) Version: +)\d+")?;
        page = time.replace_all(&page, "2026-01-01T00:00:00Z").into_owned();
        page = uid
            .replace_all(&page, "00000000-0000-4000-8000-000000000000")
            .into_owned();
        page = version.replace_all(&page, "${1}42").into_owned();
        let lines: anyhow::Result<Vec<String>> = page.lines().map(ages).collect();
        Ok(lines?.join("\n") + "\n")
    }
}

/// Replaces every age and duration of a line by two seconds, and keeps the columns.
fn ages(line: &str) -> anyhow::Result<String> {
    // Lines such as `Timeout:  5m` show a setting, not a duration of this run.
    let settings = Regex::new(r"^\s+[A-Z][A-Za-z ]*: ")?.is_match(line) && !line.trim_start().starts_with("Duration:");
    let age = Regex::new(r"( )((?:\d+m)?\d+s|\d+m|<unknown>|<invalid>)( +|$)")?;
    if settings || line.trim_start().starts_with('$') {
        return Ok(line.to_owned());
    }
    let mut line = line.to_owned();
    let mut from = 0;
    while let Some(found) = age.captures_at(&line, from) {
        let (Some(all), Some(value), Some(after)) = (found.get(0), found.get(2), found.get(3)) else {
            break;
        };
        let spaces = if after.is_empty() {
            0
        } else {
            (value.len() + after.len()).saturating_sub(2).max(1)
        };
        let by = format!(" 2s{}", " ".repeat(spaces));
        // The last space may begin the next match.
        from = all.start() + by.len().saturating_sub(1).max(3);
        line.replace_range(all.range(), &by);
        if from >= line.len() {
            break;
        }
    }
    Ok(line)
}

fn cut(line: &str) -> String {
    if line.chars().count() <= WIDTH {
        return line.to_owned();
    }
    let mut short: String = line.chars().take(WIDTH - 1).collect();
    short.push('…');
    short
}

#[test]
fn ages_are_masked_and_columns_stay() -> anyhow::Result<()> {
    assert_eq!(
        ages("  line    1         12s        3m5s")?,
        "  line    1         2s         2s"
    );
    assert_eq!(ages("  a   1s         3s")?, "  a   2s         2s");
    assert_eq!(ages("    Timeout:             5m")?, "    Timeout:             5m");
    assert_eq!(
        ages("    Duration:                11s")?,
        "    Duration:                2s"
    );
    assert_eq!(
        ages("  Warning  X  14s   operator  the y")?,
        "  Warning  X  2s    operator  the y"
    );
    Ok(())
}
