//! The directories of a pod, and the two steps of the agent in them.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, OnceLock, mpsc};

use legion_protocol::env::files;
use legion_protocol::exit::ExitRecord;
use legion_protocol::message::*;
use legion_protocol::reason::{StepError, StepReason};
use legion_protocol::task::*;
use legion_protocol::training::{TrainingDocument, WireGoal, WireModel, WireObjective};
use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

pub(crate) const UID: &str = "6f1a";
pub(crate) const RUN: &str = "7f3a1c9e";

/// The directories of one pod, and the storage that outlives it.
pub(crate) struct Pod {
    dir: TempDir,
    pub store: WireStore,
}

impl Pod {
    pub(crate) fn new() -> Self {
        Self::below(tempfile::tempdir().unwrap())
    }

    /// Creates a pod with its files in memory if possible. For tests with many small files.
    pub(crate) fn in_memory() -> Self {
        Self::below(
            tempfile::tempdir_in("/dev/shm")
                .or_else(|_| tempfile::tempdir())
                .unwrap(),
        )
    }

    fn below(dir: TempDir) -> Self {
        for name in ["bin", "run", "work", "scratch", "secrets", "storage/output"] {
            std::fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        Self {
            dir,
            store: WireStore::Volume { path: String::new() },
        }
    }

    /// Returns a path below the pod's directory.
    pub(crate) fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(path)
    }

