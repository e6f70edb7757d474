//! `legionctl model convert`: makes a GPPI directory of an MLflow model.

use std::{
    collections::BTreeMap,
    fs, io,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use legion_server::model::Model;
use serde_json::{Value, json};

use super::{environment, place};
use crate::{
    args::{Global, ModelPlace},
    exit::{CliError, Code, Result},
    gppi, output,
};

/// Prints the packages of an environment and its Python version, as JSON.
const FREEZE: &str = "
import importlib.metadata, json, platform
own = {'pip', 'setuptools', 'wheel', 'uv'}
packages = {d.metadata['Name']: d.version for d in importlib.metadata.distributions()}
lines = sorted(f'{name}=={version}' for name, version in packages.items() if name.lower() not in own)
print(json.dumps({'python': platform.python_version(), 'lines': lines}))
";

/// Copies an MLflow model into a new GPPI directory. The lock has what its environment has.
pub(super) async fn run(
    global: &Global,
    model: &ModelPlace,
    to: &Path,
    name: Option<&str>,
    version: &str,
    out: &mut dyn Write,
) -> Result<Code> {
    if to.exists() {
        return Err(
            CliError::new(Code::Invalid, format!("{}: it exists already", to.display()))
                .remedy("name a directory that does not exist yet"),
        );
    }
    let place = place::find(global, &model.model).await?;
    if place.directory.join(gppi::DESCRIPTOR).is_file() {
        return Err(
            CliError::new(Code::Invalid, format!("{}: it is GPPI already", model.model))
                .remedy("`legionctl model check` checks it"),
        );
    }
    let read = Model::read(&place.directory).map_err(|error| CliError::new(Code::Invalid, error.to_string()))?;
    let (python, _in_use) = environment::python(model, &place.directory).await?;
    let (python_version, lock) = packages(&python)?;
    let parent = to
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let failed = |error: io::Error| CliError::io(to.display(), error);
    fs::create_dir_all(parent).map_err(failed)?;
    // Renamed when it is whole, so that no part of a model looks like one.
    let partial = tempfile::Builder::new()
        .prefix(".legion-")
        .tempdir_in(parent)
        .map_err(failed)?;
    let root = partial.path().join("model");
    fs::create_dir(&root).map_err(failed)?;
    copy(&place.directory, &root.join("model")).map_err(failed)?;
    fs::create_dir(root.join("lock")).map_err(failed)?;
    fs::write(root.join("lock/requirements.txt"), lock).map_err(failed)?;
    for name in ["serving_input_example.json", "input_example.json"] {
        if place.directory.join(name).is_file() {
            fs::create_dir_all(root.join("sample")).map_err(failed)?;
            fs::copy(place.directory.join(name), root.join("sample").join(name)).map_err(failed)?;
        }
    }
    let files = gppi::digests(&root).map_err(failed)?;
    let schema = if read.schema.is_empty() {
        Value::Null
    } else {
        Value::Object(read.schema.clone())
    };
    let descriptor = json!({
        "format": gppi::FORMAT,
        "identity": {"name": name.unwrap_or(&read.name), "version": version},
        "loader": {"type": "mlflow-pyfunc", "path": "model"},
        "lineage": {"mlflow": {"version": read.mlflow_version}},
        "schema": schema,
        "lock": {
            "path": "lock/requirements.txt",
            "digest": files.get("lock/requirements.txt"),
            "python": python_version,
        },
        "files": files,
        "producer": {"name": "legionctl", "version": env!("CARGO_PKG_VERSION")},
    });
    let text = serde_saphyr::to_string(&descriptor).map_err(|error| CliError::io("YAML", error))?;
    fs::write(root.join(gppi::DESCRIPTOR), text).map_err(failed)?;
    let problems = gppi::validate(&root);
    if !problems.is_empty() {
        return Err(CliError::new(
            Code::Invalid,
            format!("{} cannot become GPPI v1: {}", model.model, problems.join("; ")),
        ));
    }
    fs::rename(&root, to).map_err(failed)?;
    output::line(
        out,
        format_args!("{}: {} files, GPPI v1", to.display(), files.len() + 1),
    )?;
    Ok(Code::Ok)
}

/// Returns the Python version and the packages of an environment, as a requirements file.
fn packages(python: &Path) -> Result<(String, String)> {
    let failed = |why: String| CliError::new(Code::Other, format!("{}: {why}", python.display()));
    let output = Command::new(python)
        .args(["-I", "-c", FREEZE])
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(failed(text.lines().last().unwrap_or_default().to_owned()));
    }
    let answer: Value = serde_json::from_slice(&output.stdout).map_err(|error| failed(error.to_string()))?;
    let lines = answer["lines"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str);
    let lock: String = lines.flat_map(|line| [line, "\n"]).collect();
    Ok((answer["python"].as_str().unwrap_or_default().to_owned(), lock))
}

/// Copies a directory. A link is an error of the copy: GPPI has none.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let mut open: BTreeMap<PathBuf, PathBuf> = BTreeMap::from([(from.to_owned(), to.to_owned())]);
    while let Some((from, to)) = open.pop_first() {
        fs::create_dir_all(&to)?;
        for entry in fs::read_dir(&from)? {
            let entry = entry?;
            let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
            if kind.is_dir() && entry.file_name() != "__pycache__" {
                open.insert(entry.path(), target);
            } else if kind.is_file() {
                fs::copy(entry.path(), target)?;
            } else if !kind.is_dir() {
                let problem = format!("{}: a link or special file", entry.path().display());
                return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
            }
        }
    }
    Ok(())
}
