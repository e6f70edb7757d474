//! The processes that are measured: what they use, and the controller manager's settings.

use std::{fs, path::Path, time::Duration};

use anyhow::Context as _;
use legion_tests::cluster;
use serde_json::Value;

/// CPU time that a process has used.
pub fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the process is gone")?;
    // The name may hold spaces and parentheses.
    let (_, fields) = stat.rsplit_once(')').context("/proc/PID/stat")?;
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().unwrap_or_default())
        .sum();
    // Linux tells them in hundredths of a second, whatever the kernel's own clock is.
    Ok(Duration::from_millis(ticks * 10))
}

/// Memory that a process holds, in MiB.
pub fn resident(pid: u32) -> anyhow::Result<f64> {
    memory(pid, "VmRSS:")
}

/// The most that it ever held, in MiB.
pub fn peak(pid: u32) -> anyhow::Result<f64> {
    memory(pid, "VmHWM:")
}

fn memory(pid: u32, what: &'static str) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the process is gone")?;
    let line = status.lines().find_map(|line| line.strip_prefix(what)).context(what)?;
    let kibibytes: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kibibytes / 1024.0)
}

/// A process of the cluster, as its harness keeps it.
pub struct Daemon<'a> {
    pub cluster: &'a Path,
    pub xtask: &'a Path,
    pub name: &'static str,
}

impl Daemon<'_> {
    /// Its id.
    pub fn pid(&self) -> anyhow::Result<u32> {
        let file = fs::read(self.cluster.join(format!("run/{}.json", self.name)))?;
        let record: Value = serde_json::from_slice(&file)?;
        let pid = record["process"]["pid"].as_u64().context("a pid")?;
        Ok(u32::try_from(pid)?)
    }

    /// Stops it, or starts it as its record says.
    pub fn change(&self, change: &str) -> anyhow::Result<()> {
        cluster::process_of(self.xtask, self.cluster, self.name, change)
    }

    /// Starts it anew with these arguments besides its own; returns its record as it was.
    pub fn restart_with(&self, arguments: &[&str]) -> anyhow::Result<Vec<u8>> {
        let path = self.cluster.join(format!("run/{}.json", self.name));
        let usual = fs::read(&path)?;
        self.change("stop")?;
        let mut record: Value = serde_json::from_slice(&usual)?;
        let command = record["command"].as_array_mut().context("a command line")?;
        command.extend(arguments.iter().map(|argument| Value::from(*argument)));
        fs::write(&path, serde_json::to_vec(&record)?)?;
        self.change("start")?;
        Ok(usual)
    }

    /// Starts it anew with its record as it was.
    pub fn restore(&self, usual: Vec<u8>) -> anyhow::Result<()> {
        self.change("stop")?;
        fs::write(self.cluster.join(format!("run/{}.json", self.name)), usual)?;
        self.change("start")
    }
}
