//! Manifests: YAML files with one or more documents. The line of every field is known.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    io::Read as _,
    path::{Path, PathBuf},
};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;

use crate::exit::{CliError, Code, Result};

/// One document of a manifest.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Document {
    /// File of the document. `-` is standard input.
    pub(crate) file: PathBuf,
    pub(crate) value: Value,
    /// Line of every field. The key is the path, split into its steps.
    lines: BTreeMap<Vec<String>, u64>,
    first_line: u64,
}

impl Document {
    /// Returns `kind/name`, for messages.
    #[must_use]
    pub(crate) fn title(&self) -> String {
        let text = |pointer: &str| self.value.pointer(pointer).and_then(Value::as_str).unwrap_or("?");
        format!("{}/{}", text("/kind"), text("/metadata/name"))
    }

    /// Returns the value of a field. The path is written like `spec.data[0].name`, or `spec.hyperParameters[c]`.
    #[must_use]
    pub(crate) fn at(&self, path: &str) -> Option<&Value> {
        steps(path)
            .into_iter()
            .try_fold(&self.value, |value, step| match value {
                Value::Array(items) => items.get(step.parse::<usize>().ok()?),
                other => other.get(step),
            })
    }

    /// Returns the line of a field, or the line of the nearest field around it.
    #[must_use]
    pub(crate) fn line(&self, path: &str) -> u64 {
        let steps: Vec<String> = steps(path).into_iter().map(ToOwned::to_owned).collect();
        (1..=steps.len())
            .rev()
            .find_map(|end| self.lines.get(&steps[..end]).copied())
            .unwrap_or(self.first_line)
    }
}

/// Splits the path of a field into steps. Brackets hold an index, or a key that may contain dots.
fn steps(path: &str) -> Vec<&str> {
    let mut steps = Vec::new();
    let mut rest = path.trim_start_matches('.');
    while !rest.is_empty() {
        let (step, more) = match rest.strip_prefix('[') {
            Some(inner) => inner.split_once(']').unwrap_or((inner, "")),
            None => rest.split_at(rest.find(['.', '[']).unwrap_or(rest.len())),
        };
        steps.push(step);
        rest = more.strip_prefix('.').unwrap_or(more);
    }
    steps
}

/// Reads every document of a file. `-` reads standard input. Empty documents are left out.
pub(crate) fn read(path: &Path) -> Result<Vec<Document>> {
    let text = if path == Path::new("-") {
        let mut text = String::new();
        io::stdin()
            .read_to_string(&mut text)
            .map_err(|error| CliError::io("standard input", error))?;
        text
    } else {
        fs::read_to_string(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => CliError::new(Code::NotFound, format!("{}: no such file", path.display()))
                .remedy("check the path, or use `-` for standard input"),
            io::ErrorKind::IsADirectory => CliError::new(Code::Invalid, format!("{}: is a directory", path.display()))
                .remedy("name each manifest in it"),
            io::ErrorKind::InvalidData => CliError::new(Code::Invalid, format!("{}: not UTF-8 text", path.display()))
                .remedy("use a manifest in YAML or JSON"),
            _ => CliError::io(path.display(), error),
        })?
    };
    parse(path, &text)
}

/// Parses the documents of a text. `path` is for messages.
pub(crate) fn parse(path: &Path, text: &str) -> Result<Vec<Document>> {
    let trees: Vec<Spanned<Tree>> = serde_saphyr::from_multiple(text).map_err(|error| {
        // The message of the parser shows the lines around the fault. Its advice to programmers is left out.
        let text = error
            .to_string()
            .replace(", set DuplicateKeyPolicy in Options if acceptable", "")
            .replace("<input>", &path.display().to_string());
        let text = text.trim_end();
        let text = text.strip_prefix("error: ").unwrap_or(text);
        CliError::new(Code::Invalid, format!("{}: not valid YAML: {text}", path.display()))
            .remedy("fix the YAML at the arrow")
    })?;
    trees
        .into_iter()
        .map(|tree| {
            let first_line = tree.referenced.line();
            let mut lines = BTreeMap::new();
            let value = tree.value.flatten(&[], &mut lines);
            if !value.is_object() {
                return Err(CliError::new(
                    Code::Invalid,
                    format!(
                        "{}:{first_line}: not an object: a manifest needs apiVersion, kind and metadata",
                        path.display()
                    ),
                ));
            }
            Ok(Document {
                file: path.to_owned(),
                value,
                lines,
                first_line,
            })
        })
        .collect()
}

