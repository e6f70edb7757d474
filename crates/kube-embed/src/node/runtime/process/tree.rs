//! Processes in `/proc`: start times, descendants and memory. Also kills process trees.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use rustix::process::{Pid, Signal, kill_process};

use super::record::{MARKER, Process};

/// Returns the fields of `/proc/PID/stat` after the command, which may itself contain spaces and parentheses.
fn stat(pid: i32) -> Option<Vec<String>> {
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let text = String::from_utf8_lossy(&text);
    let (_, fields) = text.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

/// Returns the start time of a process in clock ticks since boot.
pub(super) fn start_time(pid: i32) -> Option<u64> {
    stat(pid)?.get(19)?.parse().ok()
}

/// Returns whether this same process still exists and is not a zombie.
pub(super) fn is_alive(process: Process) -> bool {
    stat(process.pid).is_some_and(|fields| {
        fields.first().is_some_and(|state| state != "Z" && state != "X")
            && fields.get(19).and_then(|t| t.parse().ok()) == Some(process.start_time)
    })
}

/// Returns every visible pid on the machine.
fn pids() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// Returns all descendants of a process, without zombies.
pub(super) fn descendants(root: i32) -> Vec<i32> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    let mut zombies = BTreeSet::new();
    for pid in pids() {
        let Some(fields) = stat(pid) else { continue };
        if let Some(parent) = fields.get(1).and_then(|p| p.parse().ok()) {
            children.entry(parent).or_default().push(pid);
        }
        if fields.first().is_some_and(|state| state == "Z" || state == "X") {
            zombies.insert(pid);
        }
    }
    let mut found = Vec::new();
    let mut next = vec![root];
    while let Some(parent) = next.pop() {
        let below = children.remove(&parent).unwrap_or_default();
        found.extend(below.iter().filter(|pid| !zombies.contains(pid)));
        next.extend(below);
    }
    found
}

/// Sends a signal. A process that has ended is not an error.
pub(super) fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        // ESRCH is success here. After EPERM (a set-uid program) nothing can be done.
        let _ = kill_process(pid, signal);
    }
}

/// Kills all processes that `find` returns. It first stops them, repeatedly until no new one appears, so that none
/// can fork during the scan. It then kills them all.
pub(super) fn kill_all(find: impl Fn() -> Vec<i32>) {
    let mut stopped = BTreeSet::new();
    loop {
        let fresh: Vec<_> = find().into_iter().filter(|pid| !stopped.contains(pid)).collect();
        if fresh.is_empty() {
            break;
        }
        for pid in fresh {
            signal(pid, Signal::STOP);
            stopped.insert(pid);
        }
    }
    for pid in stopped {
        signal(pid, Signal::KILL);
    }
}

/// Returns the processes with a container's marker in their environment.
pub(super) fn marked(container: &str) -> Vec<i32> {
    let wanted = format!("{MARKER}={container}");
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let carries = |pid: &i32| {
        fs::read(format!("/proc/{pid}/environ")).is_ok_and(|env| env.split(|b| *b == 0).any(|v| v == wanted.as_bytes()))
    };
    pids().into_iter().filter(|pid| *pid != own).filter(carries).collect()
}

/// Returns the private memory of these processes in bytes.
pub(super) fn memory(pids: &[i32]) -> u64 {
    let page = rustix::param::page_size() as u64;
    let of = |pid: &i32| -> Option<u64> {
        let text = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
        let mut fields = text.split_whitespace().skip(1).map(|f| f.parse::<u64>().unwrap_or(0));
        let (resident, shared) = (fields.next()?, fields.next()?);
        Some(resident.saturating_sub(shared) * page)
    };
    pids.iter().filter_map(of).sum()
}
