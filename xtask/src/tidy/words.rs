//! Words and phrases that this repository does not use, each with the plain term. CONTRIBUTING has the vocabulary.

use super::{Finding, TextFile};

/// A refused phrase and what to write.
pub const REFUSED: [(&str, &str); 32] = [
    ("told", "reported"),
    ("tell of", "report"),
    ("tells of", "reports"),
    ("mend", "fix"),
    ("mends", "fixes"),
    ("mended", "fixed"),
    ("mending", "fixing"),
    ("make anew", "recreate"),
    ("makes anew", "recreates"),
    ("made anew", "recreated"),
    ("making anew", "recreating"),
    ("anew", "again"),
    ("failed of", "failed because of"),
    ("for want of", "because of a lack of"),
    ("belong into", "belong in"),
    ("belongs into", "belongs in"),
    ("looked at", "reconciled, or read"),
    ("look again", "reconcile again"),
    ("looks again", "reconciles again"),
    ("how manieth", "the nth"),
    ("ask for patience", "throttle"),
    ("asks for patience", "throttles"),
    ("asked for patience", "throttled"),
    ("worn out", "exhausted"),
    ("shall", "must, or will"),
    ("nobody", "no one"),
    ("somebody", "someone, or a user"),
    ("whoever", "anyone who"),
    ("at once", "immediately, or at the same time"),
    ("word about", "report of"),
    ("by itself", "on its own, or name who does it"),
    ("of its own accord", "on its own"),
];

/// Files that quote other programs or hold the list itself.
const EXEMPT: [&str; 4] = [
    "xtask/src/tidy/words.rs",
    "xtask/src/tidy/names.rs",
    "xtask/src/tidy/prose.rs",
    "LICENSE",
];
/// A line with this mark quotes another program's output.
const QUOTATION: &str = "quotes another program";

/// Finds refused phrases, as whole words and in any case. In Rust, `_` separates words, so names are checked, too.
#[must_use]
pub fn refused(files: &[TextFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files {
        if EXEMPT.contains(&file.path.as_str()) || file.extension() == "json" {
            continue;
        }
        for (number, line) in file.text.lines().enumerate() {
            if line.contains(QUOTATION) {
                continue;
            }
            let words = normalized(line);
            for (phrase, instead) in REFUSED {
                if words.contains(&format!(" {phrase} ")) {
                    let message = format!("{phrase:?}: write {instead:?}, or another plain sentence");
                    findings.push(Finding::new(&file.path, number + 1, message));
                }
            }
        }
    }
    findings
}

/// Returns the words of a line in lower case, each between spaces.
fn normalized(line: &str) -> String {
    let mut words = String::from(" ");
    for word in line
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
    {
        words.push_str(&word.to_lowercase());
        words.push(' ');
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phrases_are_found_in_prose_and_in_names_as_whole_words() {
        let file = TextFile {
            path: "a.rs".to_owned(),
            text: "fn a_fault_is_told() {}\n// Made   Anew.\nlet recommend = \"atonce\";\n".to_owned(),
        };
        let found = refused(&[file]);
        let lines: Vec<usize> = found.iter().map(|finding| finding.line).collect();
        assert_eq!(lines, [1, 2, 2], "{found:?}");
    }
}
