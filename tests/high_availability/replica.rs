//! A replica of the operator, as a process.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use anyhow::{Context as _, ensure};
use legion_tests::local::programs;
use regex::Regex;
use rustix::process::{Pid, Signal, kill_process};

use crate::world::World;

/// One replica. Dropping it kills it.
pub(crate) struct Replica {
    pub name: String,
    /// Its user name in the audit log.
    pub user: String,
    kubeconfig: PathBuf,
    log: PathBuf,
    child: Child,
    address: String,
}

impl Replica {
    /// Starts a replica and waits until it is ready.
    pub(crate) async fn start(world: &World, name: &str) -> anyhow::Result<Self> {
        Self::start_with(world, name, &[]).await
    }

    /// The same, with these environment variables.
    pub(crate) async fn start_with(world: &World, name: &str, variables: &[(&str, &str)]) -> anyhow::Result<Self> {
        let (kubeconfig, user) = world.kubeconfig_of(name)?;
        let log = world.directory.path().join(format!("{name}.log"));
        let mut replica = Self {
            name: name.to_owned(),
            user,
            child: spawn(world, name, &kubeconfig, &log, variables)?,
            kubeconfig,
            log,
            address: String::new(),
        };
        replica.become_ready(world).await?;
        Ok(replica)
    }

    /// Restarts it after its end, as the kubelet would.
    pub(crate) async fn restart(&mut self, world: &World) -> anyhow::Result<()> {
        self.child = spawn(world, &self.name, &self.kubeconfig, &self.log, &[])?;
        self.become_ready(world).await
    }

    async fn become_ready(&mut self, world: &World) -> anyhow::Result<()> {
        let listening = Regex::new(r"listening address=(\S+)")?;
        self.address = world
            .until("the replica listens", async || {
                let log = self.log()?;
                Ok(listening.captures(&log).map(|captures| captures[1].to_owned()))
            })
            .await?;
        world
            .until("the replica is ready", async || {
                Ok(self
                    .ask("/readyz")
                    .is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
                    .then_some(()))
            })
            .await
            .with_context(|| self.log().unwrap_or_default())
    }

    /// Returns the address of its listener.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Returns its log.
    pub(crate) fn log(&self) -> anyhow::Result<String> {
        Ok(fs::read_to_string(&self.log)?)
    }

    /// Returns the response of its listener to a GET.
    pub(crate) fn ask(&self, path: &str) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect(&self.address)?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Returns the value of a series.
    pub(crate) fn metric(&self, series: &str) -> anyhow::Result<f64> {
        let answer = self.ask("/metrics")?;
        let prefix = format!("{series} ");
        let line = answer.lines().find_map(|line| line.strip_prefix(&prefix));
        Ok(line
            .with_context(|| format!("no {series} in {answer}"))?
            .trim()
            .parse()?)
    }

    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?).context("a pid")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self, world: &World) -> anyhow::Result<ExitStatus> {
        let child = &mut self.child;
        world
            .until("the replica has ended", async || Ok(child.try_wait()?))
            .await
    }

    pub(crate) fn runs(&mut self) -> anyhow::Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }
}

fn spawn(
    world: &World,
    name: &str,
    kubeconfig: &Path,
    log: &Path,
    variables: &[(&str, &str)],
) -> anyhow::Result<Child> {
    let program = programs()?.join("legion-operator");
    ensure!(program.is_file(), "no {}", program.display());
    Command::new(program)
        .args([
            "run",
            "--identity",
            name,
            "--listen",
            "127.0.0.1:0",
            "--agent-image",
            "agent:1",
        ])
        .args(["--platform-namespace", &world.platform, "--namespace", &world.namespace])
        .env("KUBECONFIG", kubeconfig)
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(log)?)
        .spawn()
        .context("legion-operator")
}

impl Drop for Replica {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
