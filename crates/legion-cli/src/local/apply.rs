//! Applies the documents of a manifest with server-side apply, in their order.

use std::{collections::BTreeMap, fs, path::Path};

use k8s_openapi::ByteString;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
    core::{DynamicObject, GroupVersionKind},
    discovery::{self, Scope},
};
use serde_json::{Value, json};

use crate::{
    command::validate,
    exit::{CliError, Code, Result},
    manifest::Document,
};

/// Maximum size of a source, so that it fits into a ConfigMap with its keys.
const MAX_SOURCE: u64 = 900 << 10;
const MANAGER: &str = "legionctl";

/// Result of applying an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// The object did not exist before.
    Created,
    /// The object existed and changed.
    Configured,
    /// The object existed and did not change.
    Unchanged,
}

impl Change {
    /// Returns the word that kubectl prints.
    #[must_use]
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Configured => "configured",
            Self::Unchanged => "unchanged",
        }
    }
}

/// An applied object.
#[derive(Debug, Clone)]
pub(crate) struct Applied {
    pub(crate) kind: String,
    pub(crate) name: String,
    /// Namespace, if the kind is namespaced.
    pub(crate) namespace: Option<String>,
    pub(crate) change: Change,
}

/// Checks all documents before any is applied. Fails with the problems of all of them.
pub(crate) fn check(documents: &[Document]) -> Result<()> {
    let findings: Vec<String> = documents
        .iter()
        .flat_map(validate::check)
        .map(|finding| validate::text(&finding))
        .collect();
    if findings.is_empty() {
        return Ok(());
    }
    Err(CliError::new(
        Code::Invalid,
        format!("nothing was applied\n{}", findings.join("\n")),
    ))
}

/// Applies the documents. Objects without a namespace go to `namespace`.
pub(crate) async fn apply(client: &Client, namespace: &str, documents: &[Document]) -> Result<Vec<Applied>> {
    let mut applied = Vec::new();
    for document in documents {
        let location = format!(
            "{}:{}: {}",
            document.file.display(),
            document.line(""),
            document.title()
        );
        applied.push(
            one(client, namespace, &document.value)
                .await
                .map_err(|error| error.context(location))?,
        );
    }
    Ok(applied)
}

async fn one(client: &Client, namespace: &str, value: &Value) -> Result<Applied> {
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (group, version) = text("/apiVersion").split_once('/').unwrap_or(("", text("/apiVersion")));
    let kind = GroupVersionKind::gvk(group, version, text("/kind"));
    let (resource, capabilities) = discovery::pinned_kind(client, &kind).await.map_err(|error| {
        CliError::new(
            Code::Invalid,
            format!("the API has no kind {} of {}: {error}", kind.kind, text("/apiVersion")),
        )
        .remedy("check apiVersion and kind")
    })?;
    let namespace = (capabilities.scope == Scope::Namespaced).then(|| match text("/metadata/namespace") {
        "" => namespace.to_owned(),
        named => named.to_owned(),
    });
    let api: Api<DynamicObject> = match &namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let name = text("/metadata/name").to_owned();
    let before = api
        .get_opt(&name)
        .await?
        .and_then(|object| object.metadata.resource_version);
    // Forced: for the user who runs a file on this machine, the file decides.
    let params = PatchParams::apply(MANAGER).force().validation_strict();
    let object = api.patch(&name, &params, &Patch::Apply(value)).await?;
    let change = match before {
        None => Change::Created,
        Some(before) if Some(&before) == object.metadata.resource_version.as_ref() => Change::Unchanged,
        Some(_) => Change::Configured,
    };
    Ok(Applied {
        kind: kind.kind,
        name,
        namespace,
        change,
    })
}

/// Makes the files of a directory the source of all trainings among the documents.
pub(crate) fn with_source(mut documents: Vec<Document>, directory: &Path) -> Result<Vec<Document>> {
    let files = read_source(directory)?;
    let mut all = Vec::new();
    for mut document in documents.drain(..) {
        if document.value["kind"] != "ModelTraining" {
            all.push(document);
            continue;
        }
        let training = document
            .value
            .pointer("/metadata/name")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        let name = format!("{training}-directory");
        let mut metadata = json!({ "name": name });
        if let Some(namespace) = document.value.pointer("/metadata/namespace") {
            metadata["namespace"] = namespace.clone();
        }
        let mut config_map = document.clone();
        config_map.value = config_map_of(metadata, &files);
        all.push(config_map);
        let items: Vec<Value> = files
            .keys()
            .map(|path| json!({"key": key(path), "path": path}))
            .collect();
        if let Some(spec) = document.value.get_mut("spec").and_then(Value::as_object_mut) {
            spec.insert("source".into(), json!({"configMap": {"name": name, "items": items}}));
            // The directory is the project, so a path inside the old source has no meaning.
            spec.remove("workDir");
        }
        all.push(document);
    }
    Ok(all)
}

