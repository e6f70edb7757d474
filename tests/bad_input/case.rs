//! A case: a manifest with one fault, and the expected end.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use legion_tests::local::{Local, succeeded};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// A local Legion, and a directory with the files of the cases.
pub(crate) struct Bench {
    pub local: Local,
}

impl Bench {
    /// Starts it.
    pub(crate) fn up() -> Self {
        let local = Local::new().unwrap();
        local.up().unwrap();
        let bench = Self { local };
        std::fs::create_dir(bench.files()).unwrap();
        bench
    }

    /// The directory.
    pub(crate) fn files(&self) -> PathBuf {
        self.local.path().join("files")
    }

    /// Runs a command with a file as its last argument.
    fn legionctl(&self, arguments: &[&str], file: &Path) -> Output {
        let file = file.to_str().unwrap();
        self.local.output(&[arguments, &[file]].concat()).unwrap()
    }

    /// Runs `local run`, interrupts it once it has printed a text, and returns its exit code, the training at that
    /// moment and the output.
    fn run_until(&self, file: &Path, text: &str, name: &str) -> (Option<i32>, Value, String) {
        let run = ["local", "run", "--timeout", "5m", "-f", file.to_str().unwrap()];
        let mut child = self
            .local
            .legionctl(&run)
            .unwrap()
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let mut lines = BufReader::new(child.stderr.take().unwrap())
            .lines()
            .map_while(Result::ok);
        for line in lines.by_ref() {
            said.push_str(&line);
            said.push('\n');
            if line.contains(text) {
                break;
            }
        }
        let training = self.local.training(name).unwrap();
        // The process has not been waited for yet. Its id cannot belong to another process.
        let _ = kill_process(Pid::from_child(&child), Signal::INT);
        said.extend(lines.map(|line| line + "\n"));
        (child.wait().unwrap().code(), training, said)
    }
}

/// One row of the table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Case {
    /// The fault, in words for the reader of the table.
    pub case: String,
    /// Name of the training.
    pub name: String,
    /// Fields of the spec that differ from a training that succeeds.
    #[serde(default)]
    spec: Map<String, Value>,
    /// Lines of `train.sh`.
    #[serde(default)]
    script: Option<String>,
    /// Name of the conformance case of the MLflow toolchain whose project is used.
    #[serde(default)]
    project: Option<String>,
    /// Further objects, applied before the training.
    #[serde(default)]
    objects: Vec<Value>,
    expect: Expect,
    /// What its remedy says, as changes of the manifest. With them the training succeeds.
    #[serde(default)]
    fix: Option<Fix>,
    /// Why the remedy is not tried here.
    #[serde(default)]
    not_fixed: Option<String>,
}

/// Changes of a manifest.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Fix {
    /// Another name of the training.
    #[serde(default)]
    name: Option<String>,
    /// Fields of the spec with their new values.
    #[serde(default)]
    spec: Map<String, Value>,
    /// Fields of the spec that are removed.
    #[serde(default)]
    remove: Vec<String>,
    /// Lines of `train.sh`.
    #[serde(default)]
    script: Option<String>,
    /// Objects that are created or replaced.
    #[serde(default)]
    objects: Vec<Value>,
}

/// The expected end of a case.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Expect {
    end: CaseEnd,
    /// Reason of the condition.
    #[serde(default)]
    reason: Option<String>,
    /// Path of the faulty field.
    #[serde(default)]
    field: Option<String>,
    /// Texts that the message must contain.
    #[serde(default)]
    message: Vec<String>,
    /// Texts that the remedy must contain.
    #[serde(default)]
    remedy: Vec<String>,
    /// Expected fields of the status, by JSON pointer.
    #[serde(default)]
    status: Map<String, Value>,
}

/// The ways in which a case ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum CaseEnd {
    /// Refused before anything is stored.
    Rejected,
    /// `Succeeded` is `Unknown`. The reason names what is missing. The training continues when it appears.
    Waits,
    /// `Succeeded` is `False`.
    Failed,
    /// `Succeeded` is `True`, and a notice in the status reports the fault.
    Succeeded,
}

/// The observed end of a case.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub end: Option<CaseEnd>,
    pub exit_code: Option<i32>,
    pub reason: String,
    pub field: String,
    pub message: String,
    pub remedy: String,
    status: Value,
    /// The output of `legionctl` for people. A failed test prints it.
    said: String,
}

impl Case {
    /// Runs it.
    pub(crate) fn run(&self, bench: &Bench) -> Outcome {
        let file = bench.files().join(format!("{}.yaml", self.name));
        std::fs::write(&file, self.manifest(&bench.files(), None)).unwrap();
        match self.expect.end {
            CaseEnd::Rejected => rejected(bench, &file),
            CaseEnd::Waits => self.waits(bench, &file),
            CaseEnd::Failed | CaseEnd::Succeeded => ended(bench, &file),
        }
    }

