//! The conformance cases of a toolchain, and the comparison of a run with what a case expects.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Component, Path, PathBuf},
};

use legion_protocol::{
    events::{MessageLevel, MetricPoint, ToolEvent},
    result::ResultDocument,
};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    exit::{CliError, Code, Result},
    gppi,
};

/// A case: what runs, and what is expected.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Case {
    /// Name of the case's directory.
    #[serde(skip)]
    pub(crate) name: String,
    /// Directory of the project, relative to the case's directory. Default: `project` if it exists, or an empty
    /// project.
    #[serde(default)]
    pub(crate) project: Option<PathBuf>,
    /// Content of `$LEGION_DATA`: the directory `data` of the case, if it exists.
    #[serde(skip)]
    pub(crate) data: Option<PathBuf>,
    /// Every case must say what it shows. Only people read it.
    #[serde(rename = "description")]
    _description: String,
    /// Fields that replace those of the minimal training document.
    #[serde(default)]
    pub(crate) training: Value,
    /// Environment variables of the command.
    #[serde(default)]
    pub(crate) env: BTreeMap<String, String>,
    /// The command receives SIGTERM after its event stream contains this text.
    #[serde(default)]
    pub(crate) term_after: Option<String>,
    pub(crate) expect: Expect,
}

/// Expectations of a case.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Expect {
    exit_code: i32,
    #[serde(default)]
    params: BTreeMap<String, String>,
    #[serde(default)]
    tags: BTreeMap<String, String>,
    #[serde(default)]
    metrics: BTreeMap<String, ExpectedMetric>,
    children: Option<usize>,
    model: Option<bool>,
    #[serde(default)]
    model_files: Vec<PathBuf>,
    signature: Option<bool>,
    #[serde(default)]
    notices: Vec<String>,
    error: Option<ExpectedError>,
    #[serde(default)]
    log: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectedMetric {
    count: Option<usize>,
    last: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectedError {
    reason: String,
    field: Option<String>,
    #[serde(default)]
    contains: Vec<String>,
}

impl Case {
    /// Reads a case's directory.
    pub(crate) fn read(directory: &Path) -> Result<Self> {
        let path = directory.join("case.yaml");
        let text = fs::read_to_string(&path).map_err(|error| CliError::io(path.display(), error))?;
        let mut case: Self = serde_saphyr::from_str(&text).map_err(|error| {
            CliError::new(
                Code::Invalid,
                format!("{}: {}", path.display(), error.to_string().trim_end()),
            )
            .remedy("docs/reference/toolchain-protocol.md#conformance describes the fields")
        })?;
        case.name = directory
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        case.project = match case.project {
            Some(named) => {
                let project = directory.join(&named);
                if !project.is_dir() {
                    return Err(CliError::new(
                        Code::Invalid,
                        format!("{}: project: {} is not a directory", path.display(), named.display()),
                    )
                    .remedy("write a path relative to the directory of the case"));
                }
                Some(project)
            }
            None => Some(directory.join("project")).filter(|project| project.is_dir()),
        };
        case.data = Some(directory.join("data")).filter(|data| data.is_dir());
        Ok(case)
    }
}

/// Results of a run of a toolchain.
#[derive(Debug, Clone, Default)]
pub(crate) struct Observed {
    /// Exit code of the command, or `None` if a signal ended it.
    pub(crate) exit_code: Option<i32>,
    /// Path of `$LEGION_OUTPUT`.
    pub(crate) output: PathBuf,
    /// Format of the toolchain. It counts if the result names none.
    pub(crate) format: String,
    pub(crate) events: Vec<u8>,
    /// The result document, if the toolchain wrote one.
    pub(crate) result: Option<Vec<u8>>,
    /// Standard output and standard error.
    pub(crate) log: String,
}

/// The main run's part of the event stream.
#[derive(Default)]
struct Stream {
    params: BTreeMap<String, String>,
    tags: BTreeMap<String, String>,
    metrics: BTreeMap<String, Vec<f64>>,
    children: BTreeSet<String>,
    notices: BTreeSet<String>,
}

/// Returns every difference from the protocol and from the expectations of the case.
#[must_use]
pub(crate) fn compare(expect: &Expect, observed: &Observed) -> Vec<String> {
    let mut faults = Vec::new();
    let mut stream = read_stream(&observed.events, &mut faults);
    let result = observed.result.as_deref().and_then(|bytes| {
        ResultDocument::parse(bytes)
            .map_err(|error| faults.push(format!("the result document {error}")))
            .ok()
    });
    if let Some(result) = &result {
        stream
            .notices
            .extend(result.notices.iter().map(|notice| notice.reason.clone()));
        protocol(result, observed, &mut faults);
    }
    match observed.exit_code {
        Some(code) if code == expect.exit_code => {}
        Some(code) => faults.push(format!("exit code {code}, expected {}", expect.exit_code)),
        None => faults.push(format!("ended by a signal, expected exit code {}", expect.exit_code)),
    }
    pairs("parameter", &expect.params, &stream.params, &mut faults);
    pairs("tag", &expect.tags, &stream.tags, &mut faults);
    metrics(expect, &stream, &mut faults);
    if let Some(children) = expect.children.filter(|children| *children != stream.children.len()) {
        faults.push(format!("{} child runs, expected {children}", stream.children.len()));
    }
    for notice in expect.notices.iter().filter(|notice| !stream.notices.contains(*notice)) {
        faults.push(format!("no notice {notice}; there were {:?}", stream.notices));
    }
    model(expect, result.as_ref(), observed, &mut faults);
    if observed.exit_code == Some(0) {
        published(result.as_ref(), observed, &mut faults);
    }
    error(expect, result.as_ref(), &mut faults);
    for text in expect.log.iter().filter(|text| !observed.log.contains(*text)) {
        faults.push(format!("the log does not contain {text:?}"));
    }
    faults
}

fn read_stream(events: &[u8], faults: &mut Vec<String>) -> Stream {
    let mut stream = Stream::default();
    // A last line without a line feed is incomplete: its writer ended. It is ignored.
    let complete = events.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    for (index, line) in events[..complete].split_inclusive(|byte| *byte == b'\n').enumerate() {
        match ToolEvent::parse(&line[..line.len() - 1]) {
            Ok(ToolEvent::Metric(MetricPoint {
                name,
                value,
                child: None,
                ..
            })) => {
                stream.metrics.entry(name).or_default().push(value);
            }
            Ok(ToolEvent::Param(pair)) if pair.child.is_none() => {
                stream.params.insert(pair.name, pair.value);
            }
            Ok(ToolEvent::Tag(pair)) if pair.child.is_none() => {
                stream.tags.insert(pair.name, pair.value);
            }
            Ok(ToolEvent::Child(child)) => {
                stream.children.insert(child.id);
            }
            Ok(ToolEvent::Message(message)) if message.level == MessageLevel::Notice => {
                stream.notices.extend(message.reason)
            }
            Ok(_) => {}
            Err(problem) => faults.push(format!("line {} of the event stream {problem}", index + 1)),
        }
    }
    stream
}

/// Checks the rules of the protocol that hold for every case.
fn protocol(result: &ResultDocument, observed: &Observed, faults: &mut Vec<String>) {
    if let Some(error) = &result.error {
        if error.reason.is_empty() || error.message.is_empty() {
            faults.push("the error of the result document has no reason or no message".to_owned());
        }
        if observed.exit_code == Some(0) {
            faults.push("exit code 0 with an error in the result document".to_owned());
        }
    }
    let model = result.model.iter().map(|model| &model.path);
    for path in model.chain(result.files.iter().map(|file| &file.path)) {
        if let Err(problem) = below(&observed.output, Path::new(path)) {
            faults.push(format!("path {path:?} of the result document {problem}"));
        }
    }
}

/// Checks the model that would be published: its file types and the rules of its format.
fn published(result: Option<&ResultDocument>, observed: &Observed, faults: &mut Vec<String>) {
    let described = result.and_then(|result| result.model.as_ref());
    let path = described.map_or("model", |model| &model.path);
    // A path outside the output has been reported already.
    let Ok(directory) = below(&observed.output, Path::new(path)) else {
        return;
    };
    if !directory.is_dir() {
        if described.is_some() {
            faults.push(format!(
                "the result document names the model {path:?}, which is no directory"
            ));
        }
        return;
    }
    faults.extend(special_files(&directory).into_iter().map(|(file, kind)| {
        let file = file.strip_prefix(&observed.output).unwrap_or(&file);
        format!(
            "{} is a {kind}: a model must contain only regular files and directories",
            file.display()
        )
    }));
    let format = described.map(|model| &model.format).filter(|format| !format.is_empty());
    if format.unwrap_or(&observed.format) == gppi::FORMAT {
        faults.extend(
            gppi::validate(&directory)
                .into_iter()
                .map(|problem| format!("GPPI: {problem}")),
        );
    }
}

/// Returns everything below a directory that is neither a regular file nor a directory.
fn special_files(directory: &Path) -> Vec<(PathBuf, &'static str)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(special_files(&entry.path())),
            Ok(kind) if kind.is_symlink() => found.push((entry.path(), "link")),
            Ok(kind) if !kind.is_file() => found.push((entry.path(), "special file")),
            _ => {}
        }
    }
    found.sort();
    found
}

