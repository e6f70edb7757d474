//! The toolchains of the local mode: directories with `toolchain.yaml` and `local.yaml`.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::Value;

use crate::{
    exit::{CliError, Code, Result},
    manifest,
};

/// A toolchain on this machine.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Toolchain {
    pub(crate) directory: PathBuf,
    /// The ToolchainIntegration to apply.
    pub(crate) manifest: Value,
    /// What replaces its image.
    pub(crate) local: LocalImage,
}

/// `local.yaml`: the replacement of an image on a node that runs processes instead of containers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LocalImage {
    /// The image reference, as in `toolchain.yaml`.
    pub(crate) image: String,
    /// What must be installed first. Nothing, if it is empty.
    #[serde(default)]
    pub(crate) environment: Environment,
    /// Directories for `PATH`, relative to the directory of the toolchain.
    #[serde(default)]
    pub(crate) path: Vec<PathBuf>,
    /// Environment variables of the image.
    #[serde(default)]
    pub(crate) env: BTreeMap<String, String>,
}

/// A Python environment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Environment {
    /// Accepted versions of Python: `>=3.11`.
    #[serde(default)]
    pub(crate) python: Option<String>,
    /// File of pinned requirements, relative to the directory of the toolchain.
    #[serde(default)]
    pub(crate) requirements: Option<PathBuf>,
    /// Package of the toolchain, relative to its directory.
    #[serde(default)]
    pub(crate) package: Option<PathBuf>,
}

impl Toolchain {
    /// Reads a toolchain's directory.
    pub(crate) fn read(directory: &Path) -> Result<Self> {
        let directory = std::path::absolute(directory).map_err(|error| CliError::io(directory.display(), error))?;
        let path = directory.join("toolchain.yaml");
        let mut documents = manifest::read(&path)?;
        let (Some(document), true) = (documents.pop(), documents.is_empty()) else {
            return Err(CliError::new(
                Code::Invalid,
                format!("{}: must contain exactly one object", path.display()),
            ));
        };
        let local_path = directory.join("local.yaml");
        let text = fs::read_to_string(&local_path)
            .map_err(|error| CliError::new(Code::Invalid, format!("{}: {error}", local_path.display())))?;
        let local: LocalImage = serde_saphyr::from_str(&text).map_err(|error| {
            CliError::new(
                Code::Invalid,
                format!("{}: {}", local_path.display(), error.to_string().trim_end()),
            )
            .remedy("docs/reference/toolchain-protocol.md describes the fields")
        })?;
        if let Some(image) = document.value["spec"]["image"]
            .as_str()
            .filter(|image| *image != local.image)
        {
            return Err(CliError::new(
                Code::Invalid,
                format!(
                    "{}: image is {:?}, but it is {image:?} in toolchain.yaml",
                    local_path.display(),
                    local.image
                ),
            )
            .remedy(
                "write the same image in both: pods use the image of toolchain.yaml, and local.yaml defines its replacement",
            ));
        }
        Ok(Self {
            directory,
            manifest: document.value,
            local,
        })
    }

