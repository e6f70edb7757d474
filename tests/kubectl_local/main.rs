//! The real kubectl against `legionctl local up`. What it prints is asserted, and becomes `docs/guides/kubectl.md`.

mod transcript;

use std::{
    env,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, ChildStdout, Command, Stdio},
};

use anyhow::{Context as _, bail, ensure};
use legion_tests::{
    local::{self, Local},
    tool,
};

use crate::transcript::Transcript;

/// A shell with kubectl and legionctl on its PATH, in the root of the repository, beside a local Legion.
struct Shell {
    local: Local,
    home: tempfile::TempDir,
    path: String,
    transcript: Transcript,
}

impl Shell {
    fn new() -> anyhow::Result<Self> {
        let kubectl = tool::path("kubectl")?;
        let directories = [kubectl.parent(), Some(local::programs()?)]
            .into_iter()
            .flatten()
            .map(PathBuf::from);
        let inherited = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths(directories.chain(env::split_paths(&inherited)))?;
        let local = Local::new()?;
        let mut transcript = Transcript::new("Use kubectl");
        transcript.mask(local.path().to_str().context("UTF-8")?, "/tmp/legion-abcdef")?;
        Ok(Self {
            local,
            home: tempfile::tempdir()?,
            path: path.into_string().ok().context("PATH in UTF-8")?,
            transcript,
        })
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("{{ {line}\n}} 2>&1")])
            .current_dir(local::repository())
            .env("PATH", &self.path)
            .env("HOME", self.home.path())
            .env("KUBECONFIG", self.local.path().join("kubeconfig"))
            .stdin(Stdio::null());
        command
    }

    /// Runs a line without showing it.
    fn quietly(&self, line: &str) -> anyhow::Result<(String, i32)> {
        let output = self.command(line).output()?;
        let code = output
            .status
            .code()
            .with_context(|| format!("{line}: {}", output.status))?;
        Ok((String::from_utf8(output.stdout)?, code))
    }

    /// Runs a line that must succeed, and shows it.
    fn run(&mut self, line: &str) -> anyhow::Result<String> {
        let (said, code) = self.quietly(line)?;
        ensure!(code == 0, "{line}: exit code {code}\n{said}");
        self.transcript.command(line, &said);
        Ok(said)
    }

    /// Runs a line that must be refused, and shows it.
    fn refused(&mut self, line: &str) -> anyhow::Result<String> {
        let (said, code) = self.quietly(line)?;
        ensure!(code != 0, "{line}: not refused\n{said}");
        self.transcript.command(line, &said);
        Ok(said)
    }

    /// Runs a line that must succeed and print all of these texts.
    fn prints(&mut self, line: &str, parts: &[&str]) -> anyhow::Result<()> {
        let said = self.run(line)?;
        contains(line, &said, parts)
    }

    /// Replaces the id of the current run.
    fn hide_run(&mut self, name: &str, by: &str) -> anyhow::Result<()> {
        let (id, _) = self.quietly(&format!("kubectl get mt {name} -o jsonpath='{{.status.run.id}}'"))?;
        self.transcript.mask(&id, by)
    }
}

fn contains(line: &str, said: &str, parts: &[&str]) -> anyhow::Result<()> {
    for part in parts {
        ensure!(said.contains(part), "{line}: no {part:?} in\n{said}");
    }
    Ok(())
}

/// Returns the cells of the table row with this name.
fn row<'a>(table: &'a str, name: &str) -> anyhow::Result<Vec<&'a str>> {
    let row = table.lines().find(|line| line.split_whitespace().next() == Some(name));
    Ok(row
        .with_context(|| format!("no row {name} in\n{table}"))?
        .split_whitespace()
        .collect())
}

/// `kubectl get -w`, read line by line.
struct Watch {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Watch {
    fn start(shell: &Shell, line: &str) -> anyhow::Result<Self> {
        // `timeout` ends a watch that never shows the expected row. With `exec` it is the only process to end.
        let limit = local::LIMIT.as_secs();
        let mut child = shell
            .command(&format!("exec timeout {limit} {line}"))
            .stdout(Stdio::piped())
            .spawn()?;
        let lines = BufReader::new(child.stdout.take().context("a pipe")?).lines();
        Ok(Self { child, lines })
    }

