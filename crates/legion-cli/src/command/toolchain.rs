//! `legionctl toolchain`: runs the conformance cases of a toolchain (`docs/reference/toolchain-protocol.md`). It needs
//! neither the operator nor a cluster.

use std::{
    fs,
    io::Write,
    num::NonZeroUsize,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube_embed::node::images::ImageEnvironment;
use legion_plan::schema::Schema;
use legion_protocol::{PROTOCOL_VERSION, env as names, training::TrainingDocument};
use rustix::{
    io::Errno,
    process::{Pid, Signal, kill_process, kill_process_group},
};
use serde_json::{Map, Value, json};
use tokio::process::{Child, Command};

use crate::{
    conformance::{Case, Observed, compare},
    exit::{CliError, Code, Result},
    local::{CacheLock, Environment, PythonEnvironment, Toolchain, cache},
    log_lines, output,
};

/// Maximum run time of a case.
const CASE_TIMEOUT: Duration = Duration::from_secs(300);

/// Runs the cases with `filter` in their names, `jobs` of them in parallel. The default of `jobs` is the number of
/// processors.
pub(crate) async fn test(
    directory: &Path,
    filter: Option<&str>,
    jobs: Option<NonZeroUsize>,
    out: &mut dyn Write,
) -> Result<Code> {
    let toolchain = Toolchain::read(directory)?;
    let problems = legion_api::validate::object(&toolchain.manifest, None);
    if let Some(problem) = problems.first() {
        return Err(CliError::new(
            Code::Invalid,
            format!("{}: {}", toolchain.directory.join("toolchain.yaml").display(), problem),
        ));
    }
    let cases = cases(&toolchain, filter)?;
    let _in_use = CacheLock::shared(&cache())?;
    let environment = environment(&toolchain).await?;
    let began = Instant::now();
    let mut failed = 0;
    let jobs = jobs
        .or(thread::available_parallelism().ok())
        .map_or(1, NonZeroUsize::get);
    let mut ended = stream::iter(&cases)
        .map(|case| {
            let (toolchain, environment) = (&toolchain, &environment);
            async move {
                let started = Instant::now();
                let faults = run(toolchain, environment, case).await?;
                Ok::<_, CliError>((case, started.elapsed(), faults))
            }
        })
        .buffered(jobs);
    while let Some((case, time, faults)) = ended.try_next().await? {
        let verdict = if faults.is_empty() { "ok" } else { "FAILED" };
        output::line(
            out,
            format_args!("case {} ... {verdict} ({:.1} s)", case.name, time.as_secs_f64()),
        )?;
        for fault in &faults {
            output::line(out, format_args!("  {fault}"))?;
        }
        failed += usize::from(!faults.is_empty());
    }
    output::line(
        out,
        format_args!(
            "\ntoolchain {}: {} passed; {failed} failed; finished in {:.1} s",
            toolchain.name(),
            cases.len() - failed,
            began.elapsed().as_secs_f64()
        ),
    )?;
    Ok(if failed == 0 { Code::Ok } else { Code::Failed })
}

fn cases(toolchain: &Toolchain, filter: Option<&str>) -> Result<Vec<Case>> {
    let root = toolchain.directory.join("conformance");
    let entries = fs::read_dir(&root).map_err(|error| {
        CliError::new(Code::NotFound, format!("{}: {error}", root.display()))
            .remedy("create a case: docs/reference/toolchain-protocol.md#conformance describes the files")
    })?;
    let mut cases = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| CliError::io(root.display(), error))?.path();
        if path.join("case.yaml").is_file() {
            cases.push(Case::read(&path)?);
        }
    }
    cases.retain(|case| filter.is_none_or(|filter| case.name.contains(filter)));
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    if cases.is_empty() {
        return Err(CliError::new(
            Code::NotFound,
            format!("{}: no case to run", root.display()),
        ));
    }
    Ok(cases)
}

