//! Containers as local processes.
//!
//! Each container is a process tree with its own [supervisor], which outlives the node. If the node is killed and
//! started again, it adopts running containers and knows exactly how the others ended. A container never has two
//! instances. None of its processes survive it: no background job, no daemon that forked twice into a new session, no
//! large set of children.
//!
//! # What differs from a container runtime
//!
//! * No isolation: processes run as the node's user and see the machine's whole file system and network.
//!   `securityContext` has no effect. Run only what you would run in your own shell.
//! * No mount namespaces: a volume is a directory, and mount paths are translated (see
//!   [`launch`](crate::node::launch)). `readOnly` mounts are not enforced.
//! * A container without `workingDir` starts in an empty directory of its own.
//! * The main process is not PID 1. SIGTERM ends it even without a handler, as in a container with an init process.
//! * The memory limit is a control group if one can be created (as root, or in a delegated subtree). Otherwise the
//!   supervisor adds up the private memory of the container's processes every 50 ms and kills them all if they exceed
//!   the limit. The CPU limit needs control groups.
//! * The environment is empty except for the image environment's `PATH`, `HOSTNAME`, and the marker
//!   `KUBE_EMBED_CONTAINER`. The marker identifies remaining processes if a supervisor itself was killed.
//!
//! # On disk
//!
//! ```text
//! ROOT/pods/UID/volumes/NAME/             emptyDir, configMap, secret, downwardAPI, projected
//! ROOT/pods/UID/containers/NAME/ATTEMPT/  lock, started.json, exit.json, log, log.1, termination-log, cwd/, root/
//! ROOT/claims/UID/                        PersistentVolumeClaims
//! ```

mod cgroup;
mod directories;
mod logfile;
mod record;
pub mod supervisor;
mod tree;

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use futures::stream::BoxStream;
use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::AsyncBufReadExt;
use tokio::io::unix::AsyncFd;

use self::cgroup::Hierarchy;
use self::record::{Answer, EXIT, ExitRecord, LOCK, Launch, MARKER, Process, STARTED, Started, TERMINATION};
use super::{
    ContainerKey, ContainerSpec, Exit, LogItem, Outgrown, PodKey, PodRuntime, Recovered, Running, StartFailure, Stop,
    Volume, VolumeContent,
};
use crate::node::launch::{self, Translator};
use crate::node::termination::FILE_LIMIT;

/// Bytes of a log that are read for the fallback of the termination message. Each line has about 45 more bytes.
const TAIL: u64 = 16 * 1024;

/// Settings of a [`ProcessRuntime`].
#[derive(Clone, Debug)]
pub struct ProcessOptions {
    /// Directory of all data.
    pub root: PathBuf,
    /// The program that [becomes a supervisor](supervisor::run_if_requested) if its only argument is
    /// [`supervisor::SUPERVISE`]. The default is the current program.
    pub supervisor: PathBuf,
    /// Size in bytes at which a log is rotated. One older part is kept.
    pub log_limit: u64,
    /// Whether containers end with the node's process. Use it if the API server keeps nothing. A node that stores its
    /// objects on disk leaves it off and adopts its containers later.
    pub die_with_host: bool,
    /// Interval for measuring volumes with a `sizeLimit`.
    pub measure_every: Duration,
    /// Whether writable control groups are used.
    pub control_groups: bool,
}

impl ProcessOptions {
    /// Returns the defaults for this directory.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            supervisor: PathBuf::from("/proc/self/exe"),
            log_limit: 64 << 20,
            die_with_host: false,
            measure_every: Duration::from_secs(10),
            control_groups: true,
        }
    }
}

/// Runs containers as local processes. It is cheap to clone.
#[derive(Clone)]
pub struct ProcessRuntime {
    inner: Arc<Inner>,
}

struct Inner {
    options: ProcessOptions,
    groups: Hierarchy,
    state: Mutex<RuntimeState>,
}

#[derive(Default)]
struct RuntimeState {
    /// Volume directories of prepared pods.
    volumes: HashMap<String, HashMap<String, PathBuf>>,
    /// Supervisors of running containers.
    running: HashMap<ContainerKey, Arc<OwnedFd>>,
}

