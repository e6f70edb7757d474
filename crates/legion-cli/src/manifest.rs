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
    /// Text of every number, boolean and null. `1.10` is the number 1.1, but a user meant a text.
    written: BTreeMap<Vec<String>, String>,
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

    /// Returns a number, boolean or null as it stands in the file.
    #[must_use]
    pub(crate) fn written(&self, path: &str) -> Option<&str> {
        let steps: Vec<String> = steps(path).into_iter().map(ToOwned::to_owned).collect();
        self.written.get(&steps).map(String::as_str)
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
            let mut marks = Marks {
                text: text.lines().collect(),
                lines: BTreeMap::new(),
                written: BTreeMap::new(),
            };
            let value = marks.flatten(tree, &[]);
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
                lines: marks.lines,
                written: marks.written,
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
    Map(Vec<(Spanned<String>, Spanned<Tree>)>),
}

/// Places of the values of a document.
struct Marks<'a> {
    /// Lines of the file.
    text: Vec<&'a str>,
    lines: BTreeMap<Vec<String>, u64>,
    written: BTreeMap<Vec<String>, String>,
}

impl Marks<'_> {
    fn flatten(&mut self, tree: Spanned<Tree>, path: &[String]) -> Value {
        let place = (tree.referenced.line(), tree.referenced.column());
        match tree.value {
            Tree::Scalar(Value::String(text)) => Value::String(text),
            Tree::Scalar(value) => {
                if let Some(text) = self.scalar(place) {
                    self.written.insert(path.to_vec(), text);
                }
                value
            }
            Tree::List(items) => Value::Array(
                items
                    .into_iter()
                    .enumerate()
                    .map(|(index, item)| {
                        let path = [path, &[index.to_string()]].concat();
                        self.lines.insert(path.clone(), item.referenced.line());
                        self.flatten(item, &path)
                    })
                    .collect(),
            ),
            Tree::Map(entries) => {
                let mut map = Map::new();
                for (key, value) in entries {
                    let path = [path, std::slice::from_ref(&key.value)].concat();
                    self.lines.insert(path.clone(), key.referenced.line());
                    let value = self.flatten(value, &path);
                    map.insert(key.value, value);
                }
                Value::Object(map)
            }
        }
    }

    /// Returns the plain scalar at a line and a column, both counted from 1. It ends where YAML ends it.
    fn scalar(&self, (line, column): (u64, u64)) -> Option<String> {
        let line = self.text.get(usize::try_from(line).ok()?.checked_sub(1)?)?;
        let rest = line.chars().skip(usize::try_from(column).ok()?.checked_sub(1)?);
        let scalar: String = rest
            .take_while(|c| !matches!(c, ',' | ']' | '}' | '#') && !c.is_whitespace())
            .collect();
        (!scalar.is_empty()).then_some(scalar)
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
        assert_eq!(documents[1].written("spec.items[1].b"), Some("1.5"));
        assert_eq!(documents[1].written("spec.items[1].c"), None, "a text");
        assert_eq!(
            documents[1].value["spec"]["items"],
            serde_json::json!([{"a": 1}, {"b": 1.5, "c": "007", "d": "007x", "e": null}])
        );
    }

    #[test]
    fn numbers_and_booleans_are_known_as_they_are_written() {
        let text = "a: {b: 1.10, c: true, größe: 0x1F}\nd: [1e3, 20240601] # numbers\ne: 007.0   \n---\na: 2.50\n";
        let documents = parse(Path::new("f.yaml"), text).unwrap();
        let written = |path: &str| documents[0].written(path);
        assert_eq!(written("a.b"), Some("1.10"));
        assert_eq!(written("a.c"), Some("true"));
        assert_eq!(written("a.größe"), Some("0x1F"));
        assert_eq!((written("d[0]"), written("d[1]")), (Some("1e3"), Some("20240601")));
        assert_eq!(written("e"), Some("007.0"));
        assert_eq!(documents[1].written("a"), Some("2.50"));
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
