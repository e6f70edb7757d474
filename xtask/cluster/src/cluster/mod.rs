//! `cargo xtask cluster`: a complete Kubernetes on this machine, from Go modules, for tests.
//!
//! It has etcd, API server, controller manager, scheduler, kubelet, containerd with runc, kube-proxy and CoreDNS. It
//! also has an OCI registry, an S3 server and a default StorageClass. Everything runs in one network namespace, and
//! nothing is reachable from outside. `down` leaves nothing behind, also when processes have failed.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool speaks through them"
)]

mod control_plane;
pub mod daemon;
mod image;
pub mod layout;
mod network;
mod node;
mod pki;
mod services;
pub(crate) mod tools;

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand, ValueEnum};
use rustix::process::{Pid, Signal, kill_process};

use daemon::Daemon;
use layout::{ADDRESS, ClusterState, Layout, REGISTRY_PORT, S3_KEYS, S3_PORT};
use tools::Programs;

/// What to do with the cluster.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Starts it and returns when it is ready; builds Kubernetes first where it is not in the cache.
    Up {
        /// Where it keeps its files.
        #[command(flatten)]
        place: Place,
        /// etcd, API server, controller manager and scheduler only: pods are created but nothing runs them.
        #[arg(long)]
        control_plane: bool,
    },
    /// Runs a command in it, with KUBECONFIG set and kubectl on PATH, and exits with its code.
    Run {
        /// Where it keeps its files.
        #[command(flatten)]
        place: Place,
        /// The command and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Shows its processes, and fails when one of them does not run.
    Status {
        /// Where it keeps its files.
        #[command(flatten)]
        place: Place,
    },
    /// Prints where a program lies that a suite needs, such as helm; builds it where it is not in the cache.
    Tool {
        /// The program.
        name: String,
    },
    /// Stops, starts, pauses or resumes one of its processes, for tests of what happens then.
    Process {
        /// Where it keeps its files.
        #[command(flatten)]
        place: Place,
        /// Its name, as `status` shows it.
        name: String,
        /// What becomes of it.
        #[arg(value_enum)]
        change: Change,
    },
    /// Stops it and deletes its files.
    Down {
        /// Where it keeps its files.
        #[command(flatten)]
        place: Place,
    },
}

/// What becomes of a process.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Change {
    /// Asks it to end, and waits for it.
    Stop,
    /// It is killed, as a crash does it.
    Kill,
    /// It is started as it was before, unless it runs.
    Start,
    /// It does nothing until it is resumed.
    Pause,
    /// It goes on.
    Resume,
}

/// Which cluster.
#[derive(Debug, Args)]
pub struct Place {
    /// Where it keeps its files; clusters in several directories do not see each other. Default: target/cluster.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Place {
    pub(crate) fn layout(&self, repository: &Path) -> anyhow::Result<Layout> {
        let default = || repository.join("target/cluster");
        Layout::new(&self.dir.clone().unwrap_or_else(default))
    }
}

