//! Checks a directory against GPPI v1 (`docs/reference/gppi.md`). The messages are those of `legion-mlflow
//! validate-gppi`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    path::Path,
};

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

/// Name of the format, in a descriptor and in `spec.format`.
pub(crate) const FORMAT: &str = "gppi/v1";
/// Name of the descriptor.
pub(crate) const DESCRIPTOR: &str = "legion.model.yaml";
const FIELDS: [&str; 8] = [
    "format", "identity", "lineage", "loader", "lock", "files", "schema", "producer",
];
const REQUIRED: [&str; 5] = ["format", "identity", "loader", "lock", "files"];

/// Returns every problem of a model directory. There is none if it is GPPI v1.
#[must_use]
pub(crate) fn validate(root: &Path) -> Vec<String> {
    let path = root.join(DESCRIPTOR);
    if !path.is_file() {
        return vec![format!("{DESCRIPTOR}: there is no such file in {}", root.display())];
    }
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) => return vec![format!("{DESCRIPTOR}: cannot be read: {error}")],
    };
    let document: Value = match serde_saphyr::from_str(&text) {
        Ok(document) => document,
        Err(error) => {
            return vec![format!(
                "{DESCRIPTOR}: cannot be read: {}",
                error.to_string().trim_end()
            )];
        }
    };
    let Value::Object(document) = document else {
        return vec![format!("{DESCRIPTOR}: is not a mapping")];
    };
    let mut problems: Vec<String> = REQUIRED
        .into_iter()
        .filter(|name| !document.contains_key(*name))
        .map(|name| format!("{name}: is missing"))
        .collect();
    fields("", &document, &FIELDS, &mut problems);
    if let Some(format) = document.get("format").filter(|format| *format != FORMAT) {
        problems.push(format!("format: is {}, expected '{FORMAT}'", shown(format)));
    }
    if let Some(identity) = section(&document, "identity", &mut problems) {
        fields("identity.", identity, &["name", "version"], &mut problems);
        text_field(identity, "identity", "name", true, &mut problems);
        text_field(identity, "identity", "version", false, &mut problems);
    }
    if let Some(loader) = section(&document, "loader", &mut problems) {
        self::loader(root, loader, &mut problems);
    }
    schema(document.get("schema"), &mut problems);
    let listed = section(&document, "files", &mut problems);
    if let Some(listed) = listed {
        files(root, listed, &mut problems);
    }
    if let Some(lock) = section(&document, "lock", &mut problems) {
        self::lock(lock, listed, &mut problems);
    }
    problems
}

/// Returns a field that must be a mapping, if it is present.
fn section<'a>(
    document: &'a Map<String, Value>,
    name: &str,
    problems: &mut Vec<String>,
) -> Option<&'a Map<String, Value>> {
    let value = document.get(name)?;
    let found = value.as_object();
    if found.is_none() {
        problems.push(format!("{name}: is not a mapping"));
    }
    found
}

fn fields(prefix: &str, found: &Map<String, Value>, known: &[&str], problems: &mut Vec<String>) {
    let mut unknown: Vec<&String> = found.keys().filter(|name| !known.contains(&name.as_str())).collect();
    unknown.sort();
    problems.extend(
        unknown
            .into_iter()
            .map(|name| format!("{prefix}{name}: is not a field of GPPI v1")),
    );
}

fn text_field(found: &Map<String, Value>, section: &str, name: &str, required: bool, problems: &mut Vec<String>) {
    match found.get(name) {
        Some(Value::String(text)) if !text.is_empty() || !required => {}
        None | Some(Value::Null) if !required => {}
        None | Some(Value::Null | Value::String(_)) => problems.push(format!("{section}.{name}: is missing")),
        Some(_) => problems.push(format!("{section}.{name}: is not text")),
    }
}

fn loader(root: &Path, loader: &Map<String, Value>, problems: &mut Vec<String>) {
    let text = |name: &str| loader.get(name).and_then(Value::as_str).unwrap_or_default();
    let path = text("path");
    match text("type") {
        "mlflow-pyfunc" => {
            fields("loader.", loader, &["type", "path"], problems);
            if !below(path) || !root.join(path).join("MLmodel").is_file() {
                problems.push(format!("loader.path: '{path}' holds no MLmodel"));
            }
        }
        "module" => {
            fields("loader.", loader, &["type", "path", "entrypoint"], problems);
            let missing = ["path", "entrypoint"].into_iter().filter(|name| text(name).is_empty());
            let missing: Vec<String> = missing.map(|name| format!("loader.{name}: is missing")).collect();
            if !missing.is_empty() {
                problems.extend(missing);
            } else if !below(path) || !root.join(path).is_dir() {
                problems.push(format!("loader.path: '{path}' is no directory of the model"));
            } else {
                let entrypoint = text("entrypoint");
                let module = root.join(path).join(entrypoint.replace('.', "/"));
                if !module.with_extension("py").is_file() && !module.join("__init__.py").is_file() {
                    problems.push(format!(
                        "loader.entrypoint: there is no module '{entrypoint}' in '{path}'"
                    ));
                }
            }
        }
        _ => {
            let kind = loader.get("type").map_or_else(|| "None".to_owned(), shown);
            problems.push(format!("loader.type: is {kind}, expected 'mlflow-pyfunc' or 'module'"));
        }
    }
}

fn schema(schema: Option<&Value>, problems: &mut Vec<String>) {
    match schema {
        None | Some(Value::Null) => {}
        Some(Value::Object(parts)) => {
            fields("schema.", parts, &["inputs", "outputs", "params"], problems);
            for (part, value) in parts {
                if !value.is_array() {
                    problems.push(format!("schema.{part}: is not a list"));
                }
            }
        }
        Some(_) => problems.push("schema: is neither null nor a mapping".to_owned()),
    }
}