fn config_map_of(metadata: Value, files: &BTreeMap<String, Vec<u8>>) -> Value {
    let mut data = serde_json::Map::new();
    let mut binary = serde_json::Map::new();
    for (path, content) in files {
        match std::str::from_utf8(content) {
            Ok(text) => data.insert(key(path), text.into()),
            Err(_) => binary.insert(key(path), json!(ByteString(content.clone()))),
        };
    }
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data, "binaryData": binary})
}

/// Returns the ConfigMap key for a path. A key allows fewer characters than a path. Different paths get different keys.
fn key(path: &str) -> String {
    let mut key = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' => key.push(char::from(byte)),
            b'/' => key.push_str("__"),
            other => key.push_str(&format!("_{other:02x}")),
        }
    }
    key
}

/// Reads the files of a project, without hidden files and without what a run of it leaves behind.
fn read_source(root: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let failed = |path: &Path, error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound if path == root => CliError::new(
            Code::NotFound,
            format!("--source {}: no such directory", path.display()),
        )
        .remedy("name the directory of the project"),
        std::io::ErrorKind::NotADirectory => {
            CliError::new(Code::Invalid, format!("--source {}: not a directory", path.display()))
                .remedy("name the directory of the project; spec.entrypoint is the file in it to run")
        }
        _ => CliError::io(path.display(), error),
    };
    let mut files = BTreeMap::new();
    let mut total = 0;
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).map_err(|error| failed(&directory, error))? {
            let entry = entry.map_err(|error| failed(&directory, error))?;
            let path = entry.path();
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with('.') || matches!(&*name, "__pycache__" | "mlruns" | "mlartifacts" | "mlflow.db") {
                continue;
            }
            let meta = fs::metadata(&path).map_err(|error| failed(&path, error))?;
            if meta.is_dir() {
                // A link to a parent directory would lead in circles.
                if !entry.file_type().map_err(|error| failed(&path, error))?.is_symlink() {
                    open.push(path);
                }
                continue;
            }
            total += meta.len();
            if !meta.is_file() || total > MAX_SOURCE || files.len() == 512 {
                return Err(CliError::new(
                    Code::Invalid,
                    format!(
                        "--source {}: with {} it does not fit into a ConfigMap",
                        root.display(),
                        path.display()
                    ),
                )
                .remedy(
                    "name a directory of at most 512 files and 900 KiB, or use spec.data for data and git for code",
                ));
            }
            let relative = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            let content = fs::read(&path).map_err(|error| failed(&path, error))?;
            files.insert(relative, content);
        }
    }
    if files.is_empty() {
        return Err(
            CliError::new(Code::Invalid, format!("--source {}: contains no file", root.display()))
                .remedy("name the directory of the project"),
        );
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest;

    #[test]
    fn a_directory_replaces_the_source_in_the_manifest() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("lib/__pycache__")).unwrap();
        fs::write(directory.path().join("train.py"), "print(1)\n").unwrap();
        fs::write(directory.path().join("lib/a.bin"), [0xff, 0]).unwrap();
        fs::write(directory.path().join("lib/__pycache__/x.pyc"), "x").unwrap();
        let text = "apiVersion: legion-platform.org/v1alpha1\nkind: ModelTraining\nmetadata: {name: wine, namespace: team}\nspec:\n  model: {name: wine, version: \"1\"}\n  toolchain: mlflow\n  workDir: x\n  source: {git: {uri: https://example.com/x.git}}\n";
        let documents = manifest::parse(Path::new("f"), text).unwrap();
        let documents = with_source(documents, directory.path()).unwrap();
        check(&documents).unwrap();
        assert_eq!(documents.len(), 2);
        assert_eq!(
            documents[0].value["metadata"],
            json!({"name": "wine-directory", "namespace": "team"})
        );
        assert_eq!(documents[0].value["data"], json!({"train.py": "print(1)\n"}));
        assert_eq!(documents[0].value["binaryData"], json!({"lib__a.bin": "/wA="}));
        let spec = &documents[1].value["spec"];
        assert!(spec.get("workDir").is_none());
        assert_eq!(
            spec["source"]["configMap"]["items"],
            json!([{"key": "lib__a.bin", "path": "lib/a.bin"}, {"key": "train.py", "path": "train.py"}])
        );
    }

    #[test]
    fn different_paths_get_different_keys() {
        let paths = ["a/b", "a__b", "a_b", "a b", "ä"];
        let keys: std::collections::BTreeSet<String> = paths.iter().map(|path| key(path)).collect();
        assert_eq!(keys.len(), paths.len(), "{keys:?}");
    }

    #[test]
    fn with_a_wrong_document_nothing_is_applied() {
        let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\napiVersion: legion-platform.org/v1alpha1\nkind: Connection\nmetadata: {name: a}\nspec: {type: s3, uri: nonsense}\n";
        let error = check(&manifest::parse(Path::new("f"), text).unwrap()).unwrap_err();
        assert_eq!(error.code, Code::Invalid);
        assert!(
            error.message.contains("nothing was applied") && error.message.contains("spec.uri"),
            "{error}"
        );
    }
}
