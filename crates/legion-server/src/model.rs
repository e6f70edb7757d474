//! Reads a model directory: GPPI v1, or MLflow's own.

use std::{
    fs,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::{
    WorkerTask,
    input::{Input, mlflow},
    sample::Sample,
    signature::{ColumnType, Schema, Signature},
    worker::frame,
};

/// The descriptor of a GPPI directory.
const DESCRIPTOR: &str = "legion.model.yaml";
/// The descriptor of an MLflow model.
const MLMODEL: &str = "MLmodel";

/// A model that can be served.
#[derive(Clone, Debug)]
pub struct Model {
    /// Name, as protocols with a model in their path use it.
    pub name: String,
    /// Version. Empty if the directory has none.
    pub version: String,
    /// The directory with `MLmodel`, or with the module.
    pub path: PathBuf,
    /// What loads it.
    pub loader: Loader,
    /// What it takes and returns.
    pub signature: Option<Signature>,
    /// The signature in MLflow's notation: `inputs`, `outputs` and `params`, as far as there are any.
    pub schema: Map<String, Value>,
    /// A request for the model.
    pub sample: Sample,
    /// The version of MLflow that saved it. Empty if it does not say.
    pub mlflow_version: String,
    /// Whether each row of an answer depends on the same row of the request alone. Then requests can share a call.
    pub is_row_wise: bool,
}

/// What loads a model in a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loader {
    /// `mlflow.pyfunc.load_model`.
    Pyfunc,
    /// The import of a module with `init` and `predict`.
    Module {
        /// Name of the module.
        entrypoint: String,
    },
}

impl Loader {
    /// Returns the name in a GPPI descriptor.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Pyfunc => "mlflow-pyfunc",
            Self::Module { .. } => "module",
        }
    }
}

/// A model directory that cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {problem}", path = .path.display())]
pub struct ModelError {
    path: PathBuf,
    problem: String,
}

impl Model {
    /// Reads the model in a directory.
    ///
    /// # Errors
    /// When the directory is no model, or its descriptor cannot be read.
    pub fn read(root: &Path) -> Result<Self, ModelError> {
        let error = |path: &Path, problem: String| ModelError {
            path: path.to_owned(),
            problem,
        };
        let descriptor = root.join(DESCRIPTOR);
        if descriptor.is_file() {
            let gppi = yaml(&descriptor).map_err(|problem| error(&descriptor, problem))?;
            return Self::gppi(root, &gppi).map_err(|problem| error(&descriptor, problem));
        }
        if root.join(MLMODEL).is_file() {
            let name = root.file_name().map(|name| name.to_string_lossy().into_owned());
            return Self::mlflow(root, root, name.unwrap_or_else(|| "model".to_owned()), String::new());
        }
        let problem = format!("it is no model: there is neither {DESCRIPTOR} nor {MLMODEL}");
        Err(error(root, problem))
    }

    fn gppi(root: &Path, gppi: &Value) -> Result<Self, String> {
        let text = |pointer: &str| gppi.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        if text("/format") != "gppi/v1" {
            return Err(format!("format: is {:?}, expected \"gppi/v1\"", text("/format")));
        }
        let directory = root.join(text("/loader/path"));
        let name = text("/identity/name").to_owned();
        let version = text("/identity/version").to_owned();
        match text("/loader/type") {
            "mlflow-pyfunc" => Self::mlflow(root, &directory, name, version).map_err(|error| error.to_string()),
            "module" => {
                let (schema, signature) =
                    signature(gppi.get("schema")).map_err(|problem| format!("schema.{problem}"))?;
                Ok(Self {
                    name,
                    version,
                    sample: Sample::read(root, &directory, &schema),
                    path: directory,
                    loader: Loader::Module {
                        entrypoint: text("/loader/entrypoint").to_owned(),
                    },
                    signature,
                    schema,
                    mlflow_version: String::new(),
                    is_row_wise: false,
                })
            }
            loader => Err(format!("loader.type: {loader:?} cannot be served")),
        }
    }

    fn mlflow(root: &Path, path: &Path, name: String, version: String) -> Result<Self, ModelError> {
        let file = path.join(MLMODEL);
        let error = |problem: String| ModelError {
            path: file.clone(),
            problem,
        };
        let mlmodel = yaml(&file).map_err(error)?;
        let flavors = mlmodel.get("flavors").and_then(Value::as_object);
        let flavors = flavors.ok_or_else(|| error("flavors: is missing".to_owned()))?;
        if !flavors.contains_key("python_function") {
            let known: Vec<&str> = flavors.keys().map(String::as_str).collect();
            return Err(error(format!(
                "flavors: has no python_function, only {}",
                known.join(", ")
            )));
        }
        let (schema, signature) =
            signature(mlmodel.get("signature")).map_err(|problem| error(format!("signature.{problem}")))?;
        let mlflow_version = mlmodel.get("mlflow_version").and_then(Value::as_str);
        Ok(Self {
            name,
            version,
            path: path.to_owned(),
            loader: Loader::Pyfunc,
            signature,
            sample: Sample::read(root, path, &schema),
            schema,
            mlflow_version: mlflow_version.unwrap_or_default().to_owned(),
            is_row_wise: flavors.keys().any(|flavor| ROW_WISE.contains(&flavor.as_str())),
        })
    }