fn lock(lock: &Map<String, Value>, listed: Option<&Map<String, Value>>, problems: &mut Vec<String>) {
    fields("lock.", lock, &["path", "digest", "python"], problems);
    text_field(lock, "lock", "python", false, problems);
    let path = lock.get("path").and_then(Value::as_str).unwrap_or_default();
    match listed.and_then(|files| files.get(path)) {
        None => problems.push(format!("lock.path: '{path}' is not among the files")),
        Some(digest) if lock.get("digest") != Some(digest) => {
            problems.push("lock.digest: is not the digest that files has for it".to_owned());
        }
        Some(_) => {}
    }
}

fn files(root: &Path, listed: &Map<String, Value>, problems: &mut Vec<String>) {
    let mut present = BTreeMap::new();
    if let Err(error) = walk(root, "", &mut present) {
        problems.push(format!("files: cannot be read: {error}"));
        return;
    }
    for (name, kind) in &present {
        if *kind != FileType::Regular {
            problems.push(format!("files: {name} is a {}", kind.name()));
        }
    }
    let regular: BTreeSet<&String> = present
        .iter()
        .filter(|(name, kind)| **kind == FileType::Regular && *name != DESCRIPTOR)
        .map(|(name, _)| name)
        .collect();
    for (name, expected) in listed {
        if !below(name) {
            problems.push(format!("files.{name}: leaves the directory"));
        } else if !regular.contains(name) {
            problems.push(format!("files.{name}: there is no such file"));
        } else {
            match digest(&root.join(name)) {
                Ok(found) if *expected == found.as_str() => {}
                Ok(found) => problems.push(format!(
                    "files.{name}: is {found}, expected {}",
                    shown(expected).trim_matches('\'')
                )),
                Err(error) => problems.push(format!("files.{name}: cannot be read: {error}")),
            }
        }
    }
    problems.extend(
        regular
            .into_iter()
            .filter(|name| !listed.contains_key(*name))
            .map(|name| format!("files: {name} is not listed")),
    );
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum FileType {
    Regular,
    Link,
    Special,
}

impl FileType {
    fn name(self) -> &'static str {
        match self {
            Self::Regular => "file",
            Self::Link => "link",
            Self::Special => "special file",
        }
    }
}

/// Collects everything below a directory, except directories. Links are not followed.
fn walk(directory: &Path, prefix: &str, found: &mut BTreeMap<String, FileType>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            walk(&entry.path(), &format!("{name}/"), found)?;
        } else if kind.is_symlink() {
            found.insert(name, FileType::Link);
        } else {
            found.insert(
                name,
                if kind.is_file() {
                    FileType::Regular
                } else {
                    FileType::Special
                },
            );
        }
    }
    Ok(())
}

/// Returns the digest of every file of a model directory but the descriptor.
pub(crate) fn digests(root: &Path) -> io::Result<BTreeMap<String, String>> {
    let mut present = BTreeMap::new();
    walk(root, "", &mut present)?;
    let names = present.into_keys().filter(|name| name != DESCRIPTOR);
    names
        .map(|name| digest(&root.join(&name)).map(|digest| (name, digest)))
        .collect()
}

fn digest(path: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    io::copy(&mut File::open(path)?, &mut hash)?;
    Ok(legion_protocol::digest::render(hash))
}

/// Returns whether a path stays below the directory.
fn below(path: &str) -> bool {
    !path.is_empty() && !path.starts_with('/') && path.split('/').all(|part| part != "..")
}

/// Formats a value for messages.
fn shown(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), |text| format!("'{text}'"))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    /// The validator in Python passes the same cases.
    const CASES: &str = include_str!("../../../toolchains/mlflow/tests/gppi_cases.yaml");

    #[derive(Deserialize)]
    struct Cases {
        files: BTreeMap<String, String>,
        descriptor: Map<String, Value>,
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Case {
        #[serde(default)]
        descriptor: Map<String, Value>,
        #[serde(default)]
        remove: Vec<String>,
        #[serde(default)]
        write: BTreeMap<String, String>,
        #[serde(default)]
        link: BTreeMap<String, String>,
        /// For the JSON Schema. The tests in Python use it.
        #[serde(default, rename = "schema")]
        _schema: Option<String>,
        problems: Vec<String>,
    }

    fn lay_out(root: &Path, files: &BTreeMap<String, String>) {
        for (name, text) in files {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    #[test]
    fn both_validators_report_the_same_problems_in_the_same_words() {
        let cases: Cases = serde_saphyr::from_str(CASES).unwrap();
        assert!(cases.cases.len() >= 20);
        for case in cases.cases {
            let root = tempfile::tempdir().unwrap();
            lay_out(root.path(), &cases.files);
            let mut descriptor = cases.descriptor.clone();
            descriptor.extend(case.descriptor);
            for name in &case.remove {
                descriptor.remove(name);
            }
            // JSON is YAML.
            fs::write(
                root.path().join(DESCRIPTOR),
                serde_json::to_string(&descriptor).unwrap(),
            )
            .unwrap();
            lay_out(root.path(), &case.write);
            for (name, target) in &case.link {
                std::os::unix::fs::symlink(target, root.path().join(name)).unwrap();
            }
            assert_eq!(validate(root.path()), case.problems);
        }
    }

    #[test]
    fn a_missing_descriptor_is_reported_with_its_directory() {
        let root = tempfile::tempdir().unwrap();
        let problems = validate(root.path());
        assert_eq!(problems.len(), 1);
        assert!(
            problems[0].starts_with("legion.model.yaml: there is no such file in "),
            "{problems:?}"
        );
    }
}
