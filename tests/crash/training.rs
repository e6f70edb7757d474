//! A training for crash tests. It stops at gates, and it counts its executions in a ledger.

use std::{
    fs::{self, File, OpenOptions},
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use anyhow::{Context as _, ensure};
use legion_tests::local::{Local, until};
use serde_json::{Value, json};

/// Name of the training.
pub(crate) const NAME: &str = "crash";
/// Number of times that the training code waits at the gate.
pub(crate) const GATES: usize = 2;

/// The training code. The ledger lies outside of the workspace, so its lines outlive every attempt. The model is large
/// enough that publishing takes a moment.
const CODE: &str = r#"set -eu
echo "begin $$" >>"$LEGION_PARAM_LEDGER"
legion_param depth 3
legion_metric loss 2 1
read -r _ <"$LEGION_PARAM_GATE"
legion_metric loss 1 2
echo "half $$" >>"$LEGION_PARAM_LEDGER"
read -r _ <"$LEGION_PARAM_GATE"
mkdir -p "$LEGION_OUTPUT/model"
head -c 67108864 /dev/zero >"$LEGION_OUTPUT/model/weights"
echo "end $$" >>"$LEGION_PARAM_LEDGER"
"#;

/// The training, and the data directory in which it runs.
pub(crate) struct Training {
    /// The data directory.
    pub local: Local,
    outside: tempfile::TempDir,
    /// The gate, a FIFO. The test holds both ends open: neither side waits for the other, and written bytes stay.
    gate: File,
}

impl Training {
    /// Writes the manifest.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let local = Local::new()?;
        let outside = tempfile::tempdir()?;
        let gate = outside.path().join("gate");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &gate,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )?;
        let gate = OpenOptions::new().read(true).write(true).open(&gate)?;
        fs::write(outside.path().join("ledger"), "")?;
        let training = Self { local, outside, gate };
        fs::write(training.manifest(), training.documents())?;
        Ok(training)
    }

    fn documents(&self) -> String {
        let source = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "code"},
            "data": {"train.sh": CODE},
        });
        let training = json!({
            "apiVersion": "legion-platform.org/v1alpha1",
            "kind": "ModelTraining",
            "metadata": {"name": NAME},
            "spec": {
                "model": {"name": "line", "version": "1"},
                "toolchain": "script",
                "source": {"configMap": {"name": "code"}},
                "entrypoint": "train.sh",
                "hyperParameters": {"ledger": self.outside.path().join("ledger"), "gate": self.outside.path().join("gate")},
                "objective": {"metric": "loss", "goal": "Minimize"},
                "timeout": "10m",
            },
        });
        // A JSON document is a YAML document.
        format!("{source}\n---\n{training}\n")
    }

    /// Path of the manifest.
    pub(crate) fn manifest(&self) -> PathBuf {
        self.outside.path().join("training.yaml")
    }

    /// Lets the training code pass the gate this many times.
    pub(crate) fn open(&mut self, gates: usize) -> anyhow::Result<()> {
        Ok(self.gate.write_all("\n".repeat(gates).as_bytes())?)
    }

    /// Returns the ledger so far: each word with the id of the process that wrote it.
    pub(crate) fn ledger(&self) -> anyhow::Result<Vec<(String, i32)>> {
        let text = fs::read_to_string(self.outside.path().join("ledger"))?;
        // The last line may be incomplete.
        let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        lines
            .map(|line| {
                let (word, pid) = line
                    .trim_end()
                    .split_once(' ')
                    .with_context(|| format!("ledger: {line:?}"))?;
                Ok((word.to_owned(), pid.parse()?))
            })
            .collect()
    }

    /// Counts a word in the ledger.
    pub(crate) fn said(&self, word: &str) -> anyhow::Result<usize> {
        Ok(self.ledger()?.iter().filter(|(said, _)| said == word).count())
    }

    /// Waits until the training code has written this word, and returns the id of its process.
    pub(crate) fn code(&self, word: &str) -> anyhow::Result<i32> {
        until(&format!("the training code says {word:?}"), || {
            Ok(self
                .ledger()?
                .iter()
                .find(|(said, _)| said == word)
                .map(|(_, pid)| *pid))
        })
    }

    /// Returns the directory of a container of the pod, if the node has created it.
    pub(crate) fn container(&self, name: &str) -> Option<PathBuf> {
        let pod = fs::read_dir(self.local.path().join("node/pods"))
            .ok()?
            .flatten()
            .next()?;
        Some(pod.path().join("containers").join(name).join("0")).filter(|path| path.is_dir())
    }

    /// Returns whether the node has created this file of a container.
    pub(crate) fn has(&self, container: &str, file: &str) -> bool {
        self.container(container)
            .is_some_and(|directory| directory.join(file).is_file())
    }

    /// Returns the ids of a running container's supervisor and of its main process.
    pub(crate) fn supervised(&self, container: &str) -> anyhow::Result<(i32, i32)> {
        let directory = self
            .container(container)
            .with_context(|| format!("no container {container}"))?;
        let started: Value = serde_json::from_slice(&fs::read(directory.join("started.json"))?)?;
        let pid = |of: &str| -> anyhow::Result<i32> {
            let pid = started[of]["pid"]
                .as_i64()
                .with_context(|| format!("started.json: {started}"))?;
            Ok(i32::try_from(pid)?)
        };
        Ok((pid("supervisor")?, pid("main")?))
    }

    /// Returns the files that publishing has written so far, success records and artifacts alike.
    pub(crate) fn outputs(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut next = vec![self.local.path().join("outputs")];
        while let Some(directory) = next.pop() {
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => next.push(entry.path()),
                    _ => found.push(entry.path()),
                }
            }
        }
        found
    }

    /// The success records.
    pub(crate) fn records(&self) -> Vec<PathBuf> {
        let records = self.local.path().join("outputs/.legion");
        let is_record =
            |path: &PathBuf| path.starts_with(&records) && path.extension().is_some_and(|end| end == "json");
        self.outputs().into_iter().filter(is_record).collect()
    }

    /// Waits for the end, and returns the training and the exit code that goes with it.
    pub(crate) fn end(&self) -> anyhow::Result<(Value, Option<i32>)> {
        let (text, code) = self.local.exits(&["wait", NAME, "--timeout", "3m", "-o", "json"])?;
        if text.is_empty() {
            anyhow::bail!("exit code {code:?}; now: {:#}", self.local.training(NAME)?);
        }
        let training = serde_json::from_str(&text).with_context(|| format!("exit code {code:?}: {text:?}"))?;
        Ok((training, code))
    }

    /// Checks that there is exactly one result, and that the status reports all of it.
    pub(crate) fn one_result(&self, training: &Value) -> anyhow::Result<()> {
        let status = &training["status"];
        let attempts = status["run"]["attempt"].as_u64().context("status.run.attempt")?;
        ensure!(attempts == 1, "{attempts} attempts: {:#}", status["run"]);
        ensure!(status["run"]["sequence"] == 1, "more than one run: {:#}", status["run"]);
        for word in ["begin", "half", "end"] {
            ensure!(
                self.said(word)? == 1,
                "executions of the training code: {:?}",
                self.ledger()?
            );
        }
        ensure!(self.records().len() == 1, "success records: {:?}", self.records());
        let record = format!(
            ".legion/{}/{}.json",
            training["metadata"]["uid"].as_str().unwrap_or_default(),
            status["run"]["id"].as_str().unwrap_or_default()
        );
        ensure!(
            self.records()[0].ends_with(&record),
            "{:?} is not {record}",
            self.records()
        );
        let mut names: Vec<String> = self
            .outputs()
            .iter()
            .filter(|path| !self.records().contains(path))
            .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
            .collect();
        names.sort();
        // No second artifact, and no partial file of an interrupted one.
        ensure!(
            names == ["log.txt", "model.tar", "series.jsonl"],
            "files of the result: {names:?}"
        );
        let uri = status["artifact"]["uri"].as_str().context("status.artifact.uri")?;
        let artifact = Path::new(uri.strip_prefix("file://").context("a file")?);
        let sum = std::process::Command::new("sha256sum").arg(artifact).output()?;
        let sum = String::from_utf8(sum.stdout)?;
        let digest = format!("sha256:{}", sum.split_whitespace().next().unwrap_or_default());
        ensure!(
            status["artifact"]["digest"] == digest.as_str(),
            "{digest} is not {:#}",
            status["artifact"]
        );
        Ok(())
    }

    /// Returns what must be equal after every crash: the status without times and ids.
    pub(crate) fn comparable(&self, training: &Value) -> anyhow::Result<Value> {
        let status = &training["status"];
        let mut text = status.to_string();
        let id = |value: &Value| value.as_str().map(str::to_owned).context("an id is missing");
        for (own, common) in [
            (self.local.path().display().to_string(), "DATA"),
            (id(&training["metadata"]["uid"])?, "UID"),
            (id(&status["run"]["id"])?, "RUN"),
            (id(&status["run"]["podUid"])?, "POD"),
        ] {
            text = text.replace(&own, common);
        }
        let time = regex::Regex::new(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")?;
        let mut status: Value = serde_json::from_str(&time.replace_all(&text, "TIME"))?;
        ensure!(status["duration"].is_string(), "no duration: {status:#}");
        status["duration"] = Value::Null;
        status["run"]["sourceVersion"] = Value::Null;
        // The specs have different paths.
        ensure!(status["run"]["contentHash"].is_string(), "no hash: {status:#}");
        status["run"]["contentHash"] = Value::Null;
        Ok(status)
    }

    /// Returns kind, namespace and name of all user objects in the API.
    pub(crate) fn objects(&self) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.local.run(&["get", "-A", "-o", "json"])?)?)
    }
}

/// `legionctl local run`: API, node and operator in one process, which the tests kill.
pub(crate) struct Running {
    child: Child,
    said: Arc<Mutex<String>>,
}

impl Running {
    /// Starts it without a terminal.
    pub(crate) fn start(training: &Training) -> anyhow::Result<Self> {
        let manifest = training.manifest();
        let manifest = manifest.to_str().context("a path in UTF-8")?;
        let mut child = training
            .local
            .legionctl(&["local", "run", "-f", manifest])?
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let said = Arc::new(Mutex::new(String::new()));
        let heard = Arc::clone(&said);
        let stderr = BufReader::new(child.stderr.take().context("stderr is a pipe")?);
        // Ends with the process: no other process holds that end of the pipe.
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
                heard.push_str(&line);
                heard.push('\n');
            }
        });
        Ok(Self { child, said })
    }

    /// Returns whether its output contains this.
    pub(crate) fn says(&self, text: &str) -> bool {
        self.said().contains(text)
    }

    /// Returns its output so far.
    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns whether it has exited.
    pub(crate) fn has_ended(&mut self) -> anyhow::Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// `kill -9`.
    pub(crate) fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}
