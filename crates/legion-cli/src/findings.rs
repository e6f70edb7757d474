//! The problems of manifests: what the API server would refuse, with the line, the value and the fix.

use std::path::PathBuf;

use legion_api::{GROUP, Problem, Reason};
use serde::Serialize;
use serde_json::Value;
use url::Url;

use crate::manifest::Document;

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
    let written = document.at(&field).and_then(Value::as_str);
    let uri = written.filter(|_| field.ends_with("uri")).and_then(file_uri);
    if let (Some(written), Some(_)) = (written, &uri) {
        message = format!("must be a URI: a path begins with file://, and a space is %20 (it is {written:?})");
    }
    if let Some(value) = document.at(&field).and_then(shown)
        // Credentials in the value must not be printed.
        && !message.contains("credentials")
        && !message.contains(&value)
    {
        message.push_str(&format!(" (it is {value})"));
    }
    let mut remedy = problem.remedy;
    if let Some(uri) = uri {
        remedy = format!("write {uri:?} in line {line} of {}", document.file.display());
    } else if message.contains("of type string")
        && let Some(quoted) = in_quotes(document, &field)
    {
        remedy = format!("write {quoted} in line {line} of {}", document.file.display());
    } else if remedy == Reason::InvalidObject.remedy() {
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

/// Returns the URI for a path that stands where a URI is needed.
fn file_uri(written: &str) -> Option<String> {
    let path = written.strip_prefix("file://").unwrap_or(written);
    Some(Url::from_file_path(path).ok()?.to_string())
}

/// Returns the text to write where YAML has read a number, a boolean or a list instead of a text. YAML decides on the
/// type by the form, so only quotes keep `1.10` from becoming 1.1.
fn in_quotes(document: &Document, field: &str) -> Option<String> {
    let value = document.at(field)?;
    let text = match value {
        Value::Number(_) | Value::Bool(_) => document
            .written(field)
            .map_or_else(|| value.to_string(), ToOwned::to_owned),
        Value::Null => String::new(),
        Value::Array(_) => value.to_string(),
        Value::String(_) | Value::Object(_) => return None,
    };
    // A list has double quotes of its own.
    let quoted = if text.contains('"') {
        format!("'{text}'")
    } else {
        format!("\"{text}\"")
    };
    Some(format!("{quoted}, in quotes,"))
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
    use crate::manifest;

    fn found(text: &str) -> Vec<Finding> {
        let documents = manifest::parse(Path::new("wine.yaml"), text).unwrap();
        check(&documents[0])
    }

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
    fn a_number_where_text_is_due_is_answered_with_the_text_in_quotes() {
        let text = "apiVersion: legion-platform.org/v1alpha1\nkind: ModelTraining\nmetadata: {name: a8}\nspec:\n  model: {name: a8, version: 1.10}\n  toolchain: script\n  entrypoint: train.sh\n  hyperParameters:\n    lr: 0.10\n    shuffle: true\n    layers: [64, 32]\n    tag: 1e3\n    warmup:\n  source: {git: {uri: \"file:///a\", ref: 20240601}}\n";
        let findings = found(text);
        for (field, line, written) in [
            ("spec.model.version", 5, "\"1.10\""),
            ("spec.hyperParameters[lr]", 9, "\"0.10\""),
            ("spec.hyperParameters[shuffle]", 10, "\"true\""),
            ("spec.hyperParameters[layers]", 11, "\"[64,32]\""),
            ("spec.hyperParameters[tag]", 12, "\"1e3\""),
            ("spec.source.git.ref", 14, "\"20240601\""),
        ] {
            let finding = findings.iter().find(|finding| finding.field == field);
            let finding = finding.unwrap_or_else(|| panic!("{field}: {findings:#?}"));
            assert_eq!(finding.line, line, "{finding:?}");
            let remedy = format!("write {written}, in quotes, in line {line} of wine.yaml");
            assert_eq!(finding.remedy, remedy);
        }
        // The remedy heals.
        let mut healed = text.replace("    warmup:\n", "");
        for (number, quoted) in [
            ("1.10", "\"1.10\""),
            ("0.10", "\"0.10\""),
            ("true", "\"true\""),
            ("[64, 32]", "\"[64,32]\""),
            ("1e3", "\"1e3\""),
            ("20240601", "\"20240601\""),
        ] {
            healed = healed.replace(number, quoted);
        }
        assert_eq!(found(&healed), []);
    }

    #[test]
    fn a_path_where_a_uri_is_due_is_answered_with_the_uri() {
        let text = |uri: &str| {
            format!(
                "apiVersion: legion-platform.org/v1alpha1\nkind: ModelTraining\nmetadata: {{name: a}}\nspec:\n  model: {{name: a, version: \"1\"}}\n  toolchain: script\n  entrypoint: train.sh\n  source: {{git: {{uri: {uri:?}}}}}\n"
            )
        };
        for (written, uri) in [
            ("/srv/my repo", "file:///srv/my%20repo"),
            ("/srv/repo", "file:///srv/repo"),
            ("file:///srv/my repo", "file:///srv/my%20repo"),
        ] {
            let findings = found(&text(written));
            assert_eq!(findings.len(), 1, "{findings:#?}");
            assert_eq!(findings[0].field, "spec.source.git.uri");
            assert_eq!(findings[0].remedy, format!("write {uri:?} in line 8 of wine.yaml"));
            assert!(
                !findings[0].message.contains('^'),
                "no regular expression: {findings:?}"
            );
            assert_eq!(found(&text(uri)), [], "the remedy heals");
        }
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