async fn environment(toolchain: &Toolchain) -> Result<ImageEnvironment> {
    let mut base = ImageEnvironment::system();
    base.path.splice(
        0..0,
        toolchain.local.path.iter().map(|path| toolchain.directory.join(path)),
    );
    base.env = toolchain.local.env.clone().into_iter().collect();
    base.env
        .push((names::CACHE.to_owned(), toolchain.cache(&cache()).display().to_string()));
    if toolchain.local.environment == Environment::default() {
        return Ok(base);
    }
    let python = PythonEnvironment::new(toolchain, base, cache());
    let prepared = python
        .create(&|step| {
            // Progress is optional: a closed standard error is no failure.
            let _ = writeln!(std::io::stderr(), "{step}");
        })
        .await
        .map_err(|error| CliError::new(Code::Other, error))?;
    Ok(prepared.environment)
}

/// Runs one case and returns its faults.
async fn run(toolchain: &Toolchain, environment: &ImageEnvironment, case: &Case) -> Result<Vec<String>> {
    let failed = |error: std::io::Error| CliError::io(format!("case {}", case.name), error);
    let workspace = tempfile::Builder::new()
        .prefix("legion-case-")
        .tempdir()
        .map_err(failed)?;
    // Without links in it: a resolved path would seem to be outside the temporary directory.
    let root = workspace.path().canonicalize().map_err(failed)?;
    let place = |name: &str| root.join(name);
    let document = document(toolchain, case)?;
    fill(&root, case, &document)?;
    let before = snapshot(&toolchain.directory).map_err(failed)?;
    let mut child = start(&root, toolchain, environment, case, &document)?;
    let _group = ProcessGroup(process_id(&child));
    let ended = async {
        if let Some(text) = &case.term_after {
            terminate(&mut child, &place("run/events.jsonl"), text.as_bytes()).await?;
        }
        child.wait().await
    };
    let Ok(status) = tokio::time::timeout(CASE_TIMEOUT, ended).await else {
        return Ok(vec![format!("it has not ended after {} s", CASE_TIMEOUT.as_secs())]);
    };
    let status = status.map_err(failed)?;
    let observed = Observed {
        // 128 plus the signal, as in a shell and in the status of a training.
        exit_code: status.code().or_else(|| status.signal().map(|signal| 128 + signal)),
        output: place("work/output"),
        format: document.format.clone(),
        events: fs::read(place("run/events.jsonl")).unwrap_or_default(),
        result: fs::read(place("run/result.json")).ok(),
        log: String::from_utf8_lossy(&fs::read(place("run/log")).map_err(failed)?).into_owned(),
    };
    let mut faults = compare(&case.expect, &observed);
    if snapshot(&toolchain.directory).map_err(failed)? != before {
        faults.push(format!(
            "files below {} changed while the case ran",
            toolchain.directory.display()
        ));
    }
    if !faults.is_empty() {
        let lines = log_lines::lines(observed.log.as_bytes());
        faults.extend(
            lines[lines.len().saturating_sub(15)..]
                .iter()
                .map(|line| format!("| {line}")),
        );
    }
    Ok(faults)
}

/// Creates the directories of a case, and the files that a toolchain finds in them.
fn fill(root: &Path, case: &Case, document: &TrainingDocument) -> Result<()> {
    let failed = |error: std::io::Error| CliError::io(format!("case {}", case.name), error);
    for name in [
        "work/source",
        "work/data",
        "work/output",
        "work/home",
        "work/tmp",
        "run",
    ] {
        fs::create_dir_all(root.join(name)).map_err(failed)?;
    }
    if let Some(project) = &case.project {
        copy(project, &root.join("work/source")).map_err(failed)?;
    }
    if let Some(data) = &case.data {
        copy(data, &root.join("work/data")).map_err(failed)?;
    }
    let text = serde_json::to_vec_pretty(document).map_err(|error| CliError::io("JSON", error))?;
    fs::write(root.join("run/training.json"), text).map_err(failed)?;
    fs::write(root.join("run/events.jsonl"), "").map_err(failed)
}