    #[must_use]
    pub(crate) fn name(&self) -> &str {
        self.manifest["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// Returns the directory for files that the toolchain can recreate, below `cache`.
    #[must_use]
    pub(crate) fn cache(&self, cache: &Path) -> PathBuf {
        cache.join("toolchains").join(self.name())
    }
}

/// Returns every toolchain of this machine: the ones in `$LEGION_TOOLCHAINS` and the shipped ones.
///
/// The variable is a list of directories, like `PATH`. Each is the directory of a toolchain, or contains such
/// directories. The first toolchain with a name counts, so a shipped one can be replaced.
pub(crate) fn all() -> Result<Vec<Toolchain>> {
    let named = env::var_os("LEGION_TOOLCHAINS").unwrap_or_default();
    let named: Vec<PathBuf> = env::split_paths(&named)
        .filter(|path| !path.as_os_str().is_empty())
        .collect();
    merged(&named, shipped())
}

fn merged(named: &[PathBuf], shipped: Option<PathBuf>) -> Result<Vec<Toolchain>> {
    let mut found: BTreeMap<String, Toolchain> = BTreeMap::new();
    for directory in named.iter().chain(&shipped) {
        let several = if directory.join("toolchain.yaml").is_file() {
            vec![Toolchain::read(directory)?]
        } else {
            read_all(directory)?
        };
        if several.is_empty() {
            return Err(
                CliError::new(Code::NotFound, format!("{}: contains no toolchain", directory.display())).remedy(
                    "set LEGION_TOOLCHAINS to directories with a toolchain.yaml and a local.yaml, or to their parent directories",
                ),
            );
        }
        for toolchain in several {
            found.entry(toolchain.name().to_owned()).or_insert(toolchain);
        }
    }
    if found.is_empty() {
        return Err(CliError::new(Code::NotFound, "no directory of toolchains found")
            .remedy("set LEGION_TOOLCHAINS to one: the repository of Legion has the directory `toolchains`"));
    }
    Ok(found.into_values().collect())
}

/// Returns the directory of the shipped toolchains: next to the binary, or else in the repository of the binary's
/// source.
fn shipped() -> Option<PathBuf> {
    let exe = env::current_exe().ok();
    let beside = |path: &str| exe.as_ref().and_then(|exe| Some(exe.parent()?.join(path)));
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../toolchains");
    [
        beside("toolchains"),
        beside("../share/legion/toolchains"),
        Some(repository),
    ]
    .into_iter()
    .flatten()
    .find(|path| path.is_dir())
    .map(|path| path.canonicalize().unwrap_or(path))
}

/// Reads every toolchain of a directory, sorted by name.
fn read_all(directory: &Path) -> Result<Vec<Toolchain>> {
    let entries = fs::read_dir(directory).map_err(|error| CliError::io(directory.display(), error))?;
    let mut toolchains = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| CliError::io(directory.display(), error))?.path();
        if path.join("toolchain.yaml").is_file() {
            toolchains.push(Toolchain::read(&path)?);
        }
    }
    toolchains.sort_by(|a, b| a.name().cmp(b.name()));
    Ok(toolchains)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_toolchains_are_valid_and_both_files_have_the_same_image() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../toolchains");
        let toolchains = read_all(&root).unwrap();
        let names: Vec<&str> = toolchains.iter().map(Toolchain::name).collect();
        assert_eq!(names, ["mlflow", "script"]);
        for toolchain in &toolchains {
            assert_eq!(legion_api::validate::object(&toolchain.manifest, None), []);
            assert_eq!(toolchain.manifest["spec"]["image"], toolchain.local.image.as_str());
        }
    }

    #[test]
    fn own_toolchains_are_added_to_the_shipped_ones_and_may_replace_them() {
        let root = tempfile::tempdir().unwrap();
        let toolchain = |directory: &Path, name: &str| {
            fs::create_dir_all(directory).unwrap();
            let manifest = format!(
                "apiVersion: legion-platform.org/v1alpha1\nkind: ToolchainIntegration\nmetadata: {{name: {name}}}\n"
            );
            fs::write(directory.join("toolchain.yaml"), manifest).unwrap();
            fs::write(directory.join("local.yaml"), "image: example/image:1\n").unwrap();
        };
        toolchain(&root.path().join("several/one"), "one");
        toolchain(&root.path().join("mine"), "script");
        toolchain(&root.path().join("shipped/script"), "script");
        toolchain(&root.path().join("shipped/mlflow"), "mlflow");
        let named = [root.path().join("several"), root.path().join("mine")];
        let found = merged(&named, Some(root.path().join("shipped"))).unwrap();
        let names: Vec<&str> = found.iter().map(Toolchain::name).collect();
        assert_eq!(names, ["mlflow", "one", "script"]);
        assert_eq!(found[2].directory, root.path().join("mine"));

        fs::create_dir(root.path().join("empty")).unwrap();
        let error = merged(&[root.path().join("empty")], None).unwrap_err();
        assert!(error.message.contains("empty: contains no toolchain"), "{error}");
    }

    #[test]
    fn an_unknown_field_is_reported() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("toolchain.yaml"), "kind: X\n").unwrap();
        fs::write(directory.path().join("local.yaml"), "image: x\nenvironmnet: {}\n").unwrap();
        let error = Toolchain::read(directory.path()).unwrap_err();
        assert_eq!(error.code, Code::Invalid);
        assert!(error.message.contains("environmnet"), "{error}");
    }
}
