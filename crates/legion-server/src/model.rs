//! Reads a model directory: GPPI v1, or MLflow's own.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::signature::Signature;

/// The descriptor of a GPPI directory.
const DESCRIPTOR: &str = "legion.model.yaml";
/// The descriptor of an MLflow model.
pub(crate) const MLMODEL: &str = "MLmodel";

/// A model that can be served.
#[derive(Clone, Debug)]
pub struct Model {
    /// Name, as protocols with a model in their path use it.
    pub name: String,
    /// Version. Empty if the directory has none.
    pub version: String,
    /// The directory with `MLmodel`.
    pub path: PathBuf,
    /// What it takes and returns.
    pub signature: Option<Signature>,
    /// The version of MLflow that saved it. Empty if it does not say.
    pub mlflow_version: String,
    /// Whether each row of an answer depends on the same row of the request alone. Then requests can share a call.
    pub is_row_wise: bool,
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
            return Self::mlflow(root, name.unwrap_or_else(|| "model".to_owned()), String::new());
        }
        let problem = format!("it is no model: there is neither {DESCRIPTOR} nor {MLMODEL}");
        Err(error(root, problem))
    }

    fn gppi(root: &Path, gppi: &Value) -> Result<Self, String> {
        let text = |pointer: &str| gppi.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        match (text("/format"), text("/loader/type")) {
            ("gppi/v1", "mlflow-pyfunc") => {}
            ("gppi/v1", loader) => return Err(format!("loader.type: {loader:?} cannot be served")),
            (format, _) => return Err(format!("format: is {format:?}, expected \"gppi/v1\"")),
        }
        let directory = root.join(text("/loader/path"));
        let model = Self::mlflow(
            &directory,
            text("/identity/name").to_owned(),
            text("/identity/version").to_owned(),
        );
        model.map_err(|error| error.to_string())
    }

    fn mlflow(path: &Path, name: String, version: String) -> Result<Self, ModelError> {
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
        let signature = match mlmodel.get("signature") {
            None | Some(Value::Null) => None,
            Some(signature) => {
                Some(Signature::parse(signature).map_err(|problem| error(format!("signature.{problem}")))?)
            }
        };
        let mlflow_version = mlmodel.get("mlflow_version").and_then(Value::as_str);
        Ok(Self {
            name,
            version,
            path: path.to_owned(),
            signature,
            mlflow_version: mlflow_version.unwrap_or_default().to_owned(),
            is_row_wise: flavors.keys().any(|flavor| ROW_WISE.contains(&flavor.as_str())),
        })
    }
}

/// Flavors whose predictions treat every row alone. A model of the user's own code may do anything.
const ROW_WISE: [&str; 4] = ["sklearn", "xgboost", "lightgbm", "catboost"];

/// Reads a YAML file.
pub(crate) fn yaml(path: &Path) -> Result<Value, String> {
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
            "{format: gppi/v1, loader: {type: module}}",
        );
        let error = Model::read(root.path()).unwrap_err().to_string();
        assert!(error.ends_with("loader.type: \"module\" cannot be served"), "{error}");
    }
}