impl ProcessRuntime {
    /// Opens the directory and creates it if necessary.
    pub fn open(mut options: ProcessOptions) -> io::Result<Self> {
        fs::create_dir_all(options.root.join("pods"))?;
        fs::create_dir_all(options.root.join("claims"))?;
        // Mount paths are replaced by paths below the root, so the root must not depend on a working directory.
        options.root = options.root.canonicalize()?;
        let groups = if options.control_groups {
            Hierarchy::detect()
        } else {
            Hierarchy::default()
        };
        Ok(Self {
            inner: Arc::new(Inner {
                options,
                groups,
                state: Mutex::default(),
            }),
        })
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, RuntimeState> {
        // Entries are inserted and removed as a whole, so a panic elsewhere leaves the maps consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pod_dir(&self, uid: &str) -> PathBuf {
        self.options.root.join("pods").join(uid)
    }

    fn claims(&self) -> PathBuf {
        self.options.root.join("claims")
    }

    fn container_dir(&self, key: &ContainerKey) -> PathBuf {
        self.pod_dir(&key.pod)
            .join("containers")
            .join(&key.name)
            .join(key.attempt.to_string())
    }

    /// Prepares everything that a supervisor needs to start.
    fn lay_out(&self, spec: &ContainerSpec) -> Result<(Launch, OwnedFd), String> {
        let dir = self.container_dir(&spec.key);
        fs::create_dir_all(dir.join("cwd")).map_err(|e| format!("the container's directory cannot be created: {e}"))?;
        if dir.join(STARTED).exists() || dir.join(EXIT).exists() {
            return Err("the container has been started already".into());
        }
        let lock = lock(&dir).map_err(|e| format!("the container's lock cannot be taken: {e}"))?;
        let lock = lock.ok_or("the container is being started already")?;

        let volumes = self.state().volumes.get(&spec.key.pod).cloned().unwrap_or_default();
        let termination = dir.join(TERMINATION);
        File::create(&termination).map_err(|e| format!("the termination message file cannot be created: {e}"))?;
        let mut pairs = vec![(spec.declaration.termination_message_path.clone(), text(&termination))];
        for mount in &spec.mounts {
            let volume = volumes
                .get(&mount.volume)
                .ok_or_else(|| format!("volume {:?} is not prepared", mount.volume))?;
            let real = directories::below(volume, &mount.sub_path)
                .map_err(|why| format!("failed to prepare volume {:?}: {why}", mount.volume))?;
            pairs.push((mount.path.clone(), text(&real)));
        }
        let parents = directories::parents(&dir.join("root"), &pairs[1..])
            .map_err(|e| format!("the mount points cannot be created: {e}"))?;
        let translator = Translator::new(pairs).with_parents(parents);
        let mut line = launch::resolve(&spec.declaration, &translator);
        line.env.insert(MARKER.into(), marker(&spec.key));
        let working_dir = match &line.working_dir {
            Some(dir) => PathBuf::from(dir),
            None => dir.join("cwd"),
        };
        // A container runtime does the same, but here only for the container's own directories.
        if working_dir.starts_with(self.pod_dir(&spec.key.pod)) || working_dir.starts_with(self.claims()) {
            fs::create_dir_all(&working_dir)
                .map_err(|e| format!("working directory {} cannot be created: {e}", working_dir.display()))?;
        }
        let program = find(
            &line.argv,
            line.env.get("PATH").map_or("", String::as_str),
            &working_dir,
        )?;
        let group = format!("{}-{}-{}", spec.key.pod, spec.key.name, spec.key.attempt);
        let launch = Launch {
            program,
            argv: line.argv,
            env: line.env,
            working_dir,
            lock_fd: lock.as_raw_fd(),
            log_limit: self.options.log_limit,
            memory_limit: spec.memory_limit,
            cgroup: self.groups.create(&group, spec.memory_limit, spec.cpu_limit_milli),
            die_with_host: self.options.die_with_host,
            dir,
        };
        Ok((launch, lock))
    }

    async fn start(self: Arc<Self>, spec: ContainerSpec) -> Result<Running, String> {
        let key = spec.key.clone();
        let this = Arc::clone(&self);
        let laid_out = tokio::task::spawn_blocking(move || this.lay_out(&spec))
            .await
            .map_err(|e| e.to_string())?;
        let (launch, lock) = laid_out.map_err(|why| format!("failed to create containerd task: {why}"))?;
        let dir = launch.dir.clone();
        let stderr = File::create(dir.join("supervisor.log")).map_err(|e| format!("supervisor.log: {e}"))?;
        let mut command = tokio::process::Command::new(&self.options.supervisor);
        command
            .arg(OsString::from(supervisor::SUPERVISE))
            .env_clear()
            .current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr);
        let inherited = lock.as_fd().try_clone_to_owned().map_err(|e| e.to_string())?;
        let number = lock.as_raw_fd();
        // SAFETY: between fork and exec there is a single system call, on a descriptor that the closure keeps open.
        unsafe {
            command.pre_exec(move || {
                let _keep = &inherited;
                supervisor::inherit(std::os::fd::BorrowedFd::borrow_raw(number))
            });
        }
        let mut child = command.spawn().map_err(|e| {
            format!(
                "the supervisor {} cannot be started: {e}",
                self.options.supervisor.display()
            )
        })?;
        drop(command);
        drop(lock);
        let pid = child
            .id()
            .and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed()));
        let pid = pid.ok_or("the supervisor has ended already")?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|e| format!("pidfd_open: {e}"))?;
        let mut stdin = child.stdin.take().ok_or("the supervisor has no input")?;
        let stdout = child.stdout.take().ok_or("the supervisor has no output")?;
        let mut document = serde_json::to_vec(&launch).map_err(|e| e.to_string())?;
        document.push(b'\n');
        let mut answer = String::new();
        let mut lines = tokio::io::BufReader::new(stdout);
        let written = async {
            tokio::io::AsyncWriteExt::write_all(&mut stdin, &document).await?;
            lines.read_line(&mut answer).await
        };
        let written = written.await;
        let answer = match (written, serde_json::from_str(&answer)) {
            (Ok(_), Ok(answer)) => answer,
            (written, _) => {
                // The process is not a working supervisor, so it must not continue beside this one.
                let _ = child.start_kill();
                let log = fs::read_to_string(dir.join("supervisor.log")).unwrap_or_default();
                let why = written.err().map_or_else(|| log.trim().to_owned(), |e| e.to_string());
                return Err(format!(
                    "the supervisor did not answer ({why}); {} must call \
                     kube_embed::node::runtime::process::supervisor::run_if_requested() first in main",
                    self.options.supervisor.display()
                ));
            }
        };
        let started: Started = match answer {
            Answer::Started(started) => started,
            Answer::Failed(why) => {
                // The process exits without help. Waiting for it avoids a zombie.
                let _ = child.wait().await;
                return Err(why);
            }
        };
        self.state().running.insert(key.clone(), Arc::new(pidfd));
        let this = Arc::clone(&self);
        let started_at = started.started_at;
        // A separate task reaps the supervisor, even if no caller waits for the container any longer.
        let ended = tokio::spawn(async move {
            let _input = stdin;
            if let Err(error) = child.wait().await {
                tracing::warn!(%error, "a supervisor cannot be waited for");
            }
        });
        Ok(Running {
            id: id(&key),
            started_at,
            exit: async move {
                // The task cannot panic, and it is not canceled while the tokio runtime exists.
                let _ = ended.await;
                this.conclude(key, started_at).await
            }
            .boxed(),
        })
    }

    /// Reads the end of a container without a supervisor and makes sure that none of its processes are left.
    async fn conclude(self: Arc<Self>, key: ContainerKey, started_at: Timestamp) -> Exit {
        let this = Arc::clone(&self);
        let read = tokio::task::spawn_blocking(move || {
            this.state().running.remove(&key);
            this.settle(&key, started_at)
        });
        read.await.unwrap_or_else(|_| lost(started_at))
    }

    fn settle(&self, key: &ContainerKey, started_at: Timestamp) -> Exit {
        let dir = self.container_dir(key);
        let path = dir.join(EXIT);
        let record = record::read::<ExitRecord>(&path).unwrap_or_else(|| {
            self.sweep(key);
            let exit = lost(started_at);
            let record = ExitRecord {
                code: exit.code,
                signal: exit.signal,
                oom_killed: false,
                lost: true,
                started_at,
                finished_at: exit.finished_at,
            };
            if let Err(error) = record::write(&path, &record) {
                tracing::warn!(%error, path = %path.display(), "exit record not written");
            }
            record
        });
        let message = fs::read(dir.join(TERMINATION)).unwrap_or_default();
        Exit {
            code: record.code,
            signal: record.signal,
            oom_killed: record.oom_killed,
            lost: record.lost,
            started_at: record.started_at,
            finished_at: record.finished_at,
            message: message[message.len().saturating_sub(FILE_LIMIT)..].to_vec(),
        }
    }

    /// Kills the remaining processes of a container without a supervisor.
    fn sweep(&self, key: &ContainerKey) {
        let group = self.groups.of(&format!("{}-{}-{}", key.pod, key.name, key.attempt));
        let marker = marker(key);
        let find = || {
            let mut pids = group.members();
            pids.extend(tree::marked(&marker));
            pids
        };
        // Killed processes take a moment to disappear. Their group is empty only after that.
        for _ in 0..1000 {
            if find().is_empty() {
                break;
            }
            tree::kill_all(find);
            std::thread::sleep(Duration::from_millis(2));
        }
        group.remove();
    }

    fn attempts(&self, uid: &str, container: &str) -> Vec<u32> {
        let dir = self.pod_dir(uid).join("containers").join(container);
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let mut attempts: Vec<u32> = entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
        attempts.sort_unstable();
        attempts
    }

    /// Adopts a container from before a restart.
    async fn recover(self: Arc<Self>, uid: String, container: String) -> Option<(u32, Recovered)> {
        for attempt in self.attempts(&uid, &container).into_iter().rev() {
            let key = ContainerKey {
                pod: uid.clone(),
                name: container.clone(),
                attempt,
            };
            let dir = self.container_dir(&key);
            // A supervisor that was started shortly before the node was killed may still be starting its command.
            let held = loop {
                let held = matches!(lock(&dir), Ok(None));
                if !held || dir.join(STARTED).exists() {
                    break held;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            };
            let started = record::read::<Started>(&dir.join(STARTED));
            let recovered = match (started, held) {
                (Some(started), true) => {
                    let running = Arc::clone(&self).adopt(key.clone(), &started);
                    match running {
                        Some(running) => Recovered::Running(running),
                        // It ended between the two checks.
                        None => self.ended(&key, started.started_at).await,
                    }
                }
                (Some(started), false) => self.ended(&key, started.started_at).await,
                // It never ran. The next start reuses the directory.
                (None, _) => continue,
            };
            return Some((attempt, recovered));
        }
        None
    }

    async fn ended(self: &Arc<Self>, key: &ContainerKey, started_at: Timestamp) -> Recovered {
        Recovered::Exited {
            id: id(key),
            exit: Arc::clone(self).conclude(key.clone(), started_at).await,
        }
    }

    fn adopt(self: Arc<Self>, key: ContainerKey, started: &Started) -> Option<Running> {
        let pidfd = Arc::new(open(started.supervisor)?);
        self.state().running.insert(key.clone(), Arc::clone(&pidfd));
        let started_at = started.started_at;
        let ended = gone(pidfd);
        Some(Running {
            id: id(&key),
            started_at,
            exit: async move {
                ended.await;
                self.conclude(key, started_at).await
            }
            .boxed(),
        })
    }

    fn stop(&self, key: &ContainerKey, stop: Stop) {
        let pidfd = self.state().running.get(key).cloned();
        let Some(pidfd) = pidfd else { return };
        let signal = match stop {
            Stop::Term => Signal::TERM,
            Stop::Kill => Signal::USR1,
        };
        // ESRCH means that it has just ended.
        let _ = pidfd_send_signal(&pidfd, signal);
    }

    /// Kills and removes everything of a pod.
    async fn remove(self: Arc<Self>, uid: String) {
        let containers = self.pod_dir(&uid).join("containers");
        let names: Vec<_> = fs::read_dir(containers)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        for name in names {
            if let Some((attempt, Recovered::Running(running))) =
                Arc::clone(&self).recover(uid.clone(), name.clone()).await
            {
                self.stop(
                    &ContainerKey {
                        pod: uid.clone(),
                        name,
                        attempt,
                    },
                    Stop::Kill,
                );
                running.exit.await;
            }
        }
        self.state().volumes.remove(&uid);
        let dir = self.pod_dir(&uid);
        let removed = tokio::task::spawn_blocking(move || directories::remove(&dir)).await;
        if let Ok(Err(error)) = removed {
            tracing::warn!(%error, uid, "a pod's directory cannot be removed");
        }
    }

    async fn outgrown(self: Arc<Self>, uid: String, limits: Vec<(String, u64)>) -> Outgrown {
        if limits.is_empty() {
            return std::future::pending().await;
        }
        let root = self.pod_dir(&uid).join("volumes");
        loop {
            tokio::time::sleep(self.options.measure_every).await;
            let (root, limits) = (root.clone(), limits.clone());
            let measured = tokio::task::spawn_blocking(move || {
                limits
                    .into_iter()
                    .find(|(name, limit)| directories::usage(&root.join(name)) > *limit)
            });
            if let Ok(Some((volume, _))) = measured.await {
                return Outgrown { volume };
            }
        }
    }
}

