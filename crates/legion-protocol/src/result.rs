//! The result document: what a toolchain says at its end.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::text::bounded;

/// Largest result document, in bytes.
pub const MAX_BYTES: usize = 1 << 20;

/// What the file named by `LEGION_RESULT` holds, written last and by rename.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResultDocument {
    /// Version of the toolchain protocol.
    pub protocol: u32,
    /// The run as an external system knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<WireExternalRun>,
    /// What the command ran in: `python`, `from`, `lock`, ...
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// The model, if one was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelResult>,
    /// Other files of the run, to be stored beside the model.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<RunFile>,
    /// What users should know although the run succeeded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<WireNotice>,
    /// Why the run failed, in the toolchain's own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ToolError>,
}

/// The run as an external system (MLflow) knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "External")]
pub struct WireExternalRun {
    /// Name of the system.
    pub system: String,
    /// Its version.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Id of the run there.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Name of the run there.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Experiment it belongs to.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub experiment: String,
    /// Address of the run, when it outlives the pod.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uri: String,
    /// Number of other runs that the command made.
    #[serde(default)]
    pub other_runs: u32,
}

/// The model that a toolchain made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelResult {
    /// Directory of the model, relative to `LEGION_OUTPUT`.
    pub path: String,
    /// Its format, `name/version`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub format: String,
    /// Its name within the toolchain.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Whether it declares its inputs and outputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<bool>,
}

/// A file or directory of the run that is kept beside the model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunFile {
    /// Name in the archive.
    pub name: String,
    /// File or directory, relative to `LEGION_OUTPUT`.
    pub path: String,
}

/// Something users should know although the run succeeded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Notice")]
pub struct WireNotice {
    /// A CamelCase word: `NoSignature`, `UndeclaredParameter`, ...
    pub reason: String,
    /// One sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// A failure in the toolchain's own words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ToolError {
    /// A CamelCase word: `PythonNotAvailable`, ...
    pub reason: String,
    /// The field of the manifest that it is about.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
    /// What happened.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

/// Most notices that are passed on.
pub const MAX_NOTICES: usize = 16;

impl ResultDocument {
    /// Reads a document. The error says what is wrong without quoting the content.
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

    /// The same document with every text that goes into status bounded. Paths are left alone: a shortened path would be
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
    fn errors_do_not_quote() {
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