/// Returns the path below the root. Fails if it leaves the root or contains a link.
fn below(root: &Path, path: &Path) -> std::result::Result<PathBuf, &'static str> {
    let mut found = root.to_owned();
    for component in path.components() {
        match component {
            Component::Normal(name) => found.push(name),
            Component::CurDir => {}
            _ => return Err("leaves LEGION_OUTPUT"),
        }
        if fs::symlink_metadata(&found).is_ok_and(|meta| meta.is_symlink()) {
            return Err("contains a link");
        }
    }
    Ok(found)
}

fn pairs(what: &str, expected: &BTreeMap<String, String>, found: &BTreeMap<String, String>, faults: &mut Vec<String>) {
    for (name, value) in expected {
        match found.get(name) {
            Some(found) if found == value => {}
            Some(found) => faults.push(format!("{what} {name:?} is {found:?}, expected {value:?}")),
            None => faults.push(format!(
                "no {what} {name:?}; there were {:?}",
                found.keys().collect::<Vec<_>>()
            )),
        }
    }
}

fn metrics(expect: &Expect, stream: &Stream, faults: &mut Vec<String>) {
    for (name, expected) in &expect.metrics {
        let Some(values) = stream.metrics.get(name) else {
            faults.push(format!(
                "no metric {name:?}; there were {:?}",
                stream.metrics.keys().collect::<Vec<_>>()
            ));
            continue;
        };
        if let Some(count) = expected.count.filter(|count| *count != values.len()) {
            faults.push(format!("metric {name:?} has {} points, expected {count}", values.len()));
        }
        let (Some(text), Some(last)) = (&expected.last, values.last()) else {
            continue;
        };
        // An expected NaN matches only NaN.
        let equal = text
            .parse::<f64>()
            .is_ok_and(|value| value == *last || (value.is_nan() && last.is_nan()));
        if !equal {
            faults.push(format!("metric {name:?} ends with {last}, expected {text}"));
        }
    }
}