fn lost(started_at: Timestamp) -> Exit {
    Exit {
        code: 137,
        signal: None,
        oom_killed: false,
        lost: true,
        started_at,
        finished_at: Timestamp::now(),
        message: Vec::new(),
    }
}

fn id(key: &ContainerKey) -> String {
    format!("{}-{}-{}", key.pod, key.name, key.attempt)
}

fn marker(key: &ContainerKey) -> String {
    format!("{}/{}/{}", key.pod, key.name, key.attempt)
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Takes a container's lock. Returns `None` while its supervisor is alive.
fn lock(dir: &Path) -> io::Result<Option<OwnedFd>> {
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(dir.join(LOCK))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            file.flush()?;
            Ok(Some(file.into()))
        }
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Returns a handle to a process if it is still the same one.
fn open(process: Process) -> Option<OwnedFd> {
    let pidfd = pidfd_open(rustix::process::Pid::from_raw(process.pid)?, PidfdFlags::empty()).ok()?;
    // This is checked after opening, because from then on the handle cannot refer to another process.
    tree::is_alive(process).then_some(pidfd)
}

/// Wraps a descriptor for tokio.
fn readiness(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` stays the same open descriptor during its lifetime, and `AsyncFd` owns it from here on.
    Ok(unsafe { AsyncFd::register(fd) }?)
}

/// Resolves when the process has ended.
async fn gone(pidfd: Arc<OwnedFd>) {
    match pidfd.try_clone().and_then(readiness) {
        Ok(fd) => {
            // Readable means ended. An error means that there is nothing to wait for.
            let _ = fd.readable().await;
        }
        Err(error) => tracing::warn!(%error, "a supervisor cannot be waited for"),
    }
}

/// Returns the program of a command line, or runc's error message if there is none.
fn find(argv: &[String], path: &str, working_dir: &Path) -> Result<PathBuf, String> {
    let name = argv.first().map(String::as_str).unwrap_or_default();
    let refuse = |why: &str| {
        let prefix = "OCI runtime create failed: unable to start container process";
        Err(format!("{prefix}: exec: {name:?}: {why}"))
    };
    let runnable =
        |candidate: &Path| candidate.is_file() && rustix::fs::access(candidate, rustix::fs::Access::EXEC_OK).is_ok();
    if name.contains('/') {
        let candidate = working_dir.join(name);
        return match fs::metadata(&candidate) {
            Err(_) => refuse(&format!("stat {name}: no such file or directory")),
            Ok(metadata) if metadata.is_dir() => refuse("is a directory"),
            Ok(_) if !runnable(&candidate) => refuse("permission denied"),
            Ok(_) => Ok(candidate),
        };
    }
    let candidates = path
        .split(':')
        .filter(|dir| !dir.is_empty())
        .map(|dir| Path::new(dir).join(name));
    match candidates.into_iter().find(|c| !name.is_empty() && runnable(c)) {
        Some(found) => Ok(found),
        None => refuse("executable file not found in $PATH"),
    }
}

impl PodRuntime for ProcessRuntime {
    fn name(&self) -> &'static str {
        "process"
    }

    fn prepare(&self, pod: &PodKey, volumes: Vec<Volume>) -> BoxFuture<'static, Result<(), String>> {
        let (inner, uid) = (Arc::clone(&self.inner), pod.uid.clone());
        async move {
            let made = tokio::task::spawn_blocking(move || {
                let (root, claims) = (inner.pod_dir(&uid).join("volumes"), inner.claims());
                fs::create_dir_all(&root).map_err(|e| format!("the pod's directory cannot be created: {e}"))?;
                let mut paths = HashMap::new();
                for volume in &volumes {
                    paths.insert(volume.name.clone(), directories::make(&root, &claims, volume)?);
                }
                inner.state().volumes.insert(uid, paths);
                Ok(())
            });
            made.await.unwrap_or_else(|e| Err(e.to_string()))
        }
        .boxed()
    }

    fn start(&self, spec: ContainerSpec) -> BoxFuture<'static, Result<Running, StartFailure>> {
        let started = tokio::spawn(Arc::clone(&self.inner).start(spec));
        // A separate task finishes and records a start, even if no caller waits for it.
        async move {
            started
                .await
                .unwrap_or_else(|e| Err(e.to_string()))
                .map_err(|message| StartFailure { message })
        }
        .boxed()
    }

    fn stop(&self, container: &ContainerKey, stop: Stop) {
        self.inner.stop(container, stop);
    }

    fn recover(&self, pod: &PodKey, container: &str) -> BoxFuture<'static, Option<(u32, Recovered)>> {
        Arc::clone(&self.inner)
            .recover(pod.uid.clone(), container.to_owned())
            .boxed()
    }

    fn pods(&self) -> BoxFuture<'static, Vec<String>> {
        let dir = self.inner.options.root.join("pods");
        async move {
            let entries = fs::read_dir(dir).into_iter().flatten().flatten();
            entries
                .filter_map(|entry| entry.file_name().into_string().ok())
                .collect()
        }
        .boxed()
    }

    fn remove(&self, uid: &str) -> BoxFuture<'static, ()> {
        Arc::clone(&self.inner).remove(uid.to_owned()).boxed()
    }

    fn log(
        &self,
        container: &ContainerKey,
        follow: bool,
    ) -> BoxFuture<'static, Option<BoxStream<'static, io::Result<LogItem>>>> {
        logfile::read(self.inner.container_dir(container), follow).boxed()
    }

    fn log_tail(&self, container: &ContainerKey) -> BoxFuture<'static, Vec<u8>> {
        let dir = self.inner.container_dir(container);
        async move {
            let read = tokio::task::spawn_blocking(move || logfile::tail(&dir, TAIL));
            read.await.unwrap_or_default()
        }
        .boxed()
    }

    fn outgrown(&self, pod: &PodKey, volumes: &[Volume]) -> BoxFuture<'static, Outgrown> {
        let limited = volumes.iter().filter_map(|volume| match volume.content {
            VolumeContent::Empty {
                size_limit: Some(limit),
            } if limit > 0 => Some((volume.name.clone(), limit)),
            _ => None,
        });
        Arc::clone(&self.inner)
            .outgrown(pod.uid.clone(), limited.collect())
            .boxed()
    }

    fn provision(&self, claim: &str) -> BoxFuture<'static, Result<(), String>> {
        let dir = self.inner.claims().join(claim);
        async move { fs::create_dir_all(&dir).map_err(|e| format!("failed to provision volume: {e}")) }.boxed()
    }

    fn release(&self, claim: &str) -> BoxFuture<'static, ()> {
        let dir = self.inner.claims().join(claim);
        async move {
            let removed = tokio::task::spawn_blocking(move || directories::remove(&dir)).await;
            if let Ok(Err(error)) = removed {
                tracing::warn!(%error, "a claim's directory cannot be removed");
            }
        }
        .boxed()
    }
}
