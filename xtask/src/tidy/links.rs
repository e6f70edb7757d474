//! Links of Markdown files: relative ones must lead to a file, and fragments to a heading.

use std::{collections::BTreeSet, path::Path};

use super::{Finding, TextFile};

/// Finds relative links that lead nowhere.
#[must_use]
pub fn broken(root: &Path, files: &[TextFile]) -> Vec<Finding> {
    let pages: Vec<&TextFile> = files.iter().filter(|file| file.extension() == "md").collect();
    let mut findings = Vec::new();
    for page in &pages {
        let mut fenced = false;
        for (number, line) in page.text.lines().enumerate() {
            fenced ^= line.trim_start().starts_with("```");
            if fenced || line.starts_with("    ") {
                continue;
            }
            for target in targets(&without_code(line)) {
                if let Some(problem) = problem(root, page, target, &pages) {
                    findings.push(Finding::new(&page.path, number + 1, problem));
                }
            }
        }
    }
    findings
}

/// Returns the line without the content of its code spans. A span may be the text of a link, so its place stays.
fn without_code(line: &str) -> String {
    let is_prose = |(number, part): (usize, &'_ str)| {
        if number % 2 == 0 {
            part.to_owned()
        } else {
            String::new()
        }
    };
    line.split('`').enumerate().map(is_prose).collect()
}

/// Returns the targets of the inline links of a line.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    line.split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')').map(|(target, _)| target))
}

fn problem(root: &Path, page: &TextFile, target: &str, pages: &[&TextFile]) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (file, fragment) = target.split_once('#').unwrap_or((target, ""));
    let path = if file.is_empty() {
        page.path.clone()
    } else {
        joined(&page.path, file)
    };
    if !root.join(&path).exists() {
        return Some(format!("the link {target:?} leads to {path}, which does not exist"));
    }
    let linked = pages.iter().find(|other| other.path == path)?;
    let missing = !fragment.is_empty() && !anchors(&linked.text).contains(fragment);
    missing.then(|| format!("the link {target:?} names a heading that {path} does not have"))
}

/// Resolves a relative path from the directory of a page.
fn joined(page: &str, target: &str) -> String {
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "." | "" => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Returns the anchors of a page as GitHub makes them: lower case, spaces as `-`, without other punctuation.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    let mut fenced = false;
    for line in text.lines() {
        fenced ^= line.trim_start().starts_with("```");
        let heading = line.trim_start_matches('#');
        if fenced || heading.len() == line.len() || !heading.starts_with(' ') {
            continue;
        }
        let slug: String = heading
            .trim()
            .to_lowercase()
            .chars()
            .filter_map(|c| match c {
                ' ' => Some('-'),
                c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
                _ => None,
            })
            .collect();
        let mut unique = slug.clone();
        let mut number = 1;
        while !anchors.insert(unique.clone()) {
            unique = format!("{slug}-{number}");
            number += 1;
        }
    }
    anchors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_and_a_missing_heading_are_found() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("docs")).unwrap();
        let page = |path: &str, text: &str| {
            std::fs::write(root.path().join(path), text).unwrap();
            TextFile {
                path: path.to_owned(),
                text: text.to_owned(),
            }
        };
        let files = [
            page(
                "docs/a.md",
                "# A `b`, c\n[good](../b.md#what-is-it) [self](#a-b-c)\n[x](gone.md) [y](../b.md#no)\n`[a-z](no)`\n",
            ),
            page("b.md", "## What is it?\n[web](https://example.com/none)\n"),
        ];
        let lines: Vec<usize> = broken(root.path(), &files).iter().map(|found| found.line).collect();
        assert_eq!(lines, [3, 3]);
    }
}
