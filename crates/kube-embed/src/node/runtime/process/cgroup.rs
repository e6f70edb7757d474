//! Writable control groups, version 1 or 2. They limit memory and CPU and identify all processes of a container.
//!
//! Without them (no root, no delegation), the supervisor checks the memory of the container's processes itself, and
//! CPU is not limited.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The places where groups can be created. They are detected once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Hierarchy {
    memory: Option<PathBuf>,
    cpu: Option<PathBuf>,
    unified: bool,
}

/// The groups of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cgroup {
    /// The group that limits and counts memory, if there is one.
    pub(super) memory: Option<PathBuf>,
    pub(super) cpu: Option<PathBuf>,
    pub(super) unified: bool,
}

const PARENT: &str = "kube-embed";

impl Hierarchy {
    /// Finds the hierarchies in which this process may create groups.
    pub(super) fn detect() -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Self::version_1(&mounts, &own)
            .or_else(|| Self::version_2(&mounts, &own))
            .unwrap_or_default()
    }

    fn version_1(mounts: &str, own: &str) -> Option<Self> {
        let find = |controller: &str| {
            let base = mount(mounts, "cgroup", Some(controller))?;
            let path = own.lines().find_map(|line| {
                let mut parts = line.splitn(3, ':').skip(1);
                let (controllers, path) = (parts.next()?, parts.next()?);
                controllers
                    .split(',')
                    .any(|c| c == controller)
                    .then(|| path.trim_start_matches('/').to_owned())
            })?;
            writable(&base.join(path))
        };
        let memory = find("memory")?;
        Some(Self {
            memory: Some(memory),
            cpu: find("cpu"),
            unified: false,
        })
    }

    fn version_2(mounts: &str, own: &str) -> Option<Self> {
        let base = mount(mounts, "cgroup2", None)?;
        let path = own
            .lines()
            .find_map(|line| line.strip_prefix("0::"))?
            .trim_start_matches('/');
        let own = base.join(path);
        // A group that contains processes cannot delegate controllers, unless it is the root.
        fs::write(own.join("cgroup.subtree_control"), "+memory +cpu").ok()?;
        let parent = writable(&own)?;
        fs::write(parent.join("cgroup.subtree_control"), "+memory +cpu").ok()?;
        Some(Self {
            memory: Some(parent.clone()),
            cpu: Some(parent),
            unified: true,
        })
    }

    /// Creates the groups of a container. The supervisor enforces a limit that cannot be set.
    pub(super) fn create(&self, name: &str, memory: Option<u64>, cpu_milli: Option<u64>) -> Option<Cgroup> {
        let mut cgroup = Cgroup {
            unified: self.unified,
            ..Cgroup::default()
        };
        if let Some(parent) = &self.memory {
            let dir = parent.join(name);
            fs::create_dir_all(&dir).ok()?;
            let set = match (memory, self.unified) {
                (None, _) => Ok(()),
                (Some(limit), true) => fs::write(dir.join("memory.max"), limit.to_string())
                    .and_then(|()| fs::write(dir.join("memory.oom.group"), "1")),
                (Some(limit), false) => fs::write(dir.join("memory.limit_in_bytes"), limit.to_string()),
            };
            if set.is_ok() {
                cgroup.memory = Some(dir);
            }
        }
        if let (Some(parent), Some(milli)) = (&self.cpu, cpu_milli) {
            let dir = parent.join(name);
            fs::create_dir_all(&dir).ok()?;
            // The quota is per period of 100 ms, as the kubelet sets it. It is at least the kernel's minimum of 1 ms.
            let quota = (milli * 100).max(1000);
            let set = if self.unified {
                fs::write(dir.join("cpu.max"), format!("{quota} 100000"))
            } else {
                fs::write(dir.join("cpu.cfs_period_us"), "100000")
                    .and_then(|()| fs::write(dir.join("cpu.cfs_quota_us"), quota.to_string()))
            };
            if set.is_ok() {
                cgroup.cpu = Some(dir);
            }
        }
        (cgroup.memory.is_some() || cgroup.cpu.is_some()).then_some(cgroup)
    }

    /// Returns the groups of a container that may exist from an earlier run.
    pub(super) fn of(&self, name: &str) -> Cgroup {
        let existing = |parent: &Option<PathBuf>| parent.as_ref().map(|p| p.join(name)).filter(|dir| dir.is_dir());
        Cgroup {
            memory: existing(&self.memory),
            cpu: existing(&self.cpu),
            unified: self.unified,
        }
    }
}

fn mount(mounts: &str, kind: &str, option: Option<&str>) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut right = right.split(' ');
        let matches = right.next() == Some(kind)
            && option.is_none_or(|o| right.nth(1).is_some_and(|options| options.split(',').any(|x| x == o)));
        matches.then(|| left.split(' ').nth(4).map(PathBuf::from)).flatten()
    })
}

/// Returns our own parent group below `dir`, if it can be created.
fn writable(dir: &Path) -> Option<PathBuf> {
    let parent = dir.join(PARENT);
    fs::create_dir_all(&parent).ok()?;
    rustix::fs::access(parent.join("cgroup.procs"), rustix::fs::Access::WRITE_OK).ok()?;
    Some(parent)
}

impl Cgroup {
    fn dirs(&self) -> impl Iterator<Item = &PathBuf> {
        let cpu = self.cpu.as_ref().filter(|cpu| self.memory.as_ref() != Some(*cpu));
        self.memory.iter().chain(cpu)
    }

    /// Returns the files to which a process writes `0` in order to join.
    pub(super) fn procs(&self) -> Vec<PathBuf> {
        self.dirs().map(|dir| dir.join("cgroup.procs")).collect()
    }

    /// Returns every process in the groups.
    pub(super) fn members(&self) -> Vec<i32> {
        let read = |path: PathBuf| fs::read_to_string(path).unwrap_or_default();
        let texts: Vec<_> = self.procs().into_iter().map(read).collect();
        texts
            .iter()
            .flat_map(|text| text.lines())
            .filter_map(|line| line.parse().ok())
            .filter(|pid| *pid > 0)
            .collect()
    }

    /// Returns how many processes in the group the kernel killed because they ran out of memory.
    pub(super) fn oom_kills(&self) -> u64 {
        let Some(dir) = &self.memory else { return 0 };
        let file = if self.unified {
            "memory.events"
        } else {
            "memory.oom_control"
        };
        let text = fs::read_to_string(dir.join(file)).unwrap_or_default();
        text.lines()
            .find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
            .unwrap_or(0)
    }

    /// Removes the groups, which are empty at this point.
    pub(super) fn remove(&self) {
        for dir in self.dirs() {
            // A group that is still busy is removed with the next container of the same name, or at the next boot.
            let _ = fs::remove_dir(dir);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
25 20 0:22 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
26 20 0:23 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct
27 20 0:24 / /sys/fs/cgroup/unified rw,relatime shared:5 - cgroup2 cgroup2 rw";

    #[test]
    fn mounts_are_found_by_type_and_controller() {
        assert_eq!(
            mount(MOUNTS, "cgroup", Some("memory")).as_deref(),
            Some(Path::new("/sys/fs/cgroup/memory"))
        );
        assert_eq!(
            mount(MOUNTS, "cgroup", Some("cpu")).as_deref(),
            Some(Path::new("/sys/fs/cgroup/cpu"))
        );
        assert_eq!(mount(MOUNTS, "cgroup", Some("pids")), None);
        assert_eq!(
            mount(MOUNTS, "cgroup2", None).as_deref(),
            Some(Path::new("/sys/fs/cgroup/unified"))
        );
    }
}
