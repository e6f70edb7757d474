//! How prose reads: semicolons and relative words per thousand words.

use super::TextFile;

/// Words that begin a subordinate clause.
const RELATIVE: [&str; 10] = [
    "that",
    "which",
    "who",
    "whom",
    "whose",
    "what",
    "whatever",
    "whichever",
    "whoever",
    "whereby",
];

/// Counts over prose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Prose {
    /// All words.
    pub words: usize,
    /// `;`.
    pub semicolons: usize,
    /// Words such as "which".
    pub relatives: usize,
}

impl Prose {
    /// Counts a Markdown file, without code and comments.
    #[must_use]
    pub fn of_markdown(file: &TextFile) -> Self {
        let text = without_code(&file.text);
        let mut words = text
            .split(|c: char| !c.is_alphanumeric() && c != '\'' && c != '-')
            .filter(|word| word.chars().any(char::is_alphabetic));
        let mut prose = Self {
            semicolons: text.matches(';').count(),
            ..Self::default()
        };
        words.by_ref().for_each(|word| {
            prose.words += 1;
            prose.relatives += usize::from(RELATIVE.contains(&word.to_lowercase().as_str()));
        });
        prose
    }

    /// Adds two counts.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            words: self.words + other.words,
            semicolons: self.semicolons + other.semicolons,
            relatives: self.relatives + other.relatives,
        }
    }

    /// Returns a count per thousand words.
    #[must_use]
    pub fn per_thousand(self, count: usize) -> f64 {
        // Far below the integers that a double holds exactly.
        #[allow(clippy::cast_precision_loss, reason = "counts of words are small")]
        let ratio = count as f64 * 1000.0 / self.words.max(1) as f64;
        ratio
    }
}

/// Returns the text without fenced and indented code, code spans, comments and link targets.
fn without_code(text: &str) -> String {
    let mut prose = String::new();
    let (mut fenced, mut comment, mut after_blank, mut indented) = (false, false, true, false);
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            continue;
        }
        comment |= line.trim_start().starts_with("<!--");
        indented = line.starts_with("    ") && (after_blank || indented);
        after_blank = line.trim().is_empty();
        if !fenced && !comment && !indented {
            prose.push_str(&without_spans(line));
            prose.push('\n');
        }
        comment &= !line.contains("-->");
    }
    prose
}

fn without_spans(line: &str) -> String {
    let mut outside = true;
    let mut kept = String::new();
    for part in line.split('`') {
        if outside {
            kept.push_str(part);
        }
        outside = !outside;
    }
    // `](target)`
    let mut prose = String::new();
    let mut rest = kept.as_str();
    while let Some((before, after)) = rest.split_once("](") {
        prose.push_str(before);
        rest = after.split_once(')').map_or("", |(_, after)| after);
    }
    prose.push_str(rest);
    prose
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_not_counted() {
        let text =
            "It is so; `a;b` that [page](x;y.md) is.\n\n    code; which\n\n```\nwho;\n```\n<!-- what; -->\nDone.\n";
        let file = TextFile {
            path: "a.md".to_owned(),
            text: text.to_owned(),
        };
        let counted = Prose::of_markdown(&file);
        assert_eq!((counted.words, counted.semicolons, counted.relatives), (7, 1, 1));
    }
}
