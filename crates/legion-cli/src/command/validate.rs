//! `legionctl validate`: checks manifests like the API server does, but needs no API server.

use std::{io::Write, path::PathBuf};

use legion_api::{GROUP, Problem, Reason};
use serde::Serialize;
use serde_json::Value;

use crate::{
    args::Format,
    exit::{CliError, Code, Result},
    manifest::{self, Document},
    output,
};

/// A problem and its location.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// File of the object. `-` is standard input.
    pub(crate) file: PathBuf,
    /// Line in the file, from 1.
    pub(crate) line: u64,
    /// `kind/name` of the object.
    pub(crate) object: String,
    /// Reason of the problem, as in conditions.
    pub(crate) reason: String,
    /// Path of the field at fault.
    pub(crate) field: String,
    pub(crate) message: String,
    /// How to fix it.
    pub(crate) remedy: String,
}

/// Returns the problems of a document. Of other kinds than Legion's, only the common fields are checked, because only a
/// cluster knows these kinds.
#[must_use]
pub(crate) fn check(document: &Document) -> Vec<Finding> {
    let api_version = document.value["apiVersion"].as_str().unwrap_or_default();
    let is_ours = api_version == GROUP || api_version.starts_with(&format!("{GROUP}/"));
    let problems = if is_ours {
        legion_api::validate::object(&document.value, None)
    } else {
        foreign(&document.value)
    };
    problems.into_iter().map(|problem| finding(document, problem)).collect()
}

/// Adds the line, the value and the exact place of the fix to a problem. Only the document knows them.
fn finding(document: &Document, problem: Problem) -> Finding {
    let mut field = problem.field.trim_start_matches('.').to_owned();
    // A rule over the whole object names its field only in the message.
    if field.is_empty() && problem.message.starts_with("metadata.name ") {
        field.push_str("metadata.name");
    }
    let line = document.line(&field);
    let mut message = problem.message;
    if let Some(value) = document.at(&field).and_then(shown)
        // Credentials in the value must not be printed.
        && !message.contains("credentials")
        && !message.contains(&value)
    {
        message.push_str(&format!(" (it is {value})"));
    }
    let mut remedy = problem.remedy;
    if remedy == Reason::InvalidObject.remedy() {
        let kind = document.value["kind"].as_str().unwrap_or_default().to_lowercase();
        let file = document.file.display();
        remedy = format!("correct {field} in line {line} of {file}; every field is in docs/reference/{kind}.md");
    } else if let Some(known) = remedy.strip_prefix("known here: ") {
        let written = field.rsplit('.').next().unwrap_or_default();
        if let Some(meant) = nearest(written, known) {
            remedy = format!("did you mean {meant}? {remedy}");
        }
    }
    Finding {
        file: document.file.clone(),
        line,
        object: document.title(),
        reason: problem.reason.to_string(),
        field,
        message,
        remedy,
    }
}

/// Formats a value for a message: a scalar unchanged, a map as its keys, a list as its length. Long values are left
/// out.
fn shown(value: &Value) -> Option<String> {
    const MOST: usize = 80;
    let text = match value {
        Value::Null => return None,
        Value::Object(map) => {
            let keys: Vec<&str> = map.keys().map(String::as_str).collect();
            format!("a map of {}", keys.join(", "))
        }
        Value::Array(items) => format!("a list of {}", items.len()),
        scalar => scalar.to_string(),
    };
    (text.chars().count() <= MOST).then_some(text)
}

/// Returns the name among `known` that is most similar to `written`, if one is similar enough for a typing error.
fn nearest<'a>(written: &str, known: &'a str) -> Option<&'a str> {
    let distance = |name: &str| strsim::damerau_levenshtein(&written.to_lowercase(), &name.to_lowercase());
    known
        .split(", ")
        .min_by_key(|name| distance(name))
        // At most half of the letters differ. Otherwise it is a different word.
        .filter(|name| distance(name) * 2 <= name.chars().count())
}