/// A YAML value, with the location of every value in it.
#[derive(Debug)]
enum Tree {
    Scalar(Value),
    List(Vec<Spanned<Tree>>),
    Map(Vec<(Spanned<String>, Tree)>),
}

impl Tree {
    fn flatten(self, path: &[String], lines: &mut BTreeMap<Vec<String>, u64>) -> Value {
        match self {
            Self::Scalar(value) => value,
            Self::List(items) => Value::Array(
                items
                    .into_iter()
                    .enumerate()
                    .map(|(index, item)| {
                        let path = [path, &[index.to_string()]].concat();
                        lines.insert(path.clone(), item.referenced.line());
                        item.value.flatten(&path, lines)
                    })
                    .collect(),
            ),
            Self::Map(entries) => {
                let mut map = Map::new();
                for (key, value) in entries {
                    let path = [path, std::slice::from_ref(&key.value)].concat();
                    lines.insert(path.clone(), key.referenced.line());
                    map.insert(key.value, value.flatten(&path, lines));
                }
                Value::Object(map)
            }
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_bool<E>(self, value: bool) -> std::result::Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> std::result::Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> std::result::Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> std::result::Result<Tree, E> {
        Number::from_f64(value)
            .map(|number| Tree::Scalar(Value::Number(number)))
            .ok_or_else(|| E::custom(format!("{value} is not a JSON number: write it as a string")))
    }

    fn visit_str<E>(self, value: &str) -> std::result::Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_string<E>(self, value: String) -> std::result::Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_unit<E>(self) -> std::result::Result<Tree, E> {
        Ok(Tree::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> std::result::Result<Tree, E> {
        Ok(Tree::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<Tree, D::Error> {
        Tree::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> std::result::Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Tree::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> std::result::Result<Tree, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Tree::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_document_has_the_lines_of_its_fields() {
        let text = "# first\nkind: A\nmetadata:\n  name: x\n---\n---\nkind: B\nspec:\n  items:\n    - a: 1\n    - b: 1.5\n      c: \"007\"\n      d: 007x\n      e: ~\n";
        let documents = parse(Path::new("f.yaml"), text).unwrap();
        assert_eq!(documents.len(), 2);
        assert_eq!(documents[0].title(), "A/x");
        assert_eq!(documents[0].line("metadata.name"), 4);
        assert_eq!(documents[1].line("spec.items[1].c"), 12);
        assert_eq!(
            documents[1].line("spec.items[1].absent.deeper"),
            11,
            "the nearest field around it"
        );
        assert_eq!(
            documents[1].value["spec"]["items"],
            serde_json::json!([{"a": 1}, {"b": 1.5, "c": "007", "d": "007x", "e": null}])
        );
    }

    #[test]
    fn invalid_yaml_and_a_document_that_is_no_object_are_rejected_with_the_line() {
        let error = parse(Path::new("f.yaml"), "a: [1, 2\nb: 3\n").unwrap_err();
        assert_eq!(error.code, Code::Invalid);
        assert!(error.message.starts_with("f.yaml: not valid YAML: "), "{error}");
        let error = parse(Path::new("f.yaml"), "a: 1\n---\n- 1\n").unwrap_err();
        assert_eq!(
            error.message,
            "f.yaml:3: not an object: a manifest needs apiVersion, kind and metadata"
        );
    }

    #[test]
    fn a_duplicate_key_is_rejected() {
        let error = parse(Path::new("f.yaml"), "a: 1\na: 2\n").unwrap_err();
        assert!(
            error
                .message
                .contains("f.yaml: not valid YAML: line 2 column 1: duplicate"),
            "{error}"
        );
        assert!(!error.message.contains("Options"), "{error}");
    }
}
