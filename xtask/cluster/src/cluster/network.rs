//! The network namespace that a whole cluster lives in.
//!
//! One bridge carries the node's address and the pods' network. Nothing in it reaches the outside. Programs enter with
//! `nsenter`, not `ip netns exec`: that mounts another /sys, in which the kubelet finds no cgroups.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

use super::layout::{ADDRESS, Layout};

/// The bridge that the CNI plugin puts the pods on.
pub(super) const BRIDGE: &str = "legion0";

fn path(layout: &Layout) -> PathBuf {
    Path::new("/var/run/netns").join(layout.name())
}

/// Makes the namespace, unless it is there.
pub(super) fn create(layout: &Layout) -> anyhow::Result<()> {
    if path(layout).exists() {
        return Ok(());
    }
    run(Command::new("ip").args(["netns", "add", &layout.name()]))?;
    let address = format!("{ADDRESS}/24");
    for arguments in [
        &["link", "set", "lo", "up"][..],
        &["link", "add", BRIDGE, "type", "bridge"],
        &["addr", "add", &address, "dev", BRIDGE],
        &["link", "set", BRIDGE, "up"],
        // Without a default route nothing that asks "which address is mine" finds one.
        &["route", "add", "default", "dev", BRIDGE],
    ] {
        run(Command::new("ip").args(["-n", &layout.name()]).args(arguments))?;
    }
    let settings = ["net.ipv4.ip_forward=1", "net.ipv4.conf.all.route_localnet=1"];
    run(command(layout, "sysctl").arg("-q").arg("-w").args(settings))
}

/// Deletes the namespace.
pub(super) fn delete(layout: &Layout) -> anyhow::Result<()> {
    if path(layout).exists() {
        run(Command::new("ip").args(["netns", "del", &layout.name()]))?;
    }
    Ok(())
}

/// A program in the namespace.
pub(super) fn command(layout: &Layout, program: &str) -> Command {
    inside(layout, &[program.to_owned()])
}

/// A program with its arguments in the namespace.
pub(super) fn inside(layout: &Layout, program: &[String]) -> Command {
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net={}", path(layout).display()))
        .arg("--")
        .args(program);
    command
}

/// The processes in the namespace, in any of its pods', and all their descendants.
pub(super) fn processes(layout: &Layout) -> Vec<i32> {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(namespace) = fs::metadata(path(layout)).map(|data| data.ino()) else {
        return Vec::new();
    };
    let all: Vec<(i32, i32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
            if matches!(fields.next()?, "Z" | "X") {
                return None;
            }
            Some((pid, fields.next()?.parse().ok()?))
        })
        .collect();
    let mut found: Vec<i32> = all
        .iter()
        .map(|(pid, _)| *pid)
        .filter(|pid| fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|data| data.ino() == namespace))
        .collect();
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        next += 1;
        let children = all.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid);
        let new: Vec<i32> = children.filter(|pid| !found.contains(pid)).collect();
        found.extend(new);
    }
    found
}

/// Runs a program and fails with what it said.
pub(super) fn run(command: &mut Command) -> anyhow::Result<()> {
    let shown = format!("{command:?}");
    let output = command.output().with_context(|| format!("{shown} cannot be started"))?;
    if !output.status.success() {
        bail!(
            "{shown} failed ({}): {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