    /// Returns what a worker loads. With `raw` it may replace DataFrames by arrays, where both give the same.
    #[must_use]
    pub fn task(&self, raw: bool) -> WorkerTask {
        WorkerTask {
            loader: self.loader.as_str(),
            path: self.path.clone(),
            entrypoint: match &self.loader {
                Loader::Pyfunc => None,
                Loader::Module { entrypoint } => Some(entrypoint.clone()),
            },
            proof: self.proof().filter(|_| raw),
        }
    }

    /// Returns the question whether an array of numbers can take the place of the sample's DataFrame.
    fn proof(&self) -> Option<Bytes> {
        let signature = self.signature.as_ref()?;
        let Some(Schema::Columns(columns)) = &signature.inputs else {
            return None;
        };
        let are_numbers = columns.iter().all(|column| {
            let is_number = matches!(&column.kind, ColumnType::Scalar(kind) if kind.is_number());
            column.required && is_number
        });
        if !self.is_row_wise || !are_numbers || !signature.params.is_empty() {
            return None;
        }
        self.sample.file.as_ref()?;
        let sample = Bytes::copy_from_slice(self.sample.request.get().as_bytes());
        match mlflow::decode(&sample, Some(signature)) {
            Ok(Input::Table { table, .. }) => frame::proof(&table, Some(signature)).ok().map(Bytes::from),
            _ => None,
        }
    }
}

/// Reads a signature: its parts as they are written, and what they mean.
fn signature(value: Option<&Value>) -> Result<(Map<String, Value>, Option<Signature>), String> {
    let Some(value) = value.filter(|value| !value.is_null()) else {
        return Ok((Map::new(), None));
    };
    let signature = Signature::parse(value)?;
    let parts = value.as_object().into_iter().flatten().filter_map(|(name, part)| {
        let part = match part {
            Value::String(text) => serde_json::from_str(text).ok()?,
            part => part.clone(),
        };
        (!part.is_null()).then(|| (name.clone(), part))
    });
    Ok((parts.collect(), Some(signature)))
}

/// Flavors whose predictions treat every row alone. A model of the user's own code may do anything.
const ROW_WISE: [&str; 4] = ["sklearn", "xgboost", "lightgbm", "catboost"];

/// Reads a YAML file.
fn yaml(path: &Path) -> Result<Value, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))?;
    serde_saphyr::from_str(&text).map_err(|error| format!("cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SKLEARN: &str = r#"
flavors:
  python_function: {loader_module: mlflow.sklearn}
  sklearn: {sklearn_version: 1.9.1}
signature:
  inputs: '[{"type": "double", "name": "a", "required": true}]'
  outputs: null
"#;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn both_kinds_of_directories_are_read() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "wine/model/MLmodel", SKLEARN);
        let descriptor =
            "{format: gppi/v1, identity: {name: wine, version: '3'}, loader: {type: mlflow-pyfunc, path: model}}";
        write(root.path(), "wine/legion.model.yaml", descriptor);
        let gppi = Model::read(&root.path().join("wine")).unwrap();
        assert_eq!((gppi.name.as_str(), gppi.version.as_str()), ("wine", "3"));
        assert!(gppi.is_row_wise && gppi.signature.is_some());
        let bare = Model::read(&root.path().join("wine/model")).unwrap();
        assert_eq!((bare.name.as_str(), bare.version.as_str()), ("model", ""));
        assert_eq!(bare.path, gppi.path);
    }

    #[test]
    fn what_cannot_be_served_names_file_and_field() {
        let root = tempfile::tempdir().unwrap();
        let of = |text: &str| {
            write(root.path(), "MLmodel", text);
            Model::read(root.path()).unwrap_err().to_string()
        };
        assert!(of("{}").ends_with("MLmodel: flavors: is missing"));
        assert!(of("flavors: {onnx: {}}").ends_with("flavors: has no python_function, only onnx"));
        assert!(
            of("flavors: {python_function: {}}\nsignature: {inputs: '['}").contains("signature.inputs: it is not JSON")
        );
        fs::remove_file(root.path().join("MLmodel")).unwrap();
        let error = Model::read(root.path()).unwrap_err().to_string();
        assert!(error.contains("neither legion.model.yaml nor MLmodel"), "{error}");
        write(
            root.path(),
            "legion.model.yaml",
            "{format: gppi/v1, loader: {type: pickle}}",
        );
        let error = Model::read(root.path()).unwrap_err().to_string();
        assert!(error.ends_with("loader.type: \"pickle\" cannot be served"), "{error}");
    }
}
