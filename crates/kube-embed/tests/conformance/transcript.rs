//! Files of cases: requests, and after each the recorded response of the real server.
//!
//! ```text
//! # about the cases that follow
//! == title of a case
//! POST configmaps {metadata: {name: a}, data: {k: v}} | .data
//! > 201 {"k":"v"}
//! ```
//!
//! Lines that start with `>` are responses. The run on the real server writes them. A line that starts with four spaces
//! continues the previous line.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// A file of cases.
pub(crate) struct Transcript {
    pub(crate) path: PathBuf,
    /// The text before the first case.
    head: String,
    pub(crate) cases: Vec<Case>,
}

/// Steps that run in one namespace.
pub(crate) struct Case {
    pub(crate) title: String,
    pub(crate) steps: Vec<Step>,
    /// Comments and empty lines after the last response. They belong to the next case.
    tail: String,
}

/// One request or command, and the response of the real server.
pub(crate) struct Step {
    /// The line with its continuation lines, as in the file.
    source: String,
    /// The same, joined into one line.
    pub(crate) text: String,
    /// The response lines without `> `.
    pub(crate) answer: Vec<String>,
}

impl Case {
    /// Creates a case that is not from a file.
    pub(crate) fn of(title: &str, steps: Vec<String>) -> Self {
        let step = |text: String| Step {
            source: text.clone(),
            text,
            answer: Vec::new(),
        };
        Self {
            title: title.to_owned(),
            steps: steps.into_iter().map(step).collect(),
            tail: String::new(),
        }
    }
}

impl Transcript {
    pub(crate) fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap();
        let mut transcript = Self {
            path: path.to_owned(),
            head: String::new(),
            cases: Vec::new(),
        };
        for line in text.lines() {
            transcript.take(line);
        }
        transcript
    }

    fn take(&mut self, line: &str) {
        if let Some(title) = line.strip_prefix("== ") {
            self.cases.push(Case {
                title: title.trim().to_owned(),
                steps: Vec::new(),
                tail: String::new(),
            });
            return;
        }
        let Some(case) = self.cases.last_mut() else {
            let _ = writeln!(self.head, "{line}");
            return;
        };
        if line.is_empty() || line.starts_with('#') {
            let _ = writeln!(case.tail, "{line}");
        } else if let Some(answer) = line.strip_prefix('>') {
            let step = case.steps.last_mut().expect("a request before its response");
            step.answer.push(answer.strip_prefix(' ').unwrap_or(answer).to_owned());
        } else if let Some(more) = line.strip_prefix("    ") {
            let step = case.steps.last_mut().expect("a line before its continuation");
            let _ = write!(step.source, "\n{line}");
            // A script keeps its line breaks.
            if step.text.starts_with('$') {
                let _ = write!(step.text, "\n{more}");
            } else {
                let _ = write!(step.text, " {}", more.trim());
            }
        } else {
            assert!(
                case.tail.is_empty(),
                "{}: a comment must be between two cases",
                case.title
            );
            case.steps.push(Step {
                source: line.to_owned(),
                text: line.to_owned(),
                answer: Vec::new(),
            });
        }
    }

    /// Returns the text of the file with new responses.
    pub(crate) fn with_answers(&self, answers: &[Vec<Vec<String>>]) -> String {
        let mut out = self.head.clone();
        for (case, answers) in self.cases.iter().zip(answers) {
            let _ = writeln!(out, "== {}", case.title);
            for (step, answer) in case.steps.iter().zip(answers) {
                let _ = writeln!(out, "{}", step.source);
                for line in answer {
                    let _ = writeln!(out, "{}", format!("> {line}").trim_end());
                }
            }
            out.push_str(&case.tail);
        }
        out
    }
}