/// Starts the command of a toolchain in the directories of a case.
fn start(
    root: &Path,
    toolchain: &Toolchain,
    environment: &ImageEnvironment,
    case: &Case,
    document: &TrainingDocument,
) -> Result<Child> {
    let failed = |error: std::io::Error| CliError::io(format!("case {}", case.name), error);
    let place = |name: &str| root.join(name);
    let (program, arguments) = command(toolchain, document, environment)?;
    let log = fs::File::create(place("run/log")).map_err(failed)?;
    let errors = log.try_clone().map_err(failed)?;
    Command::new(&program)
        .args(arguments)
        .current_dir(place("work/source"))
        .env_clear()
        .envs(variables(toolchain, environment, case))
        .env(names::PROTOCOL, PROTOCOL_VERSION.to_string())
        .env(names::RUN, place("run"))
        .env(names::TRAINING, place("run/training.json"))
        .env(names::EVENTS, place("run/events.jsonl"))
        .env(names::RESULT, place("run/result.json"))
        .env(names::WORK, place("work"))
        .env(names::SOURCE, place("work/source"))
        .env(names::DATA, place("work/data"))
        .env(names::OUTPUT, place("work/output"))
        .env("HOME", place("work/home"))
        .env("TMPDIR", place("work/tmp"))
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        // As in a pod: a toolchain may send a signal to its whole process group.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| CliError::io(program.display(), error))
}

/// Sends SIGTERM after the event stream contains the text. A stopped training gets the same signal.
async fn terminate(child: &mut Child, events: &Path, text: &[u8]) -> std::io::Result<()> {
    let mut interval = tokio::time::interval(Duration::from_millis(20));
    loop {
        interval.tick().await;
        // If the command has ended on its own, its exit code decides.
        if child.try_wait()?.is_some() {
            return Ok(());
        }
        if fs::read(events)?.windows(text.len()).any(|window| window == text) {
            break;
        }
    }
    match process_id(child).map(|pid| kill_process(pid, Signal::TERM)) {
        Some(Err(error)) if error != Errno::SRCH => Err(error.into()),
        _ => Ok(()),
    }
}

fn process_id(child: &Child) -> Option<Pid> {
    child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw)
}

/// The process group of a case. Remaining processes are killed on drop.
struct ProcessGroup(Option<Pid>);

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // Usually no process is left. That is no error.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

/// Returns the training document of a case: a minimal one with the fields of the case over it.
fn document(toolchain: &Toolchain, case: &Case) -> Result<TrainingDocument> {
    let mut document = json!({
        "protocol": PROTOCOL_VERSION, "name": "conformance", "namespace": "default",
        "uid": "00000000-0000-4000-8000-000000000000", "runId": "00c0ffee", "sequence": 1, "attempt": 1,
        "pod": "conformance-00c0ffee-1", "model": {"name": "conformance", "version": "1"},
        "format": toolchain.manifest["spec"]["format"], "entrypoint": "main", "source": {"kind": "ConfigMap"},
    });
    let wrong = |text: String| CliError::new(Code::Invalid, format!("case {}: training{text}", case.name));
    if let (Some(document), Some(over)) = (document.as_object_mut(), case.training.as_object()) {
        let known = document_fields();
        if let Some(name) = over.keys().find(|name| !known.contains(name)) {
            return Err(wrong(format!(".{name}: is not a field of the training document"))
                .remedy(format!("use one of its fields: {}", known.join(", "))));
        }
        document.extend(over.clone());
    }
    let schema = &toolchain.manifest["spec"]["arguments"];
    if !schema.is_null() {
        let schema = Schema::compile(schema)
            .map_err(|error| CliError::new(Code::Invalid, format!("spec.arguments: {error}")))?;
        let given = document["arguments"].as_object().cloned().unwrap_or_else(Map::new);
        let arguments = Value::Object(schema.with_defaults(&given));
        if let Some(found) = schema.violations(&arguments).first() {
            let dot = if found.path.is_empty() { "" } else { "." };
            return Err(wrong(format!(".arguments{dot}{}: {}", found.path, found.message))
                .remedy("write arguments that the schema accepts: spec.arguments in toolchain.yaml; the operator rejects others"));
        }
        document["arguments"] = arguments;
    }
    let document: TrainingDocument = serde_json::from_value(document).map_err(|error| wrong(format!(": {error}")))?;
    if !document.args.is_empty() && toolchain.manifest["spec"]["acceptsArgs"] != true {
        return Err(wrong(".args: the toolchain accepts none".to_owned())
            .remedy("remove it from the case, or set acceptsArgs in toolchain.yaml"));
    }
    Ok(document)
}

