//! The command blocks of a guide, as a reader would run them.

use std::fs;

use anyhow::Context as _;

use crate::local::repository;

/// A command block.
#[derive(Debug)]
pub struct Block {
    /// The number of its first line in the page.
    line: usize,
    /// Its lines, without the indentation of the fence.
    pub text: String,
}

/// Returns the command blocks of a page of the repository: those between "```sh" and "```".
///
/// # Errors
/// The page cannot be read.
pub fn blocks(page: &str) -> anyhow::Result<Vec<Block>> {
    let text = fs::read_to_string(repository().join(page)).with_context(|| page.to_owned())?;
    let mut blocks = Vec::new();
    let mut open: Option<(&str, Block)> = None;
    for (index, line) in text.lines().enumerate() {
        match &mut open {
            None => {
                open = line.strip_suffix("```sh").map(|indent| {
                    let block = Block {
                        line: index + 1,
                        text: String::new(),
                    };
                    (indent, block)
                });
            }
            Some(_) if line.trim_start() == "```" => blocks.extend(open.take().map(|(_, block)| block)),
            Some((indent, block)) => {
                block.text.push_str(line.strip_prefix(*indent).unwrap_or(line));
                block.text.push('\n');
            }
        }
    }
    Ok(blocks)
}

/// Returns a script for bash that shows and runs these blocks of a page. It ends at the first command that fails.
#[must_use]
pub fn script(page: &str, blocks: &[Block]) -> String {
    let mut script = String::from("set -euo pipefail\n");
    for Block { line, text } in blocks {
        script.push_str(&format!(
            "echo '== {page}, line {line}'\nset -x\n{text}{{ set +x; }} 2>/dev/null\n"
        ));
    }
    script
}
