//! Third-party programs that the suites run: Helm, kubeconform, kubectl.

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

/// Returns the path of a pinned program, and builds the program if the cache does not have it: see
/// `cargo xtask cluster tool NAME`.
pub fn path(name: &str) -> anyhow::Result<PathBuf> {
    static FOUND: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());
    // The lock is held during the build: one build at a time is enough.
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

/// Returns the directory where Go keeps a module, and downloads the module if necessary. The go.mod in `directory`,
/// which is below `tests/kubernetes`, requires the module.
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

/// The output and the exit code of a command.
#[derive(Debug)]
pub struct CommandOutput {
    /// Whether the exit code is 0.
    pub ok: bool,
    /// The exit code, or none if a signal ended the command.
    pub code: Option<i32>,
    /// What it printed to stdout.
    pub out: String,
    /// What it printed to stdout, then what it printed to stderr.
    pub all: String,
}

/// Runs a command in the root of the repository, with `input` on its stdin.
pub fn run(command: &mut Command, input: &str) -> anyhow::Result<CommandOutput> {
    let mut child = command
        .current_dir(repository())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{command:?} cannot be started"))?;
    let mut stdin = child.stdin.take().context("a pipe")?;
    let input = input.to_owned();
    // In a thread, because the command may print before it has read everything.
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output()?;
    // A command that does not read its input closes the pipe: not an error.
    let _ = writer.join();
    Ok(CommandOutput {
        ok: output.status.success(),
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        all: text(&output),
    })
}

/// Runs Helm in the root of the repository. A nonzero exit code is not an error.
pub fn run_helm(arguments: &[&str]) -> anyhow::Result<CommandOutput> {
    run(Command::new(path("helm")?).args(arguments), "")
}

/// Runs Helm, which must succeed. Returns its stdout.
pub fn helm(arguments: &[&str]) -> anyhow::Result<String> {
    let said = run_helm(arguments)?;
    ensure!(said.ok, "helm {}: {}", arguments.join(" "), said.all);
    Ok(said.out)
}

/// Runs kubectl against the cluster of `KUBECONFIG`. A nonzero exit code is not an error.
pub fn run_kubectl(arguments: &[&str], input: &str) -> anyhow::Result<CommandOutput> {
    ensure!(
        env::var_os("KUBECONFIG").is_some(),
        "no cluster: run this by `cargo xtask cluster run -- cargo test ...`"
    );
    run(Command::new("kubectl").args(arguments), input)
}

/// Runs kubectl, which must succeed. Returns its stdout.
pub fn kubectl(arguments: &[&str], input: &str) -> anyhow::Result<String> {
    let said = run_kubectl(arguments, input)?;
    ensure!(said.ok, "kubectl {}: {}", arguments.join(" "), said.all);
    Ok(said.out)
}

/// Waits until the server serves the kinds of all CRDs. A new CRD has no conditions for a moment. `kubectl wait`
/// reports that as an error, so it is run again.
pub fn until_crds_are_served() -> anyhow::Result<()> {
    let wait = ["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"];
    until("all CRDs have conditions", || {
        let said = run_kubectl(&wait, "")?;
        if !said.ok && said.all.contains("accessor error") {
            return Ok(None);
        }
        ensure!(said.ok, "kubectl {}: {}", wait.join(" "), said.all);
        Ok(Some(()))
    })
}

/// Runs kubectl with `-o json`, and returns the parsed output.
pub fn kubectl_json(arguments: &[&str]) -> anyhow::Result<Value> {
    let mut all = arguments.to_vec();
    all.extend(["-o", "json"]);
    Ok(serde_json::from_str(&kubectl(&all, "")?)?)
}