/// Returns the names of the training document's fields.
fn document_fields() -> Vec<String> {
    let schemas = legion_protocol::schemas();
    let document = schemas.iter().find(|(name, _)| *name == "training");
    let fields = document.and_then(|(_, schema)| schema["properties"].as_object());
    fields.into_iter().flat_map(Map::keys).cloned().collect()
}

fn command(
    toolchain: &Toolchain,
    document: &TrainingDocument,
    environment: &ImageEnvironment,
) -> Result<(PathBuf, Vec<String>)> {
    let mut words: Vec<String> = serde_json::from_value(toolchain.manifest["spec"]["command"].clone())
        .map_err(|error| CliError::new(Code::Invalid, format!("spec.command: {error}")))?;
    if toolchain.manifest["spec"]["acceptsArgs"] == true {
        words.extend(document.args.iter().cloned());
    }
    let name = words.remove(0);
    let program = environment
        .path
        .iter()
        .map(|directory| directory.join(&name))
        .find(|path| path.is_file())
        .ok_or_else(|| {
            let places: Vec<String> = environment.path.iter().map(|path| path.display().to_string()).collect();
            CliError::new(
                Code::NotFound,
                format!("spec.command: {name} is in none of {}", places.join(", ")),
            )
        })?;
    Ok((program, words))
}