    pub(crate) fn write(&self, path: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.at(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    pub(crate) fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.at(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    pub(crate) fn output(&self) -> OutputTask {
        OutputTask {
            connection: "models".into(),
            store: self.store.clone(),
            path: format!("default/wine/{RUN}"),
            record: format!(".legion/{UID}/{RUN}.json"),
            uri: "file:///models".into(),
        }
    }

    pub(crate) fn stored(&self, name: &str) -> PathBuf {
        self.at(format!("storage/output/default/wine/{RUN}/{name}"))
    }

    pub(crate) fn fetch_task(&self, source: SourceTask) -> FetchTask {
        FetchTask {
            version: 1,
            training: TrainingDocument {
                protocol: 1,
                name: "wine".into(),
                namespace: "default".into(),
                uid: UID.into(),
                run_id: RUN.into(),
                sequence: 1,
                attempt: 1,
                pod: format!("wine-{RUN}-1"),
                model: WireModel {
                    name: "wine".into(),
                    version: "1".into(),
                },
                ..TrainingDocument::default()
            },
            source,
            data: vec![],
            output: self.output(),
            limits: FetchLimits::default(),
            message_budget: 4096,
        }
    }

    pub(crate) fn publish_task(&self) -> PublishTask {
        PublishTask {
            version: 1,
            name: "wine".into(),
            namespace: "default".into(),
            uid: UID.into(),
            run_id: RUN.into(),
            sequence: 1,
            attempt: 1,
            model: WireModel {
                name: "wine".into(),
                version: "1".into(),
            },
            format: "gppi/v1".into(),
            objective: Some(WireObjective {
                metric: "val_accuracy".into(),
                goal: WireGoal::Maximize,
            }),
            output: self.output(),
            limits: PublishLimits::default(),
            grace_seconds: 60,
            message_budget: 4096,
        }
    }

    pub(crate) fn agent(&self, step: &str, task: &impl serde::Serialize) -> Command {
        self.program(Path::new(env!("CARGO_BIN_EXE_legion-agent")), step, task)
    }

    /// Returns the command of a step with a copy of the agent in the pod's directory. Other users cannot execute the
    /// built program if the checkout is below a home directory.
    pub(crate) fn copied_agent(&self, step: &str, task: &impl serde::Serialize) -> Command {
        let copy = self.at("legion-agent");
        std::fs::copy(env!("CARGO_BIN_EXE_legion-agent"), &copy).unwrap();
        self.program(&copy, step, task)
    }

    fn program(&self, program: &Path, step: &str, task: &impl serde::Serialize) -> Command {
        let mut command = Command::new(program);
        command
            .arg(step)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for (name, path) in [
            ("LEGION_BIN", "bin"),
            ("LEGION_RUN", "run"),
            ("LEGION_WORK", "work"),
            ("HOME", "scratch"),
            ("TMPDIR", "scratch"),
            ("LEGION_SOURCE_CONFIG", "source-config"),
            ("LEGION_SECRETS", "secrets"),
            ("LEGION_STORAGE", "storage"),
            ("LEGION_TERMINATION_LOG", "termination-log"),
        ] {
            command.env(name, self.at(path));
        }
        // Any executable can replace legion-entry here. The test only checks that it is installed.
        command.env("LEGION_ENTRY_BINARY", "/bin/true");
        command.env("LEGION_TASK", serde_json::to_string(task).unwrap());
        command
    }

    pub(crate) fn fetch(&self, task: &FetchTask) -> Fetched {
        let output = self.agent("fetch", task).output().unwrap();
        let message = FetchMessage::decode(&self.read("termination-log")).unwrap();
        assert_eq!(output.status.success(), message.head.outcome != FetchOutcome::Error);
        Fetched {
            stderr: text(&output),
            message,
        }
    }

    pub(crate) fn fetch_ok(&self, task: &FetchTask) -> FetchTail {
        let fetched = self.fetch(task);
        assert_ne!(fetched.message.head.outcome, FetchOutcome::Error, "{}", fetched.stderr);
        fetched.message.tail.whole().unwrap()
    }

    /// Runs `fetch` and returns its error, which must have a field, a remedy and the given words.
    #[track_caller]
    pub(crate) fn fetch_error(&self, task: &FetchTask, reason: StepReason, words: &[&str]) -> StepError {
        let fetched = self.fetch(task);
        let error = fetched
            .message
            .error()
            .unwrap_or_else(|| panic!("no error: {}", fetched.stderr));
        assert_eq!(error.reason, reason, "{error}");
        assert!(!error.field.is_empty() && !error.remedy.is_empty(), "{error:?}");
        for word in words {
            assert!(
                error.message.contains(word) || error.remedy.contains(word),
                "{word:?} is missing in {error:?}"
            );
        }
        assert!(fetched.stderr.contains(&error.message), "stderr shows the same message");
        error
    }

    pub(crate) fn training(&self) -> TrainingDocument {
        serde_json::from_str(&self.read("run/training.json")).unwrap()
    }

    pub(crate) fn secret(&self, slot: &str, key: &str, value: &str) {
        self.write(&format!("secrets/{slot}/{key}"), value);
    }

    /// Takes the lock, as `legion-entry` does.
    pub(crate) fn trainer(&self) -> Trainer<'_> {
        let lock = File::create(self.at("run").join(files::LOCK)).unwrap();
        flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
        std::fs::create_dir_all(self.at("work/output")).unwrap();
        Trainer { pod: self, lock }
    }

    /// Starts `publish` before the trainer starts.
    pub(crate) fn start_publish(&self, task: &PublishTask) -> Child {
        self.agent("publish", task).spawn().unwrap()
    }

    pub(crate) fn published(&self, child: Child) -> Published {
        let output = child.wait_with_output().unwrap();
        let message =
            PublishMessage::decode(&self.read("termination-log")).unwrap_or_else(|e| panic!("{e}: {}", text(&output)));
        Published {
            stderr: text(&output),
            message,
            code: output.status.code(),
        }
    }

    /// Runs a whole attempt. `prepare` writes the output of the trainer.
    pub(crate) fn run(&self, record: &ExitRecord, prepare: impl FnOnce(&Self)) -> Published {
        self.run_with(&self.publish_task(), record, prepare)
    }

    pub(crate) fn run_with(&self, task: &PublishTask, record: &ExitRecord, prepare: impl FnOnce(&Self)) -> Published {
        let trainer = self.trainer();
        let child = self.start_publish(task);
        trainer.start();
        prepare(self);
        trainer.end(Some(record));
        self.published(child)
    }
}

/// The trainer's side of a pod.
pub(crate) struct Trainer<'a> {
    pod: &'a Pod,
    lock: File,
}

impl Trainer<'_> {
    pub(crate) fn start(&self) {
        let partial = self.pod.write("run/started.partial", "{}");
        std::fs::rename(partial, self.pod.at("run").join(files::STARTED)).unwrap();
    }

    /// Releases the lock. Without a record, this is like a trainer that the kernel killed.
    pub(crate) fn end(self, record: Option<&ExitRecord>) {
        if let Some(record) = record {
            self.pod.write("run/exit.json", serde_json::to_vec(record).unwrap());
        }
        drop(self.lock);
    }
}