fn model(expect: &Expect, result: Option<&ResultDocument>, observed: &Observed, faults: &mut Vec<String>) {
    let described = result.and_then(|result| result.model.as_ref());
    let path = described.map_or("model", |model| &model.path);
    let directory = below(&observed.output, Path::new(path)).ok();
    let present = directory.as_deref().is_some_and(holds_a_file);
    if let Some(wanted) = expect.model.filter(|wanted| *wanted != present) {
        let (is, should) = if wanted { ("no", "one") } else { ("a", "none") };
        faults.push(format!("there is {is} model at {path:?}, expected {should}"));
    }
    for file in &expect.model_files {
        if !directory
            .as_ref()
            .is_some_and(|directory| directory.join(file).exists())
        {
            faults.push(format!("the model has no {}", file.display()));
        }
    }
    if let Some(signature) = expect.signature {
        let found = described.and_then(|model| model.signature);
        if found != Some(signature) {
            faults.push(format!("signature is {found:?}, expected {signature}"));
        }
    }
}

fn holds_a_file(directory: &Path) -> bool {
    let Ok(entries) = fs::read_dir(directory) else {
        return false;
    };
    entries.flatten().any(|entry| {
        entry
            .file_type()
            .is_ok_and(|kind| kind.is_file() || (kind.is_dir() && holds_a_file(&entry.path())))
    })
}

