//! Programs of other people that suites run: Helm, kubeconform, kubectl.

use std::{
    collections::BTreeMap,
    env,
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::local::{repository, text, until};

/// Where a pinned program lies (`cargo xtask cluster tool NAME`); it is built where it is not in the cache.
pub fn path(name: &str) -> anyhow::Result<PathBuf> {
    static FOUND: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());
    // Held meanwhile: one build at a time is enough.
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(path) = found.get(name) {
        return Ok(path.clone());
    }
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["xtask", "cluster", "tool", name])
        .current_dir(repository())
        .stderr(Stdio::inherit())
        .output()
        .context("cargo cannot be started")?;
    ensure!(output.status.success(), "`cargo xtask cluster tool {name}` fails");
    let path = PathBuf::from(String::from_utf8(output.stdout)?.trim_end());
    found.insert(name.to_owned(), path.clone());
    Ok(path)
}

/// Where Go keeps a module that the go.mod in this directory below `tests/kubernetes` requires; it is downloaded where it is
/// not there.
pub fn module(directory: &str, name: &str) -> anyhow::Result<PathBuf> {
    let said = Command::new("go")
        .args(["mod", "download", "-json", name])
        .current_dir(repository().join("tests/kubernetes").join(directory))
        .env("GOWORK", "off")
        .output()
        .context("go cannot be started: install Go 1.26 or newer")?;
    let answer: Value = serde_json::from_slice(&said.stdout).unwrap_or_default();
    let directory = answer["Dir"].as_str();
    Ok(directory
        .with_context(|| format!("{name}: {}{answer}", String::from_utf8_lossy(&said.stderr)))?
        .into())
}

/// What a command printed, and whether it did what it was told.
#[derive(Debug)]
pub struct Said {
    /// It ended with 0.
    pub ok: bool,
    /// Its exit code.
    pub code: Option<i32>,
    /// What it printed to its output.
    pub out: String,
    /// Everything that it printed.
    pub all: String,
}

/// Runs a command in the repository's root, with something on its input.
pub fn run(command: &mut Command, input: &str) -> anyhow::Result<Said> {
    let mut child = command
        .current_dir(repository())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{command:?} cannot be started"))?;
    let mut stdin = child.stdin.take().context("a pipe")?;
    let input = input.to_owned();
    // Beside it, because the command may print before it has read everything.
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output()?;
    // One that does not read its input closes the pipe.
    let _ = writer.join();
    Ok(Said {
        ok: output.status.success(),
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        all: text(&output),
    })
}

/// Runs Helm in the repository's root, whatever comes of it.
pub fn helm_says(arguments: &[&str]) -> anyhow::Result<Said> {
    run(Command::new(path("helm")?).args(arguments), "")
}

/// Runs Helm, which must do what it is told; gives back what it printed.
pub fn helm(arguments: &[&str]) -> anyhow::Result<String> {
    let said = helm_says(arguments)?;
    ensure!(said.ok, "helm {}: {}", arguments.join(" "), said.all);
    Ok(said.out)
}

/// Runs kubectl against the cluster that the environment names, whatever comes of it.
pub fn kubectl_says(arguments: &[&str], input: &str) -> anyhow::Result<Said> {
    ensure!(
        env::var_os("KUBECONFIG").is_some(),
        "no cluster: run this by `cargo xtask cluster run -- cargo test ...`"
    );
    run(Command::new("kubectl").args(arguments), input)
}

/// Runs kubectl, which must do what it is told; gives back what it printed.
pub fn kubectl(arguments: &[&str], input: &str) -> anyhow::Result<String> {
    let said = kubectl_says(arguments, input)?;
    ensure!(said.ok, "kubectl {}: {}", arguments.join(" "), said.all);
    Ok(said.out)
}

/// Waits until the server serves the kinds of all CRDs. One that was made just now has no conditions for a moment, which
/// `kubectl wait` takes for an error: then it is asked again.
pub fn until_crds_are_served() -> anyhow::Result<()> {
    let wait = ["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"];
    until("all CRDs have conditions", || {
        let said = kubectl_says(&wait, "")?;
        if !said.ok && said.all.contains("accessor error") {
            return Ok(None);
        }
        ensure!(said.ok, "kubectl {}: {}", wait.join(" "), said.all);
        Ok(Some(()))
    })
}

/// What kubectl prints with `-o json`.
pub fn kubectl_json(arguments: &[&str]) -> anyhow::Result<Value> {
    let mut all = arguments.to_vec();
    all.extend(["-o", "json"]);
    Ok(serde_json::from_str(&kubectl(&all, "")?)?)
}
