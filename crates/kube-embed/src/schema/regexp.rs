//! Go's regular expressions (RE2), translated for the `regex` crate.
//!
//! The two dialects differ in three ways. Go's `\d`, `\w`, `\s` and `\b` are ASCII. Go has `\Q..\E`. In the `regex`
//! crate only, `[`, `&&`, `--` and `~~` inside a class are operators.

use regex::Regex;

/// Compiles a pattern with its meaning in Go.
pub(crate) fn compile(pattern: &str) -> Result<Regex, String> {
    // The compiler expands counted repetitions. Its default limit refuses patterns that Go accepts (such as
    // `{1,1000}`). The limit is therefore higher here, but there still is one.
    regex::RegexBuilder::new(&translate(pattern))
        .size_limit(64 << 20)
        .build()
        .map_err(|e| one_line(&e.to_string()))
}

fn one_line(message: &str) -> String {
    message
        .lines()
        .last()
        .unwrap_or(message)
        .trim()
        .trim_start_matches("error: ")
        .to_owned()
}

fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut chars = pattern.chars().peekable();
    let mut in_class = false;
    // Whether this is the start of a class: a `]` right after `[` or `[^` is a literal.
    let mut class_start = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                class_start = false;
                match chars.next() {
                    Some('d') => out.push_str("[0-9]"),
                    Some('D') => out.push_str("[^0-9]"),
                    Some('w') => out.push_str("[0-9A-Za-z_]"),
                    Some('W') => out.push_str("[^0-9A-Za-z_]"),
                    Some('s') => out.push_str("[\\t\\n\\f\\r ]"),
                    Some('S') => out.push_str("[^\\t\\n\\f\\r ]"),
                    Some('b') if !in_class => out.push_str("(?-u:\\b)"),
                    Some('B') if !in_class => out.push_str("(?-u:\\B)"),
                    Some('Q') => {
                        let mut literal = String::new();
                        while let Some(q) = chars.next() {
                            if q == '\\' && chars.peek() == Some(&'E') {
                                chars.next();
                                break;
                            }
                            literal.push(q);
                        }
                        out.push_str(&regex::escape(&literal));
                    }
                    Some(other) => {
                        out.push('\\');
                        out.push(other);
                    }
                    None => out.push('\\'),
                }
            }
            '[' if in_class => {
                class_start = false;
                if chars.peek() == Some(&':') {
                    out.push('[')
                } else {
                    out.push_str("\\[")
                }
            }
            '[' => {
                in_class = true;
                class_start = true;
                out.push('[');
                if chars.peek() == Some(&'^') {
                    chars.next();
                    out.push('^');
                }
            }
            ']' if in_class && class_start => {
                class_start = false;
                out.push_str("\\]");
            }
            ']' if in_class => {
                // The end of a POSIX class such as `[:alpha:]` does not end the enclosing class.
                if !out.ends_with(':') {
                    in_class = false;
                }
                out.push(']');
            }
            '&' | '~' if in_class && chars.peek() == Some(&c) => {
                class_start = false;
                out.push('\\');
                out.push(c);
            }
            other => {
                class_start = false;
                out.push(other);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_meaning() {
        let cases = [
            (r"^\d+$", "12", true),
            (r"^\d+$", "١٢", false),
            (r"^[\w.-]+$", "a_b.c-1", true),
            (r"^[\w.-]+$", "é", false),
            (r"^[a[]+$", "a[", true),
            (r"^[]a]+$", "]a", true),
            (r"^[[:alpha:]_]+$", "ab_", true),
            (r"^[a&&b]+$", "a&b", true),
            (r"^\Qa.b\E$", "a.b", true),
            (r"^\Qa.b\E$", "axb", false),
            (r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "a-b", true),
            (r"^(/[^/]+)+$", "/a/b", true),
            (r"\bcat\b", "a cat", true),
            (r"^[^\s]+$", "a b", false),
            (r"^[:a]+$", "a:", true),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(
                compile(pattern).unwrap().is_match(text),
                expected,
                "{pattern} on {text}"
            );
        }
    }

    #[test]
    fn bad_pattern_is_an_error() {
        assert!(compile("(").is_err());
        assert!(compile("[a").is_err());
        assert!(compile("(?=a)").is_err());
    }
}