fn variables(toolchain: &Toolchain, environment: &ImageEnvironment, case: &Case) -> Vec<(String, String)> {
    let path: Vec<String> = environment.path.iter().map(|path| path.display().to_string()).collect();
    let mut variables = vec![("PATH".to_owned(), path.join(":"))];
    variables.extend(environment.env.clone());
    for variable in toolchain.manifest["spec"]["env"].as_array().into_iter().flatten() {
        if let (Some(name), Some(value)) = (variable["name"].as_str(), variable["value"].as_str()) {
            variables.push((name.to_owned(), value.to_owned()));
        }
    }
    variables.extend(case.env.clone());
    variables
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Returns path, size and time of every file, except the bytecode that Python writes next to the modules it loads.
fn snapshot(root: &Path) -> std::io::Result<Vec<(PathBuf, u64, Option<std::time::SystemTime>)>> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_name() == "__pycache__" {
                continue;
            }
            let meta = entry.metadata()?;
            if meta.is_dir() {
                open.push(entry.path());
            } else {
                found.push((entry.path(), meta.len(), meta.modified().ok()));
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const PROTOCOL: &str = include_str!("../../../../docs/reference/toolchain-protocol.md");

    /// Returns the files of the smallest toolchain on the page. The paragraph before a code block names its file.
    fn smallest() -> Vec<(String, String)> {
        let (_, section) = PROTOCOL.split_once("## The smallest one").unwrap();
        let (section, _) = section.split_once("\n## ").unwrap();
        let mut parts = section.split("\n```");
        let mut before = parts.next().unwrap();
        let mut files = Vec::new();
        while let (Some(block), Some(after)) = (parts.next(), parts.next()) {
            let paragraph = before.trim().rsplit("\n\n").next().unwrap();
            let name = paragraph.split('`').find(|text| text.starts_with("mean/")).unwrap();
            let (_, text) = block.split_once('\n').unwrap();
            files.push((name.to_owned(), format!("{text}\n")));
            before = after;
        }
        files
    }

    fn lay_out(root: &Path) -> PathBuf {
        for (name, text) in smallest() {
            let path = root.join(&name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            if name.contains("/bin/") {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            }
        }
        root.join("mean")
    }

    fn case(toolchain: &Path, text: &str) {
        fs::write(toolchain.join("conformance/second-column/case.yaml"), text).unwrap();
    }

    async fn outcome(toolchain: &Path) -> (Code, String) {
        let mut out = Vec::new();
        let code = test(toolchain, None, None, &mut out).await.unwrap();
        (code, String::from_utf8(out).unwrap())
    }

    #[tokio::test]
    async fn the_smallest_toolchain_of_the_page_conforms_to_the_protocol() {
        let root = tempfile::tempdir().unwrap();
        let toolchain = lay_out(root.path());
        let (code, text) = outcome(&toolchain).await;
        assert_eq!(code, Code::Ok, "{text}");
        assert!(text.contains("toolchain mean: 1 passed; 0 failed"), "{text}");

        case(
            &toolchain,
            "{description: d, training: {entrypoint: no.txt}, expect: {exitCode: 2, model: false, error: {reason: NoSuchFile, field: spec.entrypoint, contains: [no.txt]}}}",
        );
        let (code, text) = outcome(&toolchain).await;
        assert_eq!(code, Code::Ok, "{text}");
    }

    #[tokio::test]
    async fn faults_are_listed_below_the_case() {
        let root = tempfile::tempdir().unwrap();
        let toolchain = lay_out(root.path());
        case(
            &toolchain,
            "{description: d, training: {entrypoint: numbers.txt}, expect: {exitCode: 0, metrics: {mean: {count: 3}}}}",
        );
        let (code, text) = outcome(&toolchain).await;
        assert_eq!(code, Code::Failed);
        assert!(text.contains("metric \"mean\" has 2 points, expected 3"), "{text}");
    }

    #[rstest::rstest]
    #[case::field("{entryPoint: x}", "training.entryPoint: is not a field", "entrypoint")]
    #[case::argument("{arguments: {column: 0}}", "training.arguments.column: ", "spec.arguments")]
    #[case::args("{args: [x]}", "training.args: the toolchain accepts none", "acceptsArgs")]
    #[case::kind("{model: x}", "training: ", "")]
    #[tokio::test]
    async fn a_case_that_the_operator_would_reject_is_an_error_with_its_field(
        #[case] training: &str,
        #[case] message: &str,
        #[case] remedy: &str,
    ) {
        let root = tempfile::tempdir().unwrap();
        let toolchain = lay_out(root.path());
        case(
            &toolchain,
            &format!("{{description: d, training: {training}, expect: {{exitCode: 0}}}}"),
        );
        let error = test(&toolchain, None, None, &mut Vec::new()).await.unwrap_err();
        assert_eq!(error.code, Code::Invalid);
        assert!(
            error.message.starts_with(&format!("case second-column: {message}")),
            "{error}"
        );
        assert!(error.remedy.unwrap_or_default().contains(remedy));
    }

    #[tokio::test]
    async fn a_signal_has_the_exit_code_of_a_shell_and_remaining_processes_are_killed() {
        let root = tempfile::tempdir().unwrap();
        let toolchain = lay_out(root.path());
        let left = root.path().join("left");
        let script = format!(
            "#!/bin/sh\nsleep 600 & echo $! >{}\necho '{{\"type\":\"tag\",\"name\":\"ready\",\"value\":\"\"}}' >>\"$LEGION_EVENTS\"\nwait\n",
            left.display()
        );
        fs::write(toolchain.join("bin/mean"), script).unwrap();
        case(
            &toolchain,
            "{description: d, termAfter: ready, expect: {exitCode: 143}}",
        );
        let (code, text) = outcome(&toolchain).await;
        assert_eq!(code, Code::Ok, "{text}");
        let pid = Pid::from_raw(fs::read_to_string(left).unwrap().trim().parse().unwrap()).unwrap();
        // Init may not have reaped it yet: a zombie counts as ended.
        let deadline = Instant::now() + Duration::from_secs(60);
        while rustix::process::test_kill_process(pid).is_ok() {
            let state = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
            if state.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')) {
                break;
            }
            assert!(Instant::now() < deadline, "still running: {state}");
            tokio::task::yield_now().await;
        }
    }
}