    /// Applies the remedy and runs the training again. Returns what is wrong, if it does not succeed.
    pub(crate) fn heal(&self, bench: &Bench, outcome: &Outcome) -> Option<String> {
        let fix = match (&self.fix, &self.not_fixed, self.expect.end) {
            (Some(fix), None, end) if end != CaseEnd::Succeeded => fix,
            (None, Some(_), end) if end != CaseEnd::Succeeded => return None,
            (None, None, CaseEnd::Succeeded) => return None,
            _ => {
                return Some(format!(
                    "{}: a case that fails has either `fix` or `notFixed`",
                    self.name
                ));
            }
        };
        if !fix.changes(&outcome.field) {
            return Some(format!("{}: the fix does not change {}", self.name, outcome.field));
        }
        let file = bench.files().join(format!("{}-fixed.yaml", self.name));
        std::fs::write(&file, self.manifest(&bench.files(), Some(fix))).unwrap();
        let healed = ended(bench, &file);
        let succeeded = healed.end == Some(CaseEnd::Succeeded) && healed.exit_code == Some(0);
        (!succeeded).then(|| {
            format!(
                "{}: the remedy does not help\n    {healed:?}\n{}",
                self.name, healed.said
            )
        })
    }

    /// Whether its training waits without an end.
    pub(crate) fn is_open(&self) -> bool {
        self.expect.end == CaseEnd::Waits
    }