fn error(expect: &Expect, result: Option<&ResultDocument>, faults: &mut Vec<String>) {
    let found = result.and_then(|result| result.error.as_ref());
    match (&expect.error, found) {
        (None, None) => {}
        (None, Some(found)) => faults.push(format!(
            "an error {} that was not expected: {}",
            found.reason, found.message
        )),
        (Some(expected), None) => faults.push(format!("no error in the result document, expected {}", expected.reason)),
        (Some(expected), Some(found)) => {
            if found.reason != expected.reason {
                faults.push(format!("error {}, expected {}", found.reason, expected.reason));
            }
            if let Some(field) = expected.field.as_ref().filter(|field| **field != found.field) {
                faults.push(format!("the error names field {:?}, expected {field:?}", found.field));
            }
            let text = format!("{} {}", found.message, found.remedy);
            for part in expected.contains.iter().filter(|part| !text.contains(*part)) {
                faults.push(format!("the error does not contain {part:?}: {text}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expect(yaml: &str) -> Expect {
        serde_saphyr::from_str(yaml).unwrap()
    }

    fn observed(output: &Path, exit_code: i32, events: &str, result: Option<&str>) -> Observed {
        Observed {
            exit_code: Some(exit_code),
            output: output.to_owned(),
            format: "files/v1".to_owned(),
            events: events.as_bytes().to_vec(),
            result: result.map(|text| text.as_bytes().to_vec()),
            log: "said something".to_owned(),
        }
    }

    #[test]
    fn a_run_with_the_expected_results_has_no_fault() {
        let output = tempfile::tempdir().unwrap();
        fs::create_dir(output.path().join("m")).unwrap();
        fs::write(output.path().join("m/f"), "x").unwrap();
        let events = "{\"type\":\"param\",\"name\":\"c\",\"value\":\"1\"}\n{\"type\":\"metric\",\"name\":\"l\",\"value\":NaN}\n{\"type\":\"child\",\"id\":\"a\"}\n{\"torn";
        let result = r#"{"protocol":1,"model":{"path":"m","signature":true},"notices":[{"reason":"X","message":"m"}]}"#;
        let expect = expect(
            "{exitCode: 0, params: {c: \"1\"}, metrics: {l: {count: 1, last: NaN}}, children: 1, model: true, modelFiles: [f], signature: true, notices: [X], log: [something]}",
        );
        assert_eq!(
            compare(&expect, &observed(output.path(), 0, events, Some(result))),
            [""; 0]
        );
    }

    #[test]
    fn every_difference_is_reported() {
        let output = tempfile::tempdir().unwrap();
        let expect = expect(
            "{exitCode: 2, params: {c: \"1\"}, tags: {t: x}, metrics: {l: {count: 2, last: \"0.5\"}, n: {}}, children: 1, model: true, notices: [X], error: {reason: R, field: f, contains: [word]}, log: [other]}",
        );
        let events = "{\"type\":\"param\",\"name\":\"c\",\"value\":\"2\"}\n{\"type\":\"metric\",\"name\":\"l\",\"value\":1}\nnonsense\n";
        let result = r#"{"protocol":1,"error":{"reason":"S","field":"g","message":"m"}}"#;
        let faults = compare(&expect, &observed(output.path(), 0, events, Some(result))).join("\n");
        for part in [
            "line 3 of the event stream",
            "exit code 0 with an error",
            "exit code 0, expected 2",
            "parameter \"c\"",
            "no tag \"t\"",
            "1 points, expected 2",
            "ends with 1, expected 0.5",
            "no metric \"n\"",
            "0 child runs",
            "there is no model",
            "no notice X",
            "error S, expected R",
            "field \"g\"",
            "\"word\"",
            "\"other\"",
        ] {
            assert!(faults.contains(part), "{part:?} is not in:\n{faults}");
        }
    }

    #[test]
    fn a_model_must_contain_only_what_an_artifact_may_contain() {
        let output = tempfile::tempdir().unwrap();
        fs::create_dir_all(output.path().join("m/deep")).unwrap();
        fs::write(output.path().join("m/f"), "x").unwrap();
        std::os::unix::fs::symlink("../f", output.path().join("m/deep/link")).unwrap();
        let result = r#"{"protocol":1,"model":{"path":"m","format":"gppi/v1"}}"#;
        let expected = expect("{exitCode: 0}");
        let faults = compare(&expected, &observed(output.path(), 0, "", Some(result))).join("\n");
        assert!(faults.contains("m/deep/link is a link"), "{faults}");
        assert!(
            faults.contains("GPPI: legion.model.yaml: there is no such file"),
            "{faults}"
        );
        let missing = r#"{"protocol":1,"model":{"path":"n"}}"#;
        let faults = compare(&expected, &observed(output.path(), 0, "", Some(missing))).join("\n");
        assert!(faults.contains("the model \"n\", which is no directory"), "{faults}");
    }

    #[test]
    fn a_case_may_share_a_project_and_a_missing_project_is_reported() {
        let root = tempfile::tempdir().unwrap();
        let case = root.path().join("case");
        fs::create_dir_all(&case).unwrap();
        fs::create_dir(root.path().join("shared")).unwrap();
        let write = |project: &str| {
            let text = format!("description: d\nproject: {project}\nexpect: {{exitCode: 0}}\n");
            fs::write(case.join("case.yaml"), text).unwrap();
        };
        write("../shared");
        assert_eq!(Case::read(&case).unwrap().project, Some(case.join("../shared")));
        write("../missing");
        let error = Case::read(&case).unwrap_err();
        assert!(
            error.message.contains("project: ../missing is not a directory"),
            "{error}"
        );
    }

    #[test]
    fn a_model_must_not_be_a_link_or_outside_the_output() {
        let output = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc", output.path().join("m")).unwrap();
        for path in ["m", "../x", "/etc"] {
            let result = format!("{{\"protocol\":1,\"model\":{{\"path\":\"{path}\"}}}}");
            let faults = compare(
                &expect("{exitCode: 0, model: false}"),
                &observed(output.path(), 0, "", Some(&result)),
            );
            assert!(!faults.is_empty(), "{path}");
        }
    }
}