    /// Reads until a row contains this word.
    fn until(&mut self, word: &str) -> anyhow::Result<Vec<String>> {
        let mut rows = Vec::new();
        for line in self.lines.by_ref() {
            rows.push(line?);
            if rows
                .last()
                .is_some_and(|row| row.split_whitespace().any(|found| found == word))
            {
                return Ok(rows);
            }
        }
        bail!("the watch ended before it showed {word:?}: {rows:#?}")
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // `timeout` forwards the signal to its kubectl.
        if let Some(pid) = i32::try_from(self.child.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw)
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

const MANIFEST: &str = "examples/script/training.yaml";

#[test]
fn kubectl_against_the_local_api() -> anyhow::Result<()> {
    let mut shell = Shell::new()?;
    shell.local.up()?;
    begin(&mut shell)?;
    look(&mut shell)?;
    change(&mut shell)?;
    server_side(&mut shell)?;
    mistakes(&mut shell)?;
    end(&mut shell)?;
    shell.local.down()?;
    shell
        .transcript
        .compare(&local::repository().join("docs/guides/kubectl.md"))
}

fn begin(shell: &mut Shell) -> anyhow::Result<()> {
    shell.transcript.text(
        "Everything on this page is the output of the real kubectl 1.37 against `legionctl local up`. The test `kubectl` of\n\
         `tests/` runs the commands, checks the output, and writes the page\n\
         (`UPDATE=1 cargo test -p legion-tests --test kubectl`). Times, ids and paths are replaced, and long lines are cut.",
    );
    shell.transcript.text("## Train");
    shell.transcript.text(
        "    $ legionctl local up --detach --data-dir /tmp/legion-abcdef\n    \
         $ export KUBECONFIG=/tmp/legion-abcdef/kubeconfig",
    );
    shell.prints("kubectl version", &["Client Version: v1.37", "Server Version: v1.37"])?;
    shell.prints(
        &format!("kubectl apply -f {MANIFEST}"),
        &[
            "configmap/script-source created",
            "modeltraining.legion-platform.org/script created",
        ],
    )?;
    shell.prints(
        "kubectl wait --for=condition=Succeeded mt/script --timeout=3m",
        &["condition met"],
    )?;
    shell.hide_run("script", "0a1b2c3d")
}

fn look(shell: &mut Shell) -> anyhow::Result<()> {
    shell.transcript.text("## Read");
    let table = shell.run("kubectl get mt")?;
    let header: Vec<&str> = table.lines().next().unwrap_or_default().split_whitespace().collect();
    ensure!(
        header
            == [
                "NAME",
                "SUCCEEDED",
                "REASON",
                "SCORE",
                "MODEL",
                "ATTEMPT",
                "DURATION",
                "AGE"
            ],
        "{table}"
    );
    let cells = row(&table, "script")?;
    ensure!(
        cells.len() == 8 && cells[1..6] == ["True", "RunSucceeded", "mse=0.1616", "line", "1"],
        "{table}"
    );
    shell.prints(
        "kubectl get mt -o wide",
        &["VERSION", "TOOLCHAIN", "MESSAGE", "the model is trained: mse=0.1616"],
    )?;
    shell.prints(
        "kubectl get legion",
        &[
            "connection.legion-platform.org/local-output",
            "modeltraining.legion-platform.org/script",
        ],
    )?;
    shell.prints("kubectl get ti -A", &["legion-system", "script", "mlflow"])?;
    let found = shell.run("kubectl get mt --field-selector spec.toolchain=script")?;
    row(&found, "script")?;
    shell.prints(
        "kubectl get mt --field-selector spec.toolchain=mlflow",
        &["No resources found"],
    )?;
    // The event is published after the status.
    local::until("the event of the end in `describe`", || {
        let (said, _) = shell.quietly("kubectl describe mt script")?;
        Ok(said.contains("Normal  RunSucceeded").then_some(()))
    })?;
    let described = shell.run("kubectl describe mt script")?;
    contains(
        "describe",
        &described,
        &[
            "Reason:                RunSucceeded",
            "Type:                  Succeeded",
            "Kind:  least-squares",
        ],
    )?;
    shell
        .transcript
        .text("Without `-c`, the log is that of the training container.");
    let line = "kubectl logs $(kubectl get pods -l legion-platform.org/training=script -o name)";
    let log = shell.run(line)?;
    ensure!(
        log.starts_with("intercept 0.997368421053\nslope 2.50263157895\n"),
        "{log}"
    );
    shell.prints(
        "kubectl explain mt.spec.source",
        &["FIELD: source <Object>", "configMap\t<Object>", "objectStore"],
    )
}

fn change(shell: &mut Shell) -> anyhow::Result<()> {
    shell.transcript.text("## Change");
    shell.transcript.text(
        "The same manifest again changes nothing and starts nothing. A changed one trains again, and a watch shows the steps.",
    );
    shell.prints(
        &format!("kubectl apply -f {MANIFEST}"),
        &[
            "configmap/script-source unchanged",
            "modeltraining.legion-platform.org/script unchanged",
        ],
    )?;
    let mut watch = Watch::start(shell, "kubectl get mt -w")?;
    let mut rows = watch.until("RunSucceeded")?;
    let more = format!("sed 's/points: \"20\"/points: \"30\"/' {MANIFEST} | kubectl apply -f -");
    shell.prints(
        &more,
        &[
            "configmap/script-source unchanged",
            "modeltraining.legion-platform.org/script configured",
        ],
    )?;
    rows.extend(watch.until("Training")?);
    let training = rows.last().cloned().unwrap_or_default();
    ensure!(training.split_whitespace().nth(1) == Some("Unknown"), "{rows:#?}");
    rows.extend(watch.until("RunSucceeded")?);
    drop(watch);
    shell.prints(
        "kubectl wait --for=jsonpath='{.status.run.sequence}'=2 mt/script --timeout=3m",
        &["condition met"],
    )?;
    shell.prints(
        "kubectl wait --for=condition=Succeeded mt/script --timeout=3m",
        &["condition met"],
    )?;
    shell.hide_run("script", "4e5f6a7b")?;
    // The width of a column depends on the rows before it. The number of writes in between depends on the machine.
    let shown = |row: &&String| {
        ["NAME", "Training", "RunSucceeded"]
            .iter()
            .any(|word| row.contains(word))
    };
    let mut shown: Vec<String> = rows
        .iter()
        .filter(shown)
        .map(|row| row.split_whitespace().collect::<Vec<_>>().join("   "))
        .collect();
    shown.dedup_by_key(|row| row.split("   ").take(4).map(str::to_owned).collect::<Vec<_>>());
    ensure!(shown.len() == 4, "a header, before, during and after: {rows:#?}");
    shell.transcript.text("Meanwhile, in another terminal:");
    shell.transcript.command("kubectl get mt -w", &shown.join("\n"));
    Ok(())
}

fn server_side(shell: &mut Shell) -> anyhow::Result<()> {
    shell.transcript.text("## Apply server-side");
    shell
        .transcript
        .text("The API server records the owner of each field, also between the two kinds of apply.");
    let more = format!("sed 's/points: \"20\"/points: \"30\"/' {MANIFEST} | kubectl apply --server-side -f -");
    shell.prints(&more, &["modeltraining.legion-platform.org/script serverside-applied"])?;
    let line = format!("kubectl apply --server-side --field-manager=another-manager -f {MANIFEST}");
    let said = shell.refused(&line)?;
    contains(
        &line,
        &said,
        &["conflict with \"kubectl\"", ".spec.hyperParameters.points"],
    )?;
    // No spec has changed, so no run started.
    let (sequence, _) = shell.quietly("kubectl get mt script -o jsonpath='{.status.run.sequence}'")?;
    ensure!(sequence == "2", "run {sequence}");
    Ok(())
}

fn mistakes(shell: &mut Shell) -> anyhow::Result<()> {
    shell.transcript.text("## See mistakes");
    shell
        .transcript
        .text("An unknown field is refused, and so is an invalid value:");
    // Different parts of an API server refuse the two kinds of apply, with different messages.
    for (line, words) in [
        (
            format!("sed 's/timeout: 5m/timeOut: 5m/' {MANIFEST} | kubectl apply --server-side -f -"),
            ".spec.timeOut: field not declared in schema",
        ),
        (
            format!(
                "sed 's/name: script$/name: typo/; s/timeout: 5m/timeOut: 5m/' {MANIFEST} | kubectl apply --validate=strict -f -"
            ),
            "unknown field \"spec.timeOut\"",
        ),
    ] {
        let said = shell.refused(&line)?;
        contains(&line, &said, &[words])?;
    }
    let line = format!("sed 's/timeout: 5m/timeout: soon/' {MANIFEST} | kubectl apply --server-side -f -");
    let said = shell.refused(&line)?;
    contains(&line, &said, &["spec.timeout", "soon"])?;

    shell
        .transcript
        .text("A training waits for a missing object. `describe` names it in a condition and in an event:");
    let line = format!(
        "sed 's/name: script$/name: waits/; s/toolchain: script/toolchain: scripts/' {MANIFEST} | kubectl apply -f -"
    );
    shell.prints(&line, &["modeltraining.legion-platform.org/waits created"])?;
    shell.prints(
        "kubectl wait --for=condition=Succeeded=Unknown mt/waits --timeout=3m",
        &["condition met"],
    )?;
    shell.hide_run("waits", "8c9d0e1f")?;
    let line = "kubectl describe mt waits | sed -n '/^Status:/,$p'";
    local::until("an event in `describe`", || {
        let (said, _) = shell.quietly(line)?;
        Ok(said.contains("Warning  ToolchainNotFound").then_some(()))
    })?;
    shell.prints(
        line,
        &[
            "Reason:                ToolchainNotFound",
            "Warning  ToolchainNotFound",
            "scripts",
        ],
    )
}

fn end(shell: &mut Shell) -> anyhow::Result<()> {
    shell.transcript.text("## Delete");
    shell
        .transcript
        .text("A deleted training takes its pods with it. Its results stay in the store.");
    shell.prints("kubectl delete mt waits", &["\"waits\" deleted"])?;
    shell.prints(
        &format!("kubectl delete -f {MANIFEST}"),
        &[
            "configmap \"script-source\" deleted",
            "modeltraining.legion-platform.org \"script\" deleted",
        ],
    )?;
    shell.run("kubectl wait --for=delete pod -l legion-platform.org/training=script --timeout=3m")?;
    shell.prints("kubectl get mt,pods", &["No resources found"])?;
    shell
        .transcript
        .text("    $ legionctl local down --data-dir /tmp/legion-abcdef");
    Ok(())
}
