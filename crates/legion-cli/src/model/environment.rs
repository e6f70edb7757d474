//! The Python environment in which a model loads.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{
    args::ModelPlace,
    exit::{CliError, Code, Result},
    gppi, local, output,
};

/// What a model needs, as far as its directory says.
struct Needs {
    /// A requirements file of pip.
    requirements: PathBuf,
    /// Version of Python, such as `3.11`.
    python: Option<String>,
}

/// Returns the interpreter of an environment for the model in `directory`: the one that the user names, or that of an
/// environment with the model's requirements. The latter is created once, and the second value keeps it from being
/// pruned.
pub(super) async fn python(place: &ModelPlace, directory: &Path) -> Result<(PathBuf, Option<local::CacheLock>)> {
    if let Some(python) = &place.python {
        return Ok((python.clone(), None));
    }
    let needs = needs(directory).ok_or_else(|| {
        CliError::new(
            Code::NotFound,
            format!("{}: the model has no list of requirements", directory.display()),
        )
        .remedy("name an interpreter in whose environment it loads with --python")
    })?;
    let cache = local::cache();
    let lock = local::CacheLock::shared(&cache)?;
    let about = "the Python environment of the model";
    let progress = |step: String| output::note(format_args!("{step}"));
    let packages = local::packages(
        &cache,
        about,
        needs.python.as_deref(),
        Some(&needs.requirements),
        &progress,
    )
    .await
    .map_err(|error| {
        CliError::new(Code::Other, error).remedy("or name an interpreter in whose environment it loads with --python")
    })?;
    Ok((packages.directory.join("bin/python"), Some(lock)))
}

fn needs(directory: &Path) -> Option<Needs> {
    let read = |path: PathBuf| -> Option<Value> { serde_saphyr::from_str(&fs::read_to_string(path).ok()?).ok() };
    if let Some(descriptor) = read(directory.join(gppi::DESCRIPTOR)) {
        let text = |pointer: &str| descriptor.pointer(pointer).and_then(Value::as_str);
        return Some(Needs {
            requirements: Some(directory.join(text("/lock/path")?)).filter(|path| path.is_file())?,
            python: text("/lock/python").map(minor),
        });
    }
    let python = read(directory.join("python_env.yaml"));
    let python = python.as_ref().and_then(|file| file.get("python")?.as_str()).map(minor);
    Some(Needs {
        requirements: Some(directory.join("requirements.txt")).filter(|path| path.is_file())?,
        python,
    })
}

/// Returns `3.11` for `3.11.7`: a model loads with every patch of its version.
fn minor(version: &str) -> String {
    version.split('.').take(2).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_directories_say_what_they_need() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(root.path().join(name), text).unwrap();
        assert!(needs(root.path()).is_none());
        write("requirements.txt", "a\n");
        assert_eq!(needs(root.path()).unwrap().python, None);
        write("python_env.yaml", "python: 3.12.1\n");
        assert_eq!(needs(root.path()).unwrap().python.as_deref(), Some("3.12"));
        write("lock.txt", "a==1\n");
        write("legion.model.yaml", "lock: {path: lock.txt, python: 3.11.7}\n");
        let found = needs(root.path()).unwrap();
        assert_eq!(found.requirements, root.path().join("lock.txt"));
        assert_eq!(found.python.as_deref(), Some("3.11"));
        write("legion.model.yaml", "lock: {path: absent.txt}\n");
        assert!(needs(root.path()).is_none());
    }
}
