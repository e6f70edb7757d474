//! Where a model is: a directory, an archive, or the artifact of a training.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
};

use kube::Api;
use legion_api::ModelTraining;
use legion_protocol::digest;
use tempfile::TempDir;

use crate::{
    args::Global,
    client,
    exit::{CliError, Code, Result},
    gppi, stored,
};

/// The directory of a model.
pub(super) struct Place {
    /// It has `legion.model.yaml` or `MLmodel`, unless the user named a directory that is no model.
    pub(super) directory: PathBuf,
    /// Deletes the files of an archive at the end.
    _unpacked: Option<TempDir>,
}

/// Finds a model by its path, or by the name of its training.
pub(super) async fn find(global: &Global, model: &str) -> Result<Place> {
    let path = Path::new(model);
    if path.is_dir() {
        return Ok(Place {
            directory: path.to_owned(),
            _unpacked: None,
        });
    }
    if path.is_file() {
        let file = File::open(path).map_err(|error| CliError::io(model, error))?;
        return unpack(model, BufReader::new(file));
    }
    if model.contains('/') || !is_name(model) {
        return Err(absent(model));
    }
    trained(global, model).await
}

fn absent(model: &str) -> CliError {
    CliError::new(Code::NotFound, format!("{model}: there is no such file or directory"))
        .remedy("name a directory with legion.model.yaml or MLmodel, an archive of one, or a training")
}

/// Whether a text can be the name of a training: a DNS subdomain (RFC 1123).
fn is_name(text: &str) -> bool {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    !text.is_empty() && text.chars().all(is_part)
}

/// Reads the last artifact of a training.
async fn trained(global: &Global, name: &str) -> Result<Place> {
    let session = client::reach(global)
        .await
        .map_err(|error| error.context(format!("{name} is no path, so it must be the name of a training")))?;
    let trainings: Api<ModelTraining> = Api::namespaced(session.client.clone(), &session.namespace);
    let training = trainings.get_opt(name).await?.ok_or_else(|| {
        CliError::new(
            Code::NotFound,
            format!(
                "{name}: there is neither such a path nor such a training in namespace {:?}",
                session.namespace
            ),
        )
        .remedy("`legionctl get trainings` lists the trainings")
    })?;
    let artifact = training.status.as_ref().and_then(|status| status.artifact.as_ref());
    let artifact = artifact.ok_or_else(|| {
        CliError::new(Code::NotFound, format!("the training {name:?} has no artifact yet"))
            .remedy(format!("wait for its success: `legionctl wait {name}`"))
    })?;
    if artifact.format != gppi::FORMAT {
        return Err(CliError::new(
            Code::Invalid,
            format!(
                "the artifact of the training {name:?} has the format {:?}, not {}",
                artifact.format,
                gppi::FORMAT
            ),
        ));
    }
    let bytes = stored::artifact(&session, &training, &artifact.uri).await?;
    let digest = digest::of_bytes(&bytes);
    if artifact.digest != digest {
        return Err(CliError::new(
            Code::Other,
            format!(
                "{}: its digest is {digest}, and the training recorded {}",
                artifact.uri, artifact.digest
            ),
        )
        .remedy(format!("it was changed: train again with `legionctl rerun {name}`")));
    }
    unpack(&artifact.uri, bytes.as_slice())
}

fn unpack(name: &str, archive: impl BufRead) -> Result<Place> {
    let directory = tempfile::Builder::new()
        .prefix("legion-model-")
        .tempdir()
        .map_err(|error| CliError::io("the temporary directory", error))?;
    legion_agent::extract_archive(archive, directory.path()).map_err(|error| {
        CliError::new(Code::Invalid, format!("{name}: {}", error.message))
            .remedy("name a tar archive of a model directory, compressed with gzip or not")
    })?;
    Ok(Place {
        directory: root(directory.path()),
        _unpacked: Some(directory),
    })
}

/// Returns the directory of the model in an archive: that of the archive, or the only one in it.
fn root(directory: &Path) -> PathBuf {
    let is_model = |path: &Path| path.join(gppi::DESCRIPTOR).is_file() || path.join("MLmodel").is_file();
    if is_model(directory) {
        return directory.to_owned();
    }
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let below: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    match below.as_slice() {
        [only] if is_model(only) => only.clone(),
        _ => directory.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_path_that_is_none_and_no_name_is_reported_with_what_can_be_named() {
        for model in ["no/such", "./x", "A_B"] {
            let Err(error) = find(&Global::default(), model).await else {
                panic!("{model} was found");
            };
            assert_eq!(error.code, Code::NotFound);
            assert!(error.remedy.unwrap().contains("MLmodel"));
        }
    }

    #[test]
    fn a_model_may_lie_in_the_only_directory_of_an_archive() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("wine");
        fs::create_dir(&inner).unwrap();
        assert_eq!(root(directory.path()), directory.path());
        fs::write(inner.join("MLmodel"), "").unwrap();
        assert_eq!(root(directory.path()), inner);
        fs::write(directory.path().join("other"), "").unwrap();
        assert_eq!(root(directory.path()), directory.path());
        fs::write(directory.path().join("MLmodel"), "").unwrap();
        assert_eq!(root(directory.path()), directory.path());
    }

    #[test]
    fn what_is_no_archive_is_refused_by_its_name() {
        let Err(error) = unpack("model.zip", &b"PK\x03\x04"[..]) else {
            panic!("it was unpacked");
        };
        assert_eq!(error.code, Code::Invalid);
        assert!(error.message.starts_with("model.zip: "), "{error}");
    }
}
