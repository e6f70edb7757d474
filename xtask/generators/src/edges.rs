//! The table of allowed dependencies in `docs/concepts/architecture.md`, between two markers.

use std::{fmt::Write as _, fs, io, path::Path};

use anyhow::Context as _;
use xtask::edges::ALLOWED;

use super::File;

const PAGE: &str = "docs/concepts/architecture.md";
const BEGIN: &str = "<!-- edges:begin -->\n";
const END: &str = "<!-- edges:end -->";

/// Returns the page with the current table, or nothing where there is no such page.
pub(super) fn file(root: &Path) -> anyhow::Result<Option<File>> {
    let text = match fs::read_to_string(root.join(PAGE)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context(PAGE),
    };
    let (before, rest) = text.split_once(BEGIN).with_context(|| format!("{PAGE}: no {BEGIN}"))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("{PAGE}: no {END}"))?;
    Ok(Some(File::new(PAGE, format!("{before}{BEGIN}{}{END}{after}", table()))))
}

fn table() -> String {
    let mut text = String::from("| crate | may use |\n|---|---|\n");
    for (name, allowed) in ALLOWED {
        let allowed: Vec<String> = allowed.iter().map(|name| format!("`{name}`")).collect();
        let allowed = if allowed.is_empty() {
            "none of ours".to_owned()
        } else {
            allowed.join(", ")
        };
        let _ = writeln!(text, "| `{name}` | {allowed} |");
    }
    text
}
