//! `docs/reference/bad-input.md`: the observed results, one section for each set of cases.

use std::{env, fmt::Write as _, fs, path::Path, sync::Mutex};

use crate::case::{Case, CaseEnd, Outcome};

/// Maximum length of a cell, in characters.
const CELL: usize = 300;

/// Guards the file: tests that run at the same time write its sections.
static FILE: Mutex<()> = Mutex::new(());

/// Compares the section with the observed results, or writes it with `UPDATE=1`.
pub(crate) fn compare(section: &str, rows: &[(&Case, &Outcome)], data: &Path) -> Option<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/bad-input.md");
    let _one = FILE.lock().unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let begin = format!("<!-- begin {section} -->\n");
    let end = format!("<!-- end {section} -->");
    let (before, rest) = text.split_once(&begin).unwrap();
    let (committed, after) = rest.split_once(&end).unwrap();
    let seen = render(rows, data);
    if env::var_os("UPDATE").is_some_and(|value| value == "1") {
        fs::write(&path, format!("{before}{begin}{seen}{end}{after}")).unwrap();
        return None;
    }
    let differs = |(a, b): (&str, &str)| (a != b).then(|| format!("- {a}\n+ {b}"));
    (committed != seen).then(|| {
        let lines: Vec<String> = committed.lines().zip(seen.lines()).filter_map(differs).collect();
        format!(
            "{} is not what was seen; `UPDATE=1` rewrites it\n{}",
            path.display(),
            lines.join("\n")
        )
    })
}

fn render(rows: &[(&Case, &Outcome)], data: &Path) -> String {
    let mut text =
        "\n| input | exit code | ends as | field | message | remedy |\n|---|---|---|---|---|---|\n".to_owned();
    for (case, outcome) in rows {
        let end = match outcome.end {
            Some(CaseEnd::Rejected) => "rejected",
            Some(CaseEnd::Waits) => "waits",
            Some(CaseEnd::Failed) => "failed",
            Some(CaseEnd::Succeeded) => "succeeded",
            None => "?",
        };
        let field = if outcome.field.is_empty() {
            String::new()
        } else {
            format!("`{}`", outcome.field)
        };
        let code = outcome
            .exit_code
            .map_or_else(|| "?".to_owned(), |code| code.to_string());
        let cells = [
            case.case.clone(),
            code,
            format!("{end}: `{}`", outcome.reason),
            field,
            cell(&outcome.message, data),
            cell(&outcome.remedy, data),
        ];
        // Writing to a String cannot fail.
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    text.push('\n');
    text
}

/// Turns a text into a cell: one line, cut to length, without parts that differ between runs.
fn cell(text: &str, data: &Path) -> String {
    // The number of installed versions of a program differs between machines, too.
    let words: Vec<String> = text
        .split_whitespace()
        .map(|word| masked(word, data))
        .filter(|word| word != "X.Y.Z,")
        .collect();
    let line = words.join(" ").replace('|', "\\|").replace('<', "&lt;");
    match line.char_indices().nth(CELL) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// Replaces paths and versions of this machine, and ids of runs, in a word.
fn masked(word: &str, data: &Path) -> String {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"));
    let mut text = word
        .replace(&*repository.to_string_lossy(), "REPOSITORY")
        .replace(&*data.to_string_lossy(), "DIR");
    // PATH ends with the directories in which this machine's interpreters are linked.
    const SYSTEM: &str = ":/usr/bin:/sbin:/bin";
    if let Some((before, after)) = text.split_once(SYSTEM)
        && after.starts_with(':')
    {
        text = format!("{before}{SYSTEM})");
    }
    if let Some((before, after)) = text.split_once("/node/pods/") {
        let after = after.split_once('/').map_or("", |(_, after)| after);
        text = format!("{before}/node/pods/POD/{after}");
    }
    let number = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit());
    let bare = text.trim_end_matches([',', ';']);
    if bare.split('.').count() == 3 && bare.split('.').all(number) {
        return text.replacen(bare, "X.Y.Z", 1);
    }
    let run = |part: &str| {
        let id = part.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        // Ids of Legion's runs, and of MLflow's runs and models.
        let is_id = matches!(id.len(), 8 | 32) && id.chars().all(|c| c.is_ascii_hexdigit());
        if is_id {
            part.replacen(id, "ID", 1)
        } else {
            part.to_owned()
        }
    };
    text.split_inclusive(|c: char| !c.is_ascii_alphanumeric())
        .map(run)
        .collect()
}