    /// The documents as JSON, which is YAML. With the changes of a fix, if one is given.
    fn manifest(&self, files: &Path, fix: Option<&Fix>) -> String {
        let source = format!("{}-source", self.name);
        let name = fix.and_then(|fix| fix.name.as_ref()).unwrap_or(&self.name);
        let script = fix.and_then(|fix| fix.script.as_deref()).or(self.script.as_deref());
        let data = match &self.project {
            Some(project) => project_files(project),
            None => {
                let script = script.unwrap_or("echo 1 > \"$LEGION_OUTPUT/model/m\"");
                let text = format!("set -eu\nmkdir -p \"$LEGION_OUTPUT/model\"\n{script}\n");
                Map::from_iter([("train.sh".to_owned(), text.into())])
            }
        };
        let mut spec = json!({
            "model": {"name": "bad", "version": "1"},
            "toolchain": "script",
            "entrypoint": "train.sh",
            "source": {"configMap": {"name": source}},
            "timeout": "5m",
        });
        let fields = spec.as_object_mut().unwrap();
        fields.extend(self.spec.clone());
        if let Some(fix) = fix {
            fields.retain(|field, _| !fix.remove.contains(field));
            fields.extend(fix.spec.clone());
        }
        let mut documents =
            vec![json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": source}, "data": data})];
        documents.extend(self.objects.iter().cloned());
        for object in fix.iter().flat_map(|fix| &fix.objects) {
            let same = |other: &Value| ["kind", "metadata"].iter().all(|part| other[part] == object[part]);
            documents.retain(|other| !same(other));
            documents.push(object.clone());
        }
        documents.push(json!({
            "apiVersion": "legion-platform.org/v1alpha1", "kind": "ModelTraining", "metadata": {"name": name}, "spec": spec,
        }));
        let documents: Vec<String> = documents.iter().map(|document| format!("{document:#}")).collect();
        documents.join("\n---\n").replace("{dir}", &files.to_string_lossy())
    }

    /// Runs a training that waits for something that never appears. `local run` names it, and is then interrupted.
    fn waits(&self, bench: &Bench, file: &Path) -> Outcome {
        let reason = self.expect.reason.as_deref().unwrap_or_default();
        let (exit_code, training, said) = bench.run_until(file, &format!("{reason}: "), &self.name);
        Outcome::of(exit_code, training, said)
    }

    /// Returns the differences between the expected and the observed end.
    pub(crate) fn faults(&self, outcome: &Outcome) -> Vec<String> {
        let expect = &self.expect;
        let mut faults = Vec::new();
        let mut check = |holds: bool, what: String| {
            if !holds {
                faults.push(format!("{}: {what}\n    {outcome:?}\n{}", self.name, outcome.said));
            }
        };
        check(
            outcome.end == Some(expect.end),
            format!("does not end as {:?}", expect.end),
        );
        let code = match expect.end {
            CaseEnd::Rejected => 2,
            CaseEnd::Waits => 130,
            CaseEnd::Failed => 1,
            CaseEnd::Succeeded => 0,
        };
        check(outcome.exit_code == Some(code), format!("exit code is not {code}"));
        if expect.end != CaseEnd::Succeeded {
            check(
                !outcome.message.is_empty() && !outcome.remedy.is_empty(),
                "message or remedy is empty".to_owned(),
            );
        }
        if let Some(reason) = &expect.reason {
            check(outcome.reason == *reason, format!("reason is not {reason}"));
        }
        if let Some(field) = &expect.field {
            check(outcome.field == *field, format!("field is not {field}"));
        }
        for text in &expect.message {
            check(
                outcome.message.contains(text.as_str()),
                format!("message does not hold {text:?}"),
            );
        }
        for text in &expect.remedy {
            check(
                outcome.remedy.contains(text.as_str()),
                format!("remedy does not hold {text:?}"),
            );
        }
        for (pointer, value) in &expect.status {
            check(
                outcome.status.pointer(pointer) == Some(value),
                format!("status{pointer} is not {value}"),
            );
        }
        faults
    }
}

impl Fix {
    /// Whether it changes the field at fault, the source behind it, or the objects that it refers to.
    fn changes(&self, field: &str) -> bool {
        let top = field.strip_prefix("spec.").unwrap_or(field);
        let top = top.split(['.', '[']).next().unwrap_or_default();
        let others = self.name.is_some() || self.script.is_some() || !self.objects.is_empty();
        others || self.spec.contains_key(top) || self.remove.iter().any(|removed| removed == top)
    }
}

/// Checks that `validate` and `local run` refuse the manifest with the same words.
fn rejected(bench: &Bench, file: &Path) -> Outcome {
    let validate = bench.legionctl(&["validate", "-o", "json"], file);
    let run = bench.legionctl(&["local", "run", "-o", "json", "-f"], file);
    let findings: Value = serde_json::from_slice(&validate.stdout).unwrap_or_default();
    let finding = &findings[0];
    let text = |name: &str| finding[name].as_str().unwrap_or_default().to_owned();
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    let alike = run.status.code() == validate.status.code() && run.stdout.is_empty() && said.contains(&text("message"));
    Outcome {
        end: (alike && finding.is_object()).then_some(CaseEnd::Rejected),
        exit_code: validate.status.code(),
        reason: text("reason"),
        field: text("field"),
        message: text("message"),
        remedy: text("remedy"),
        status: Value::Null,
        said,
    }
}

/// Runs the training to its end.
fn ended(bench: &Bench, file: &Path) -> Outcome {
    let output = bench.legionctl(
        &["local", "run", "--timeout", "10m", "--quiet", "-o", "json", "-f"],
        file,
    );
    let training = serde_json::from_slice(&output.stdout).unwrap_or_default();
    Outcome::of(
        output.status.code(),
        training,
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

impl Outcome {
    fn of(exit_code: Option<i32>, mut training: Value, said: String) -> Self {
        let condition = succeeded(&training).clone();
        let status = training["status"].take();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let end = match text(&condition["status"]).as_str() {
            "True" => Some(CaseEnd::Succeeded),
            "False" => Some(CaseEnd::Failed),
            "Unknown" => Some(CaseEnd::Waits),
            _ => None,
        };
        let failure = &status["failure"];
        let (field, message, remedy) = match end {
            Some(CaseEnd::Waits) => parts(&text(&condition["message"])),
            // Refused before a pod existed.
            Some(CaseEnd::Failed) if !failure.is_object() => parts(&text(&condition["message"])),
            Some(CaseEnd::Failed) => (
                text(&failure["field"]),
                text(&failure["message"]),
                text(&failure["remedy"]),
            ),
            _ => (String::new(), text(&condition["message"]), String::new()),
        };
        Self {
            end,
            exit_code,
            reason: text(&condition["reason"]),
            field,
            message,
            remedy,
            status,
            said,
        }
    }
}

/// Splits a condition's message, `FIELD: MESSAGE (REMEDY)`, into its parts.
fn parts(text: &str) -> (String, String, String) {
    let (field, rest) = match text.split_once(": ") {
        Some((field, rest)) if field.starts_with("spec.") && !field.contains(' ') => (field, rest),
        _ => ("", text),
    };
    let mut depth = 0;
    let opening = rest.char_indices().rev().find(|(_, c)| {
        depth += match c {
            ')' => 1,
            '(' => -1,
            _ => 0,
        };
        depth == 0
    });
    let (message, remedy) = match opening {
        Some((at, '(')) => (rest[..at].trim_end(), rest[at + 1..].trim_end_matches(')')),
        _ => (rest, ""),
    };
    (field.to_owned(), message.to_owned(), remedy.to_owned())
}

/// Returns the files of a project that the toolchain's own tests use.
fn project_files(case: &str) -> Map<String, Value> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../toolchains/mlflow/conformance")
        .join(case)
        .join("project");
    std::fs::read_dir(&root)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let text = std::fs::read_to_string(entry.path()).unwrap();
            (entry.file_name().into_string().unwrap(), text.into())
        })
        .collect()
}