pub(crate) struct Fetched {
    pub stderr: String,
    pub message: Decoded<FetchHead, FetchTail>,
}

pub(crate) struct Published {
    pub stderr: String,
    pub message: Decoded<PublishHead, PublishTail>,
    pub code: Option<i32>,
}

impl Published {
    pub(crate) fn tail(&self) -> PublishTail {
        self.message.tail.clone().whole().unwrap()
    }

    #[track_caller]
    pub(crate) fn error(&self, reason: StepReason, words: &str) {
        assert_eq!(self.message.head.outcome, PublishOutcome::Error, "{}", self.stderr);
        let error = self.message.error().unwrap();
        assert_eq!(error.reason, reason, "{error}");
        assert!(error.message.contains(words) && !error.remedy.is_empty(), "{error:?}");
        assert_eq!(self.code, Some(1));
    }
}

pub(crate) fn exit_code(code: i32) -> ExitRecord {
    let at = "2026-11-23T17:01:37.042Z".to_owned();
    ExitRecord {
        version: 1,
        exit_code: Some(code),
        started_at: at.clone(),
        finished_at: at,
        ..ExitRecord::default()
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Starts a web server with one scripted answer per connection. It reports the heads of the requests in lower case.
/// `answer` receives the number of the request, from 0, and its head. The server ends when it returns `None`.
pub(crate) fn serve(
    mut answer: impl FnMut(usize, &str) -> Option<Vec<u8>> + Send + 'static,
) -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (send, requests) = mpsc::channel();
    std::thread::spawn(move || {
        for number in 0.. {
            let (stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(&stream);
            let lines = reader.by_ref().lines().map_while(Result::ok);
            let head = lines
                .take_while(|l| !l.is_empty())
                .collect::<Vec<_>>()
                .join("\n")
                .to_lowercase();
            let Some(answer) = answer(number, &head) else { return };
            let length = head
                .split("content-length: ")
                .nth(1)
                .and_then(|rest| rest.lines().next()?.parse().ok());
            std::io::copy(&mut reader.take(length.unwrap_or(0)), &mut std::io::sink()).unwrap();
            let _ = send.send(head);
            // A client that closed the connection has read enough.
            let _ = (&stream).write_all(&answer);
        }
    });
    (address, requests)
}

/// Returns an HTTP response.
pub(crate) fn answer(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}\r\n{body}").into_bytes()
}

/// Returns the address of an S3-compatible server that runs as long as the tests.
pub(crate) fn s3_endpoint() -> &'static str {
    static SERVER: OnceLock<(String, Child)> = OnceLock::new();
    let (address, _) = SERVER.get_or_init(|| {
        // It ends with its standard input, so it ends with this process.
        let mut child = Command::new("python3")
            .arg(fixture("s3_server.py"))
            .env("PYTHONPATH", server_packages())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut address = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut address)
            .unwrap();
        assert!(address.starts_with("http"), "the S3 server did not start");
        (address.trim().to_owned(), child)
    });
    address
}

/// Returns the path of a file in `tests/fixtures`.
pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures")).join(name)
}

/// Installs the Python packages of `requirements.txt`, once for each content of that file. The directory gets its name
/// when it is complete.
pub(crate) fn server_packages() -> PathBuf {
    static ONE: Mutex<()> = Mutex::new(());
    let _one_at_a_time = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let requirements = std::fs::read(fixture("requirements.txt")).unwrap();
    let key = &legion_protocol::digest::of_bytes(&requirements)["sha256:".len()..][..12];
    let packages = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("servers-{key}"));
    if !packages.exists() {
        let building = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let install = format!(
            "python3 -m venv venv && venv/bin/pip install --quiet --disable-pip-version-check --target packages -r '{}'",
            fixture("requirements.txt").display()
        );
        sh(building.path(), &install);
        std::fs::rename(building.path().join("packages"), &packages).unwrap();
    }
    packages
}

/// Runs a program of the test itself and returns its output.
#[track_caller]
pub(crate) fn sh(directory: &Path, script: &str) -> String {
    let output = Command::new("sh")
        .args(["-euc", script])
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(output.status.success(), "{script}: {}", text(&output));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
