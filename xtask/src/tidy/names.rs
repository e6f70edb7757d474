//! Names of types that do not say whose they are.

use super::{Finding, TextFile, rust::Source};

/// Names that several crates once had for different things.
const BARE: [&str; 13] = [
    "Told", "Doing", "End", "Facts", "State", "Manners", "Class", "Pulse", "Teller", "View", "Feed", "Shared", "Calls",
];

/// Finds definitions of types with a bare name, and traits named `Kind`.
#[must_use]
pub fn bare(files: &[TextFile]) -> Vec<Finding> {
    let rust = files.iter().filter(|file| file.extension() == "rs");
    rust.flat_map(|file| {
        let code = Source::new(&file.text).code;
        let lines = code.lines().enumerate();
        let findings = lines.filter_map(|(index, line)| {
            let (keyword, name) = definition(line)?;
            let is_bare = BARE.contains(&name) || (keyword == "trait" && name == "Kind");
            is_bare.then(|| {
                let message = format!("`{name}` says too little: name whose it is, such as `Attempt{name}`");
                Finding::new(&file.path, index + 1, message)
            })
        });
        findings.collect::<Vec<_>>()
    })
    .collect()
}

/// Returns the keyword and the name of the type that a line defines. Associated types are named by their trait.
fn definition(line: &str) -> Option<(&str, &str)> {
    let rest = line.trim_start();
    let is_indented = rest.len() < line.len();
    let rest = match rest.strip_prefix("pub") {
        Some(public) if public.starts_with('(') => public.split_once(')')?.1,
        Some(public) => public,
        None => rest,
    };
    let (keyword, rest) = rest.trim_start().split_once(' ')?;
    let is_type = matches!(keyword, "struct" | "enum" | "trait" | "union") || (keyword == "type" && !is_indented);
    let name = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()?;
    is_type.then_some((keyword, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_found_and_uses_are_not() {
        let file = TextFile {
            path: "a.rs".to_owned(),
            text: "pub struct End;\nuse x::State;\nstruct AttemptEnd;\npub(crate) trait Kind {}\nenum Kind {}\n    type State = u8;\n"
                .to_owned(),
        };
        let lines: Vec<usize> = bare(&[file]).iter().map(|finding| finding.line).collect();
        assert_eq!(lines, [1, 4]);
    }
}
