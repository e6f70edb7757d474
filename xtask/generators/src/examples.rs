//! `examples/*/training.yaml` and `training-git.yaml`, from `example.yaml` and `project/`.
//! `examples/README.md` has the format.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::{File, NOTE};

const REPOSITORY: &str = "https://github.com/legion-platform/legion.git";

pub(super) fn files(root: &Path) -> anyhow::Result<Vec<File>> {
    let mut directories: Vec<PathBuf> = fs::read_dir(root.join("examples"))
        .context("examples")?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    directories.retain(|path| path.join("example.yaml").is_file() && path.join("project").is_dir());
    directories.sort();
    let mut files = Vec::new();
    for directory in directories {
        let name = directory
            .file_name()
            .and_then(|name| name.to_str())
            .context("name of an example")?;
        let made = example(&directory, name).with_context(|| format!("examples/{name}"))?;
        files.extend(made);
    }
    Ok(files)
}

fn example(directory: &Path, name: &str) -> anyhow::Result<[File; 2]> {
    let hand_written = fs::read_to_string(directory.join("example.yaml"))?;
    let example: Value = serde_saphyr::from_str(&hand_written)?;
    let training = example["metadata"]["name"]
        .as_str()
        .context("metadata.name is missing")?;
    let project = project(&directory.join("project"))?;
    let config_map = format!("{training}-source");

    let mut source = json!({ "name": config_map });
    let mut lines = format!("  source:\n    configMap:\n      name: {config_map}\n");
    if project.iter().any(|file| file.key != file.path) {
        source["items"] = project
            .iter()
            .map(|file| json!({"key": file.key, "path": file.path}))
            .collect();
        lines.push_str("      items:\n");
        for file in &project {
            let _ = writeln!(lines, "        - {{key: {}, path: {}}}", file.key, file.path);
        }
    }
    let mut data = String::new();
    for file in &project {
        let _ = write!(data, "  {}: {}", file.key, block(&file.text));
    }
    let manifest = format!(
        "# {NOTE} Made from examples/{name}/project and examples/{name}/example.yaml.\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {config_map}\ndata:\n{data}---\n{}",
        model_training(&hand_written, &lines)?
    );
    let expected = json!([
        {
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": config_map},
            "data": project.iter().map(|file| (file.key.clone(), file.text.clone())).collect::<std::collections::BTreeMap<_, _>>(),
        },
        object(&example, json!({ "configMap": source }), None),
    ]);
    holds(&manifest, &expected)?;

    let work_dir = format!("examples/{name}/project");
    let git = json!({"uri": REPOSITORY, "ref": "main"});
    let lines = format!("  source:\n    git: {{uri: {REPOSITORY}, ref: main}}\n  workDir: {work_dir}\n");
    let from_git = format!(
        "# {NOTE} Made from examples/{name}/example.yaml.\n{}",
        model_training(&hand_written, &lines)?
    );
    holds(
        &from_git,
        &json!([object(&example, json!({ "git": git }), Some(&work_dir))]),
    )?;

    Ok([
        File::new(format!("examples/{name}/training.yaml"), manifest),
        File::new(format!("examples/{name}/training-git.yaml"), from_git),
    ])
}

struct ProjectFile {
    path: String,
    key: String,
    text: String,
}

fn project(root: &Path) -> anyhow::Result<Vec<ProjectFile>> {
    let mut files = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            // What running the project by hand leaves behind.
            if name.starts_with('.') || matches!(name, "__pycache__" | "mlruns" | "mlflow.db" | "mlartifacts") {
                continue;
            }
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let relative = path
                .strip_prefix(root)?
                .to_str()
                .context("a path that is not UTF-8")?
                .to_owned();
            files.push(ProjectFile {
                key: relative.replace('/', "--"),
                text: fs::read_to_string(&path).with_context(|| relative.clone())?,
                path: relative,
            });
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    ensure!(!files.is_empty(), "project/ is empty");
    Ok(files)
}

/// The hand-written text with its comments, and the source after the toolchain.
fn model_training(hand_written: &str, source: &str) -> anyhow::Result<String> {
    let mut text = String::from("apiVersion: legion-platform.org/v1alpha1\nkind: ModelTraining\n");
    let mut inserted = false;
    // The comments at the top speak of the hand-written file.
    for line in hand_written.lines().skip_while(|line| line.starts_with('#')) {
        let _ = writeln!(text, "{line}");
        if line.starts_with("  toolchain:") {
            text.push_str(source);
            inserted = true;
        }
    }
    ensure!(inserted, "example.yaml needs a line \"  toolchain: NAME\" below spec");
    Ok(text)
}

fn object(example: &Value, source: Value, work_dir: Option<&str>) -> Value {
    let mut object = example.clone();
    object["apiVersion"] = json!("legion-platform.org/v1alpha1");
    object["kind"] = json!("ModelTraining");
    object["spec"]["source"] = source;
    if let Some(work_dir) = work_dir {
        object["spec"]["workDir"] = json!(work_dir);
    }
    object
}

/// The text was put together line by line: it must say what it is meant to say.
fn holds(text: &str, expected: &Value) -> anyhow::Result<()> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(text).context("the generated manifest is not valid YAML")?;
    ensure!(
        Value::Array(documents) == *expected,
        "the generated manifest does not say what example.yaml and project/ say"
    );
    Ok(())
}

/// A text as a YAML block scalar below a key at two spaces.
fn block(text: &str) -> String {
    // Counted from the key, which stands at 2 itself.
    let indicator = if text.starts_with([' ', '\n']) { "2" } else { "" };
    let chomping = if !text.ends_with('\n') {
        "-"
    } else if text.ends_with("\n\n") || text == "\n" {
        "+"
    } else {
        ""
    };
    let mut out = format!("|{indicator}{chomping}\n");
    for line in text.lines() {
        if line.is_empty() {
            out.push('\n');
        } else {
            let _ = writeln!(out, "    {line}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_survives_as_a_block() {
        for text in [
            "a\n",
            "a",
            "a\n\n",
            " indented\n  more\n",
            "\n\na\n",
            "tab\there: {x}\n",
            "# no comment\n---\n...\n",
        ] {
            let yaml = format!("data:\n  key: {}---\nnext: 1\n", block(text));
            let documents: Vec<Value> = serde_saphyr::from_multiple(&yaml).unwrap();
            assert_eq!(
                documents,
                [json!({"data": {"key": text}}), json!({"next": 1})],
                "{text:?}"
            );
        }
    }
}
