//! `legionctl validate`: the API server's verdict, without one.

use std::{io::Write, path::PathBuf};

use legion_api::{GROUP, Problem};
use serde::Serialize;
use serde_json::Value;

use crate::{
    args::Format,
    exit::{CliError, Code, Result},
    manifest::{self, Document},
    output,
};

/// A problem and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The file; `-` is standard input.
    pub file: PathBuf,
    /// The line, counted from 1.
    pub line: u64,
    /// `kind/name` of the object.
    pub object: String,
    /// The class of the problem.
    pub reason: String,
    /// The field at fault.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

/// What is wrong with a document. Kinds of others are not judged: only a cluster knows them.
#[must_use]
pub fn check(document: &Document) -> Vec<Finding> {
    let api_version = document.value["apiVersion"].as_str().unwrap_or_default();
    let is_ours = api_version == GROUP || api_version.starts_with(&format!("{GROUP}/"));
    let problems = if is_ours {
        legion_api::validate::object(&document.value, None)
    } else {
        foreign(&document.value)
    };
    problems
        .into_iter()
        .map(|problem| Finding {
            file: document.file.clone(),
            line: document.line(&problem.field),
            object: document.title(),
            reason: problem.reason.to_string(),
            field: problem.field.trim_start_matches('.').to_owned(),
            message: problem.message,
            remedy: problem.remedy,
        })
        .collect()
}

/// What every object needs, whatever its kind.
fn foreign(value: &Value) -> Vec<Problem> {
    [
        ("apiVersion", "/apiVersion"),
        ("kind", "/kind"),
        ("metadata.name", "/metadata/name"),
    ]
    .into_iter()
    .filter(|(_, pointer)| value.pointer(pointer).and_then(Value::as_str).is_none_or(str::is_empty))
    .map(|(field, _)| {
        Problem::new(
            legion_api::Reason::InvalidObject,
            field,
            "Required value: every object needs it",
        )
    })
    .collect()
}

/// Validates the files and prints what is wrong.
pub fn run(files: &[PathBuf], format: Format, out: &mut dyn Write) -> Result<Code> {
    let mut findings = Vec::new();
    let mut count = 0;
    for file in files {
        let documents = manifest::read(file)?;
        if documents.is_empty() {
            return Err(CliError::new(
                Code::Invalid,
                format!("{}: no object in it", file.display()),
            ));
        }
        count += documents.len();
        findings.extend(documents.iter().flat_map(check));
    }
    match format {
        Format::Json | Format::Yaml => output::structured(out, format, &findings)?,
        Format::Table | Format::Report => {
            for finding in &findings {
                output::line(out, format_args!("{}", text(finding)))?;
            }
            if findings.is_empty() {
                output::line(out, format_args!("{count} object(s) valid"))?;
            }
        }
    }
    Ok(if findings.is_empty() { Code::Ok } else { Code::Invalid })
}

/// A finding as compilers print theirs.
#[must_use]
pub fn text(finding: &Finding) -> String {
    let mut text = format!(
        "{}:{}: {}: {}: {}",
        finding.file.display(),
        finding.line,
        finding.object,
        finding.field,
        finding.message
    );
    if !finding.remedy.is_empty() {
        text.push_str(&format!("\n  remedy: {}", finding.remedy));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn problems_name_file_line_object_field_and_remedy() {
        let text = "apiVersion: legion-platform.org/v1alpha1\nkind: ModelTraining\nmetadata: {name: wine}\nspec:\n  model: {name: wine, version: \"1\"}\n  toolchain: mlflow\n  sauce: {}\n  source:\n    git: {uri: https://example.com/x.git}\n    configMap: {name: x}\n";
        let documents = manifest::parse(Path::new("wine.yaml"), text).unwrap();
        let findings = check(&documents[0]);
        assert!(
            findings
                .iter()
                .any(|finding| finding.field == "spec.sauce" && finding.line == 7),
            "{findings:?}"
        );
        assert!(
            findings
                .iter()
                .all(|finding| finding.object == "ModelTraining/wine" && !finding.remedy.is_empty())
        );
    }

    #[test]
    fn a_wrong_version_of_our_group_is_told_the_right_one() {
        let documents = manifest::parse(
            Path::new("f"),
            "apiVersion: legion-platform.org/v1\nkind: ModelTraining\nmetadata: {name: a}\n",
        )
        .unwrap();
        let findings = check(&documents[0]);
        assert_eq!(findings[0].field, "apiVersion");
        assert!(findings[0].remedy.contains("v1alpha1"), "{findings:?}");
    }

    #[test]
    fn kinds_of_others_are_only_asked_for_what_every_object_has() {
        let documents = manifest::parse(
            Path::new("f"),
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\nwhatever: 1\n---\nkind: X\n",
        )
        .unwrap();
        assert!(check(&documents[0]).is_empty());
        let fields: Vec<_> = check(&documents[1]).into_iter().map(|finding| finding.field).collect();
        assert_eq!(fields, ["apiVersion", "metadata.name"]);
    }
}