/// Does it.
///
/// # Errors
/// When it cannot be done; the message says what is missing.
pub fn act(repository: &Path, action: Action) -> anyhow::Result<ExitCode> {
    match action {
        Action::Up { place, control_plane } => up(repository, &place, control_plane),
        Action::Run { place, command } => run(&place.layout(repository)?, &command),
        Action::Status { place } => status(&place.layout(repository)?),
        Action::Tool { name } => {
            println!("{}", tools::provide_one(repository, &name)?.display());
            Ok(ExitCode::SUCCESS)
        }
        Action::Process { place, name, change } => {
            let layout = place.layout(repository)?;
            let mut daemon = Daemon::load(&layout, &name)?;
            match change {
                Change::Stop => daemon.stop()?,
                Change::Kill => daemon.kill()?,
                Change::Start => daemon.start(&layout)?,
                Change::Pause => daemon.signal(Signal::STOP)?,
                Change::Resume => daemon.signal(Signal::CONT)?,
            }
            Ok(ExitCode::SUCCESS)
        }
        Action::Down { place } => {
            let layout = place.layout(repository)?;
            if !layout.root().exists() {
                println!("there is no cluster in {}", layout.root().display());
                return Ok(ExitCode::SUCCESS);
            }
            down(&layout)?;
            println!("nothing is left of the cluster in {}", layout.root().display());
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// A cluster of the caller's, who then need not have one made.
fn callers() -> Option<OsString> {
    std::env::var_os("KUBECONFIG").filter(|value| !value.is_empty())
}

fn up(repository: &Path, place: &Place, control_plane: bool) -> anyhow::Result<ExitCode> {
    if let Some(kubeconfig) = callers() {
        println!(
            "KUBECONFIG is set: {} is used, nothing is started",
            kubeconfig.display()
        );
        let reached = Command::new("kubectl").arg("version").status();
        if !reached.is_ok_and(|status| status.success()) {
            bail!("`kubectl version` fails with this KUBECONFIG: fix it, or unset it to get a new cluster");
        }
        return Ok(ExitCode::SUCCESS);
    }
    let layout = place.layout(repository)?;
    if layout.root().exists() {
        check_owned(&layout)?;
    }
    if let Some(state) = layout.state()? {
        let running = Daemon::all(&layout)?.iter().all(Daemon::is_running);
        if state.ready && running && state.node != control_plane {
            println!("the cluster in {} is up already", layout.root().display());
            return Ok(ExitCode::SUCCESS);
        }
        eprintln!(
            "{} holds an unfinished, stopped or different cluster: it is removed first",
            layout.root().display()
        );
    }
    let programs = tools::provide(repository, control_plane)?;
    down(&layout)?;
    let began = Instant::now();
    layout.set_state(&ClusterState {
        node: !control_plane,
        ready: false,
    })?;
    if let Err(error) = start(repository, &layout, &programs, control_plane) {
        let kept = layout.directory("logs")?;
        return Err(error.context(format!("the cluster did not start; its logs are in {}", kept.display())));
    }
    layout.set_state(&ClusterState {
        node: !control_plane,
        ready: true,
    })?;
    println!("Kubernetes is ready after {:.1} s", began.elapsed().as_secs_f64());
    println!("  kubeconfig   {}", layout.kubeconfig().display());
    if !control_plane {
        println!("  registry     {ADDRESS}:{REGISTRY_PORT}");
        println!(
            "  S3           http://{ADDRESS}:{S3_PORT} (access key {}, secret key {})",
            S3_KEYS.0, S3_KEYS.1
        );
    }
    println!("  logs         {}", layout.join("logs").display());
    println!("It is reached from its own network only: cargo xtask cluster run -- kubectl get nodes");
    Ok(ExitCode::SUCCESS)
}

fn start(repository: &Path, layout: &Layout, programs: &Programs, control_plane: bool) -> anyhow::Result<()> {
    let bin = layout.directory("bin")?;
    for (name, path) in programs {
        symlink(path, bin.join(name)).with_context(|| format!("{name} cannot be linked into {}", bin.display()))?;
    }
    pki::provide(layout)?;
    network::create(layout)?;
    control_plane::start(layout, programs)?;
    if !control_plane {
        node::start(layout, programs)?;
        services::start(layout, programs, repository)?;
    }
    Ok(())
}

fn run(layout: &Layout, arguments: &[OsString]) -> anyhow::Result<ExitCode> {
    let (program, arguments) = arguments.split_first().context("no command is given")?;
    let mut command = if callers().is_some() {
        Command::new(program)
    } else {
        let Some(state) = layout.state()? else {
            bail!(
                "there is no cluster in {}: cargo xtask cluster up",
                layout.root().display()
            );
        };
        if !state.ready {
            bail!(
                "the cluster in {} did not start: cargo xtask cluster up",
                layout.root().display()
            );
        }
        enter(layout, program)
    };
    let status = command
        .args(arguments)
        .status()
        .with_context(|| format!("{} cannot be started", program.display()))?;
    Ok(status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Returns a command in the cluster's network, with KUBECONFIG set and the cluster's programs first on PATH.
/// LEGION_CLUSTER is the
/// cluster's directory, for tests that change more than the API can.
pub fn enter(layout: &Layout, program: &std::ffi::OsStr) -> Command {
    let mut search = layout.programs().into_os_string();
    search.push(":");
    search.push(std::env::var_os("PATH").unwrap_or_default());
    let mut command = network::command(layout, "env");
    let mut variable = OsString::from("PATH=");
    variable.push(search);
    command.arg(variable);
    let mut variable = OsString::from("KUBECONFIG=");
    variable.push(layout.kubeconfig());
    command.arg(variable);
    let mut variable = OsString::from("LEGION_CLUSTER=");
    variable.push(layout.root());
    command.arg(variable).arg(program);
    command
}

fn status(layout: &Layout) -> anyhow::Result<ExitCode> {
    let Some(state) = layout.state()? else {
        println!("there is no cluster in {}", layout.root().display());
        return Ok(ExitCode::FAILURE);
    };
    let daemons = Daemon::all(layout)?;
    for daemon in &daemons {
        let word = if daemon.is_running() { "running" } else { "STOPPED" };
        println!("{:<24} {word}  {}", daemon.name, daemon.log(layout).display());
    }
    let healthy = state.ready && daemons.iter().all(Daemon::is_running);
    if !state.ready {
        println!("the cluster did not come to its start's end");
    }
    Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Ends every process of the cluster, also those whose parents were killed, and removes all that it made.
///
/// # Errors
/// When something cannot be removed.
pub fn down(layout: &Layout) -> anyhow::Result<()> {
    if !layout.root().exists() {
        return Ok(());
    }
    check_owned(layout)?;
    let began = Instant::now();
    loop {
        let mut pids = network::processes(layout);
        pids.extend(node::cgroups(layout).iter().flat_map(|root| contained(root)));
        if pids.is_empty() {
            break;
        }
        for pid in pids {
            if let Some(pid) = Pid::from_raw(pid) {
                // It may have ended since.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        if began.elapsed() > node::TEARDOWN {
            bail!(
                "processes of the cluster in {} do not end after KILL",
                layout.root().display()
            );
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    unmount(layout.root())?;
    for root in node::cgroups(layout) {
        remove_cgroup(&root)?;
    }
    network::delete(layout)?;
    fs::remove_dir_all(layout.root()).with_context(|| format!("{} cannot be deleted", layout.root().display()))
}

/// Fails when a directory holds something, but no cluster: what is not ours is not deleted.
fn check_owned(layout: &Layout) -> anyhow::Result<()> {
    let mut entries =
        fs::read_dir(layout.root()).with_context(|| format!("{} cannot be read", layout.root().display()))?;
    if layout.state()?.is_none() && entries.next().is_some() {
        bail!(
            "{} holds files, but no cluster: choose another --dir",
            layout.root().display()
        );
    }
    Ok(())
}

/// The processes in a cgroup and those below it.
fn contained(root: &Path) -> Vec<i32> {
    let own = fs::read_to_string(root.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<i32> = own.lines().filter_map(|line| line.parse().ok()).collect();
    for entry in fs::read_dir(root).into_iter().flatten().filter_map(Result::ok) {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            pids.extend(contained(&entry.path()));
        }
    }
    pids
}

/// Removes a cgroup with those below it. The kernel counts a process as there for a moment after its end.
fn remove_cgroup(root: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(root).into_iter().flatten().filter_map(Result::ok) {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path())?;
        }
    }
    let began = Instant::now();
    while let Err(error) = fs::remove_dir(root) {
        if error.kind() == std::io::ErrorKind::NotFound {
            break;
        }
        if began.elapsed() > node::TEARDOWN {
            return Err(error).with_context(|| format!("cgroup {} cannot be removed", root.display()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Unmounts everything below a directory, the last mounted first.
fn unmount(root: &Path) -> anyhow::Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("/proc/self/mountinfo cannot be read")?;
    // No path of ours has a character that is escaped here: a layout refuses them.
    let below = mounts
        .lines()
        .filter_map(|line| line.split_whitespace().nth(4))
        .filter(|path| Path::new(path).starts_with(root));
    for path in below.collect::<Vec<_>>().into_iter().rev() {
        let mut command = Command::new("umount");
        network::run(command.args(["--lazy", "--no-mtab", path]))?;
    }
    Ok(())
}
