//! The result document, which a toolchain writes at its end.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::text::bounded;

/// Size limit of a result document, in bytes.
pub const MAX_BYTES: usize = 1 << 20;

/// The content of the file `LEGION_RESULT`. A toolchain writes it last, and renames it into place.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResultDocument {
    /// Version of the toolchain protocol. It is 1.
    pub protocol: u32,
    /// The run in an external system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<WireExternalRun>,
    /// Software that the command ran with: `python`, `from`, `lock`, ... At most 16 entries.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// The model, if the run created one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelResult>,
    /// Other files of the run, to store next to the model.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<RunFile>,
    /// Messages for users that are not errors. At most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<WireNotice>,
    /// Why the run failed, in the words of the toolchain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ToolError>,
}

/// The run in an external system, such as MLflow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "External")]
pub struct WireExternalRun {
    /// Name of the system, such as `mlflow`.
    pub system: String,
    /// Version of the system.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Id of the run in the system.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Name of the run in the system.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Name of the experiment that contains the run.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub experiment: String,
    /// Address of the run, if the system outlives the pod.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uri: String,
    /// Number of other runs that the command created.
    #[serde(default)]
    pub other_runs: u32,
}

/// The model that a run created.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelResult {
    /// Directory of the model, relative to `LEGION_OUTPUT`.
    pub path: String,
    /// Format, as `name/version`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub format: String,
    /// Name of the model in the toolchain.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Whether the model declares its inputs and outputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<bool>,
}

/// A file or directory of the run that is stored next to the model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunFile {
    /// Path in the archive.
    pub name: String,
    /// File or directory, relative to `LEGION_OUTPUT`.
    pub path: String,
}

/// A message for users that is not an error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Notice")]
pub struct WireNotice {
    /// A CamelCase word: `NoSignature`, `UndeclaredParameter`, ...
    pub reason: String,
    /// One sentence, at most 256 bytes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// A failure in the words of the toolchain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ToolError {
    /// A CamelCase word: `PythonNotAvailable`, ...
    pub reason: String,
    /// Path of the field in the manifest, such as `spec.entrypoint`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
    /// What happened. At most 1024 bytes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// How to fix it. At most 512 bytes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub remedy: String,
    /// Where the failure comes from. It decides the reason of the training.
    #[serde(default, skip_serializing_if = "Origin::is_default")]
    pub origin: Origin,
}

/// Where a failure comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Origin {
    /// The project or the settings of the training. The toolchain refused them.
    #[default]
    Input,
    /// The code of the project. It was running.
    Code,
    /// The output of the code. The code itself succeeded.
    Output,
    /// Software or a service that the code needs: a package, an interpreter, a tracking server.
    Environment,
    /// The toolchain itself.
    Toolchain,
}

impl Origin {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Most notices of a run. The rest is dropped.
pub const MAX_NOTICES: usize = 16;

impl ResultDocument {
    /// Parses a document.
    ///
    /// # Errors
    /// The bytes are not a result document of this version of the protocol. The text does not quote the content.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let document: Self = serde_json::from_slice(bytes)
            .map_err(|e| format!("is not a result document: line {} column {}", e.line(), e.column()))?;
        if document.protocol != crate::PROTOCOL_VERSION {
            return Err(format!(
                "says protocol {}, and this version of Legion speaks {}",
                document.protocol,
                crate::PROTOCOL_VERSION
            ));
        }
        Ok(document)
    }

    /// Returns the document with bounded texts for the status. Paths stay as they are: a shortened path would be
    /// another path.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        if let Some(e) = &mut self.external {
            for text in [
                &mut e.system,
                &mut e.version,
                &mut e.id,
                &mut e.name,
                &mut e.experiment,
                &mut e.uri,
            ] {
                *text = bounded(text, 256);
            }
        }
        self.environment = std::mem::take(&mut self.environment)
            .into_iter()
            .take(16)
            .map(|(k, v)| (bounded(&k, 64), bounded(&v, 128)))
            .collect();
        if let Some(m) = &mut self.model {
            m.format = bounded(&m.format, 64);
            m.name = bounded(&m.name, 128);
        }
        self.notices.truncate(MAX_NOTICES);
        for n in &mut self.notices {
            n.reason = bounded(&n.reason, 64);
            n.message = bounded(&n.message, 256);
        }
        if let Some(e) = &mut self.error {
            e.reason = bounded(&e.reason, 64);
            e.field = bounded(&e.field, 128);
            e.message = bounded(&e.message, 1024);
            e.remedy = bounded(&e.remedy, 512);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_do_not_quote_the_document() {
        let error = ResultDocument::parse(b"{\"protocol\": \"AKIASECRET\"}").unwrap_err();
        assert!(!error.contains("AKIASECRET"), "{error}");
        assert!(error.contains("line 1"), "{error}");
        assert!(
            ResultDocument::parse(b"{\"protocol\":2}")
                .unwrap_err()
                .contains("protocol 2")
        );
        assert!(ResultDocument::parse(b"{\"protocol\":1}").is_ok());
    }
}
