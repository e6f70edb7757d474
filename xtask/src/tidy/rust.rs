//! A Rust file as far as the rules need it: code and comments apart, functions, items, imports.
//!
//! This is a lexer, not a parser. It knows comments, strings, characters and braces. That is enough for line counts and
//! paths, and it needs no dependency.

use super::{Finding, TextFile};

/// Code and comments of a file.
#[derive(Debug)]
pub struct Source {
    /// The text with the content of comments, strings and characters replaced by spaces. Lines stay where they are.
    pub code: String,
    /// Every line comment: line from 1, and its text with the slashes.
    pub comments: Vec<(usize, String)>,
}

impl Source {
    /// Separates code and comments.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Lexer::default().run(text)
    }

    /// Returns the code without the bodies of `#[cfg(test)]` modules.
    #[must_use]
    pub fn code_without_tests(&self) -> String {
        let mut code = self.code.clone();
        while let Some(at) = code.find("#[cfg(test)]") {
            let end = body_end(&code, at).unwrap_or(code.len());
            let blank: String = code[at..end]
                .chars()
                .map(|c| if c == '\n' { '\n' } else { ' ' })
                .collect();
            code.replace_range(at..end, &blank);
        }
        code
    }

    /// Returns name and number of lines of every function with a body, tests excluded.
    #[must_use]
    pub fn functions(&self) -> Vec<(String, usize)> {
        let code = self.code_without_tests();
        let mut functions = Vec::new();
        for (at, _) in code.match_indices("fn ") {
            let starts_word = code[..at].chars().next_back().is_none_or(|c| !is_word(c));
            let name: String = code[at + 3..].chars().take_while(|c| is_word(*c)).collect();
            if !starts_word || name.is_empty() {
                continue;
            }
            if let Some(end) = body_end(&code, at) {
                functions.push((name, code[at..end].lines().count()));
            }
        }
        functions
    }

    /// Returns the number of items that are `pub` without a restriction, tests excluded.
    #[must_use]
    pub fn public_items(&self) -> usize {
        const ITEMS: [&str; 12] = [
            "fn", "struct", "enum", "trait", "type", "const", "static", "mod", "use", "union", "async", "unsafe",
        ];
        self.code_without_tests()
            .lines()
            .filter_map(|line| line.trim_start().strip_prefix("pub "))
            .filter(|rest| ITEMS.contains(&rest.split([' ', '(']).next().unwrap_or_default()))
            .count()
    }

    /// Returns the doc comments: first line, and words of the whole block.
    #[must_use]
    pub fn doc_comments(&self) -> Vec<(usize, String)> {
        let mut blocks: Vec<(usize, usize, String)> = Vec::new();
        for (line, text) in &self.comments {
            let Some(doc) = text.strip_prefix("///") else { continue };
            match blocks.last_mut() {
                Some((_, last, block)) if *last + 1 == *line => {
                    *last = *line;
                    block.push(' ');
                    block.push_str(doc.trim());
                }
                _ => blocks.push((*line, *line, doc.trim().to_owned())),
            }
        }
        blocks.into_iter().map(|(first, _, text)| (first, text)).collect()
    }

    /// Returns the doc comments with at most three words.
    #[must_use]
    pub fn hollow_docs(&self) -> Vec<(usize, String)> {
        self.doc_comments()
            .into_iter()
            .filter(|(_, text)| text.split_whitespace().count() <= 3)
            .collect()
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Returns the end of the first `{...}` block after `at`, or nothing if a `;` comes before it.
fn body_end(code: &str, at: usize) -> Option<usize> {
    let (mut braces, mut parens) = (0_usize, 0_usize);
    for (offset, c) in code[at..].char_indices() {
        match c {
            '(' | '[' => parens += 1,
            ')' | ']' => parens = parens.saturating_sub(1),
            '{' => braces += 1,
            '}' => {
                braces = braces.saturating_sub(1);
                if braces == 0 {
                    return Some(at + offset + 1);
                }
            }
            ';' if braces == 0 && parens == 0 => return None,
            _ => {}
        }
    }
    None
}

/// Finds `use` declarations out of order. The order is: `std`, then other crates, then `crate`, `super` and `self`,
/// with a blank line between the blocks.
#[must_use]
pub fn misplaced_imports(file: &TextFile) -> Vec<Finding> {
    let source = Source::new(&file.text);
    let mut findings = Vec::new();
    // Rank of the last import of the present run, and whether a blank line came after it.
    let (mut last, mut blank) = (0, true);
    let mut inside = false;
    for (number, line) in source.code.lines().enumerate() {
        if inside {
            inside = !line.contains(';');
            continue;
        }
        let declaration = line.strip_prefix("pub use ").or_else(|| line.strip_prefix("use "));
        match declaration {
            Some(path) => {
                let rank = if line.starts_with("pub ") { last } else { rank(path) };
                if rank < last {
                    let message =
                        "imports in this order: std, other crates, then crate/super/self; a blank line between";
                    findings.push(Finding::new(&file.path, number + 1, message));
                } else if rank != last && last != 0 && !blank {
                    let message = "a blank line separates imports of std, of other crates, and of this crate";
                    findings.push(Finding::new(&file.path, number + 1, message));
                }
                (last, blank) = (rank, false);
                inside = !line.contains(';');
            }
            None if line.trim().is_empty() => blank = true,
            // An attribute of the next import keeps the run.
            None if line.starts_with('#') => {}
            None => (last, blank) = (0, true),
        }
    }
    findings
}

fn rank(path: &str) -> u8 {
    match path.split([':', ';', ' ', '{']).next().unwrap_or_default() {
        "std" | "core" | "alloc" => 1,
        "crate" | "super" | "self" => 3,
        _ => 2,
    }
}

#[derive(Default)]
struct Lexer {
    code: String,
    comments: Vec<(usize, String)>,
    line: usize,
}

impl Lexer {
    fn run(mut self, text: &str) -> Source {
        self.line = 1;
        let chars: Vec<char> = text.chars().collect();
        let mut at = 0;
        while at < chars.len() {
            at = self.token(&chars, at);
        }
        Source {
            code: self.code,
            comments: self.comments,
        }
    }

    /// Takes one character, comment or literal. Returns where the next one begins.
    fn token(&mut self, chars: &[char], at: usize) -> usize {
        let next = |offset: usize| chars.get(at + offset).copied();
        match chars[at] {
            '/' if next(1) == Some('/') => {
                let end = (at..chars.len()).find(|i| chars[*i] == '\n').unwrap_or(chars.len());
                self.comments.push((self.line, chars[at..end].iter().collect()));
                self.blank(&chars[at..end]);
                end
            }
            '/' if next(1) == Some('*') => {
                let end = block_comment_end(chars, at);
                self.blank(&chars[at..end]);
                end
            }
            '"' => self.string(chars, at, at + 1),
            'r' | 'b' | 'c' if !at.checked_sub(1).is_some_and(|before| is_word(chars[before])) => {
                match literal_start(chars, at) {
                    Some((quote, hashes, true)) => self.raw_string(chars, at, quote, hashes),
                    Some((quote, _, false)) => self.string(chars, at, quote + 1),
                    None => self.keep(chars[at], at),
                }
            }
            // A lifetime has no closing quote.
            '\'' => match (next(1), next(2)) {
                (Some('\\'), _) => {
                    let end = (at + 3..chars.len())
                        .find(|i| chars[*i] == '\'')
                        .map_or(chars.len(), |i| i + 1);
                    self.blank(&chars[at..end]);
                    end
                }
                (Some(_), Some('\'')) => {
                    self.blank(&chars[at..at + 3]);
                    at + 3
                }
                _ => self.keep('\'', at),
            },
            c => self.keep(c, at),
        }
    }

    fn keep(&mut self, c: char, at: usize) -> usize {
        if c == '\n' {
            self.line += 1;
        }
        self.code.push(c);
        at + 1
    }

    fn blank(&mut self, chars: &[char]) {
        for c in chars {
            if *c == '\n' {
                self.line += 1;
            }
            self.code.push(if *c == '\n' { '\n' } else { ' ' });
        }
    }

    fn string(&mut self, chars: &[char], from: usize, inside: usize) -> usize {
        let mut end = inside;
        while end < chars.len() && chars[end] != '"' {
            end += if chars[end] == '\\' { 2 } else { 1 };
        }
        let end = (end + 1).min(chars.len());
        self.blank(&chars[from..end]);
        end
    }

    fn raw_string(&mut self, chars: &[char], from: usize, quote: usize, hashes: usize) -> usize {
        let closes =
            |i: usize| chars[i] == '"' && chars[i + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes;
        let end = (quote + 1..chars.len())
            .find(|i| closes(*i))
            .map_or(chars.len(), |i| i + 1 + hashes);
        self.blank(&chars[from..end]);
        end
    }
}

fn block_comment_end(chars: &[char], at: usize) -> usize {
    let (mut depth, mut end) = (0_usize, at);
    while end + 1 < chars.len() {
        match (chars[end], chars[end + 1]) {
            ('/', '*') => {
                depth += 1;
                end += 2;
            }
            ('*', '/') => {
                depth -= 1;
                end += 2;
                if depth == 0 {
                    return end;
                }
            }
            _ => end += 1,
        }
    }
    chars.len()
}

/// Returns the opening quote of a prefixed string literal, its number of `#`, and whether it is raw.
fn literal_start(chars: &[char], at: usize) -> Option<(usize, usize, bool)> {
    let mut quote = at;
    let mut raw = false;
    while quote < chars.len() && quote < at + 2 && matches!(chars[quote], 'r' | 'b' | 'c') {
        raw |= chars[quote] == 'r';
        quote += 1;
    }
    let hashes = chars[quote.min(chars.len())..]
        .iter()
        .take_while(|c| **c == '#')
        .count();
    quote += hashes;
    (chars.get(quote) == Some(&'"') && (raw || hashes == 0)).then_some((quote, hashes, raw))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_strings_and_characters_are_no_code() {
        let source =
            Source::new("let a = \"// no {\"; // yes {\nlet b = r#\"\"}\"#; let c = '{'; fn f<'a>() {}\n/* { */");
        assert_eq!(source.comments, [(1, "// yes {".to_owned())]);
        assert_eq!(source.code.matches('{').count(), 1, "{}", source.code);
        assert_eq!(source.code.lines().count(), 3);
    }

    #[test]
    fn functions_are_counted_with_their_lines() {
        let text = "fn one() { 1 }\ntrait T { fn none(&self); }\nfn three(a: [u8; 2])\nwhere\n{ }\n#[cfg(test)]\nmod tests { fn no() {} }\n";
        let functions = Source::new(text).functions();
        assert_eq!(functions, [("one".to_owned(), 1), ("three".to_owned(), 3)]);
    }

    #[test]
    fn imports_out_of_order_are_found() {
        let file = |text: &str| TextFile {
            path: "a.rs".to_owned(),
            text: text.to_owned(),
        };
        let good =
            "use std::{\n    fs,\n};\n\nuse kube::Api;\n\nuse super::x;\nuse crate::{\n    y,\n};\n\nfn f() {}\n";
        assert_eq!(misplaced_imports(&file(good)), []);
        let lines = |text: &str| {
            misplaced_imports(&file(text))
                .iter()
                .map(|found| found.line)
                .collect::<Vec<_>>()
        };
        assert_eq!(lines("use kube::Api;\nuse std::fs;\n"), [2]);
        assert_eq!(lines("use std::fs;\nuse kube::Api;\n"), [2]);
        assert_eq!(lines("use crate::a;\n\nuse kube::Api;\n"), [3]);
    }
}
