//! The measured processes: their use of CPU and memory, and the settings of the controller manager.

use std::{fs, path::Path, time::Duration};

use anyhow::Context as _;
use legion_tests::cluster;
use serde_json::Value;

/// Returns the CPU time of a process.
pub(crate) fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the process is gone")?;
    // The name may contain spaces and parentheses.
    let (_, fields) = stat.rsplit_once(')').context("/proc/PID/stat")?;
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().unwrap_or_default())
        .sum();
    // Linux reports them in hundredths of a second, independent of the kernel's clock (USER_HZ).
    Ok(Duration::from_millis(ticks * 10))
}

/// Returns the resident memory of a process, in MiB.
pub(crate) fn resident(pid: u32) -> anyhow::Result<f64> {
    memory(pid, "VmRSS:")
}

/// Returns the peak resident memory of a process, in MiB.
pub(crate) fn peak(pid: u32) -> anyhow::Result<f64> {
    memory(pid, "VmHWM:")
}

fn memory(pid: u32, what: &'static str) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the process is gone")?;
    let line = status.lines().find_map(|line| line.strip_prefix(what)).context(what)?;
    let kibibytes: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kibibytes / 1024.0)
}

/// A process of the cluster, as the harness records it.
pub(crate) struct Daemon<'a> {
    pub cluster: &'a Path,
    pub xtask: &'a Path,
    pub name: &'static str,
}

impl Daemon<'_> {
    /// Returns its process id.
    pub(crate) fn pid(&self) -> anyhow::Result<u32> {
        let file = fs::read(self.cluster.join(format!("run/{}.json", self.name)))?;
        let record: Value = serde_json::from_slice(&file)?;
        let pid = record["process"]["pid"].as_u64().context("a pid")?;
        Ok(u32::try_from(pid)?)
    }

    /// Stops it, or starts it from its record.
    pub(crate) fn change(&self, change: &str) -> anyhow::Result<()> {
        cluster::process_of(self.xtask, self.cluster, self.name, change)
    }

    /// Restarts it with additional arguments. Returns its previous record.
    pub(crate) fn restart_with(&self, arguments: &[&str]) -> anyhow::Result<Vec<u8>> {
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

    /// Restarts it with its previous record.
    pub(crate) fn restore(&self, usual: Vec<u8>) -> anyhow::Result<()> {
        self.change("stop")?;
        fs::write(self.cluster.join(format!("run/{}.json", self.name)), usual)?;
        self.change("start")
    }
}
