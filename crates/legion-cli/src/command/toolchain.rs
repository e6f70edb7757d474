//! `legionctl toolchain test`: the conformance cases of `docs/toolchain-protocol.md`, without operator or cluster.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use kube_embed::node::images::ImageEnvironment;
use legion_plan::schema::Schema;
use legion_protocol::{PROTOCOL_VERSION, env as names, training::TrainingDocument};
use serde_json::{Map, Value, json};
use tokio::process::Command;

use crate::{
    conformance::{Case, Observed, judge},
    exit::{CliError, Code, Result},
    local::{Environment, PythonEnvironment, Toolchain, cache},
    output,
};

/// How long a case may take.
const CASE_TIMEOUT: Duration = Duration::from_secs(300);

/// Runs the cases whose names contain `filter`.
pub async fn test(directory: &Path, filter: Option<&str>, out: &mut dyn Write) -> Result<Code> {
    let toolchain = Toolchain::read(directory)?;
    let problems = legion_api::validate::object(&toolchain.manifest, None);
    if let Some(problem) = problems.first() {
        return Err(CliError::new(
            Code::Invalid,
            format!("{}: {}", toolchain.directory.join("toolchain.yaml").display(), problem),
        ));
    }
    let cases = cases(&toolchain, filter)?;
    let environment = environment(&toolchain).await?;
    let began = Instant::now();
    let mut failed = 0;
    for case in &cases {
        let started = Instant::now();
        let faults = run(&toolchain, &environment, case).await?;
        let verdict = if faults.is_empty() { "ok" } else { "FAILED" };
        output::line(
            out,
            format_args!(
                "case {} ... {verdict} ({:.1} s)",
                case.name,
                started.elapsed().as_secs_f64()
            ),
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
            .remedy("write a case: docs/toolchain-protocol.md#conformance describes the files")
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
    if toolchain.local.environment == Environment::default() {
        return Ok(base);
    }
    let python = PythonEnvironment::new(toolchain, base, cache());
    let prepared = python
        .make(&|step| {
            // Progress is for people who look on; nobody has to.
            let _ = writeln!(std::io::stderr(), "{step}");
        })
        .await
        .map_err(|error| CliError::new(Code::Other, error))?;
    Ok(prepared.environment)
}

/// Runs one case and gives back what is wrong.
async fn run(toolchain: &Toolchain, environment: &ImageEnvironment, case: &Case) -> Result<Vec<String>> {
    let failed = |error: std::io::Error| CliError::io(format!("case {}", case.name), error);
    let workspace = tempfile::Builder::new()
        .prefix("legion-case-")
        .tempdir()
        .map_err(failed)?;
    // Links in the path of the temporary directory would look like paths outside of it.
    let root = workspace.path().canonicalize().map_err(failed)?;
    let place = |name: &str| root.join(name);
    for name in [
        "work/source",
        "work/data",
        "work/output",
        "work/home",
        "work/tmp",
        "run",
    ] {
        fs::create_dir_all(place(name)).map_err(failed)?;
    }
    if let Some(project) = &case.project {
        copy(project, &place("work/source")).map_err(failed)?;
    }
    fs::write(place("run/events.jsonl"), "").map_err(failed)?;
    let document = document(toolchain, case)?;
    let text = serde_json::to_vec_pretty(&document).map_err(|error| CliError::io("JSON", error))?;
    fs::write(place("run/training.json"), text).map_err(failed)?;
    let before = snapshot(&toolchain.directory).map_err(failed)?;

    let (program, arguments) = command(toolchain, &document, environment)?;
    let log = fs::File::create(place("run/log")).map_err(failed)?;
    let errors = log.try_clone().map_err(failed)?;
    let mut child = Command::new(&program)
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
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| CliError::io(program.display(), error))?;
    let Ok(status) = tokio::time::timeout(CASE_TIMEOUT, child.wait()).await else {
        return Ok(vec![format!("not ended after {} s", CASE_TIMEOUT.as_secs())]);
    };
    let observed = Observed {
        exit_code: status.map_err(failed)?.code(),
        output: place("work/output"),
        events: fs::read(place("run/events.jsonl")).unwrap_or_default(),
        result: fs::read(place("run/result.json")).ok(),
        log: String::from_utf8_lossy(&fs::read(place("run/log")).map_err(failed)?).into_owned(),
    };
    let mut faults = judge(&case.expect, &observed);
    if snapshot(&toolchain.directory).map_err(failed)? != before {
        faults.push(format!("files below {} were changed", toolchain.directory.display()));
    }
    if !faults.is_empty() {
        let lines: Vec<&str> = observed.log.lines().collect();
        faults.extend(
            lines[lines.len().saturating_sub(15)..]
                .iter()
                .map(|line| format!("| {line}")),
        );
    }
    Ok(faults)
}

/// The training document of a case: a minimal one, and what the case says over it.
fn document(toolchain: &Toolchain, case: &Case) -> Result<TrainingDocument> {
    let mut document = json!({
        "protocol": PROTOCOL_VERSION, "name": "conformance", "namespace": "default",
        "uid": "00000000-0000-4000-8000-000000000000", "runId": "00c0ffee", "sequence": 1, "attempt": 1,
        "pod": "conformance-00c0ffee-1", "model": {"name": "conformance", "version": "1"},
        "format": toolchain.manifest["spec"]["format"], "entrypoint": "main", "source": {"kind": "ConfigMap"},
    });
    if let (Some(document), Some(over)) = (document.as_object_mut(), case.training.as_object()) {
        document.extend(over.clone());
    }
    let schema = &toolchain.manifest["spec"]["arguments"];
    if !schema.is_null() {
        let schema = Schema::compile(schema)
            .map_err(|error| CliError::new(Code::Invalid, format!("spec.arguments: {error}")))?;
        let given = document["arguments"].as_object().cloned().unwrap_or_else(Map::new);
        document["arguments"] = Value::Object(schema.with_defaults(&given));
    }
    serde_json::from_value(document)
        .map_err(|error| CliError::new(Code::Invalid, format!("case {}: training: {error}", case.name)))
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

/// Paths, sizes and times of all files, but for what Python writes beside any module it loads.
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