/// Checks the fields that objects of every kind need.
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

/// Validates the files and prints the problems.
pub(crate) fn run(files: &[PathBuf], format: Format, out: &mut dyn Write) -> Result<Code> {
    let mut findings = Vec::new();
    let mut count = 0;
    for file in files {
        let documents = manifest::read(file)?;
        if documents.is_empty() {
            return Err(
                CliError::new(Code::Invalid, format!("{}: contains no object", file.display()))
                    .remedy("add an object; examples/wine/training.yaml is a complete training"),
            );
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

/// Formats a finding like a compiler error: `file:line: object: field: message`.
#[must_use]
pub(crate) fn text(finding: &Finding) -> String {
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
    fn problems_have_a_file_a_line_an_object_a_field_and_a_remedy() {
        let text = "apiVersion: legion-platform.org/v1alpha1\nkind: ModelTraining\nmetadata: {name: wine}\nspec:\n  model: {name: wine, version: \"1\"}\n  toolchain: mlflow\n  sauce: {}\n  source:\n    git: {uri: https://example.com/x.git}\n    configMap: {name: x}\n";
        let documents = manifest::parse(Path::new("wine.yaml"), text).unwrap();
        let findings = check(&documents[0]);
        assert!(
            findings.iter().any(|finding| finding.field == "spec.sauce"
                && finding.line == 7
                && finding.remedy.starts_with("did you mean source? ")),
            "{findings:?}"
        );
        assert!(
            findings
                .iter()
                .all(|finding| finding.object == "ModelTraining/wine" && !finding.remedy.is_empty())
        );
    }

    #[test]
    fn a_problem_has_the_value_and_the_place_of_the_fix() {
        let text = "apiVersion: legion-platform.org/v1alpha1\nkind: ModelTraining\nmetadata: {name: wine}\nspec:\n  model: {name: wine, version: \"1\"}\n  toolchain: mlflow\n  source:\n    git: {uri: https://example.com/x.git}\n    configMap: {name: x}\n  data:\n    - {name: d, connection: c, localPath: ../x}\n  hyperParameters:\n    c: 0.5\n";
        let found = |text: &str| {
            let documents = manifest::parse(Path::new("wine.yaml"), text).unwrap();
            check(&documents[0])
        };
        let findings = found(&text.replace("  hyperParameters:\n    c: 0.5\n", ""));
        let of = |field: &str| findings.iter().find(|finding| finding.field == field).unwrap();
        assert!(
            of("spec.source").message.ends_with("(it is a map of configMap, git)"),
            "{findings:?}"
        );
        let path = of("spec.data[0].localPath");
        assert!(path.message.ends_with("(it is \"../x\")"), "{path:?}");
        assert_eq!(
            path.remedy,
            "correct spec.data[0].localPath in line 11 of wine.yaml; every field is in docs/reference/modeltraining.md"
        );

        let findings = found(text);
        assert_eq!(findings[0].field, "spec.hyperParameters[c]");
        assert_eq!(findings[0].line, 13);
        assert!(
            findings[0].message.contains("0.5") && !findings[0].message.contains("(it is"),
            "{findings:?}"
        );

        let secret = text
            .replace("https://example.com", "https://me:secret@example.com")
            .replace("    configMap: {name: x}\n", "")
            .replace("c: 0.5", "c: half");
        assert!(!found(&secret).is_empty());
        assert!(
            found(&secret)
                .iter()
                .all(|finding| !super::text(finding).contains("secret@"))
        );

        let long = text
            .replace(
                "{name: wine}\n",
                "{name: a-name-of-more-than-forty-characters-is-too-long}\n",
            )
            .replace("c: 0.5", "c: half");
        assert!(
            found(&long)
                .iter()
                .any(|finding| finding.field == "metadata.name" && finding.message.contains("too-long"))
        );
    }

    #[test]
    fn a_wrong_version_of_our_group_has_the_right_one_in_the_remedy() {
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
    fn other_kinds_need_only_the_fields_of_every_object() {
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
