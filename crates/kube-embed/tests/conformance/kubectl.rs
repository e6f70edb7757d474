//! The real kubectl, for lines that start with `$`.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Value, json};
use tokio::process::Command;

/// kubectl with a kubeconfig.
pub(crate) struct Kubectl {
    programs: PathBuf,
    config: Value,
    directory: tempfile::TempDir,
}

impl Kubectl {
    /// Prepares the pinned kubectl. Building it needs Go, if it is not in the cache.
    pub(crate) async fn new(kubeconfig: &str) -> Self {
        let binary = crate::built::kubectl().await;
        Self {
            programs: binary.parent().unwrap().to_owned(),
            config: crate::run::yaml(kubeconfig),
            directory: tempfile::tempdir().unwrap(),
        }
    }

    /// Runs a script in a namespace. Returns the lines of stdout, then those of stderr, then a failed exit status.
    pub(crate) async fn run(&self, script: &str, namespace: &str) -> Vec<String> {
        let home = self.directory.path().join(namespace);
        std::fs::create_dir_all(&home).unwrap();
        let mut config = self.config.clone();
        for context in config["contexts"].as_array_mut().into_iter().flatten() {
            context["context"]["namespace"] = json!(namespace);
        }
        let kubeconfig = home.join("kubeconfig");
        std::fs::write(&kubeconfig, config.to_string()).unwrap();
        let path = std::env::var("PATH").unwrap_or_default();
        let output = Command::new("bash")
            .args(["-c", script])
            .current_dir(&home)
            .env("PATH", format!("{}:{path}", self.programs.display()))
            .env("KUBECONFIG", kubeconfig)
            .env("HOME", &home)
            .env("ns", namespace)
            .env("image", crate::backend::IMAGE)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .unwrap();
        let mut lines = shown(&output.stdout);
        lines.extend(shown(&output.stderr).iter().map(|line| format!("! {line}")));
        match output.status.code() {
            Some(0) => {}
            Some(code) => lines.push(format!("(exit code {code})")),
            None => lines.push("(killed)".into()),
        }
        lines
    }
}

/// Returns the lines without names of temporary files, and without the times in the headers of diffs.
fn shown(bytes: &[u8]) -> Vec<String> {
    static TEMPORARY: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"/tmp/(LIVE|MERGED)-\d+|/tmp/kubectl-edit-\d+\.yaml").unwrap());
    let text = String::from_utf8_lossy(bytes);
    let lines = text.lines().map(|line| {
        let line = match line.split_once('\t') {
            Some((name, _)) if line.starts_with("--- ") || line.starts_with("+++ ") => name,
            _ => line,
        };
        let line = TEMPORARY.replace_all(line, |found: &regex::Captures<'_>| match found.get(1) {
            Some(side) => side.as_str().to_owned(),
            None => "FILE".to_owned(),
        });
        // diff(1) prints its own command line, with options that depend on kubectl's environment.
        line.trim_end().to_owned()
    });
    lines.collect()
}
