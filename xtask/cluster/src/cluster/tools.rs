//! The programs of the cluster. They are built from pinned Go modules (`tests/kubernetes/tools/go.mod`), once per set
//! of versions.
//!
//! One go.mod for all of them: what two of them have in common has one version, and is compiled once.
//!
//! They lie in a cache outside the checkout, `$LEGION_TOOLS` or the user's cache directory. The name is made of the
//! version and of everything that decides what the build yields. `$KUBEBUILDER_ASSETS` comes first where it has the
//! program.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool speaks through them"
)]

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use rustix::fs::{FlockOperation, flock};
use sha2::{Digest as _, Sha256};

/// How often a running build says how far it is.
const PROGRESS: Duration = Duration::from_secs(10);

/// Where the programs' modules are pinned. It also has our own programs around the libraries of others.
const SOURCE: &str = "tests/kubernetes/tools";

/// Programs that are built together.
struct Tool {
    name: &'static str,
    /// The module whose version is the tool's.
    upstream: &'static str,
    /// What is built, a program of each. `./` is a program of ours.
    packages: &'static [&'static str],
    /// What Go calls the only program, where its package has another name than the tool.
    built_as: Option<&'static str>,
    tags: &'static str,
    /// Where the version is stamped in; `{version}` is replaced.
    stamps: &'static [&'static str],
    /// Built with a C compiler.
    cgo: bool,
    /// What it is for.
    part: Part,
}

/// What a tool is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Needed for a control plane alone.
    ControlPlane,
    /// Needed for a node, and what runs on it.
    Node,
    /// Of no cluster: suites ask for it by name.
    Suites,
}

const VERSION_OF_KUBERNETES: &[&str] = &[
    "k8s.io/component-base/version.gitVersion={version}",
    "k8s.io/component-base/version.gitMajor={major}",
    "k8s.io/component-base/version.gitMinor={minor}",
    "k8s.io/component-base/version.gitTreeState=clean",
];

const TOOLS: [Tool; 15] = [
    Tool {
        built_as: Some("server"),
        ..Tool::new(
            Part::ControlPlane,
            "etcd",
            "go.etcd.io/etcd/server/v3",
            &["go.etcd.io/etcd/server/v3"],
        )
    },
    Tool {
        stamps: VERSION_OF_KUBERNETES,
        ..Tool::new(
            Part::ControlPlane,
            "kubernetes",
            "k8s.io/kubernetes",
            &[
                "k8s.io/kubernetes/cmd/kube-apiserver",
                "k8s.io/kubernetes/cmd/kube-controller-manager",
                "k8s.io/kubernetes/cmd/kube-scheduler",
                "k8s.io/kubernetes/cmd/kubelet",
                "k8s.io/kubernetes/cmd/kube-proxy",
            ],
        )
    },
    Tool {
        stamps: VERSION_OF_KUBERNETES,
        ..Tool::new(
            Part::ControlPlane,
            "kubectl",
            "k8s.io/kubernetes",
            &["k8s.io/kubernetes/cmd/kubectl"],
        )
    },
    Tool {
        // Snapshotters that are not used, and that need C libraries or tools of their own.
        tags: "no_btrfs,no_devmapper,no_zfs",
        stamps: &["github.com/containerd/containerd/v2/version.Version={version}"],
        ..Tool::new(
            Part::Node,
            "containerd",
            "github.com/containerd/containerd/v2",
            &[
                "github.com/containerd/containerd/v2/cmd/containerd",
                "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
                "github.com/containerd/containerd/v2/cmd/ctr",
            ],
        )
    },
    Tool {
        tags: "seccomp",
        cgo: true,
        ..Tool::new(
            Part::Node,
            "runc",
            "github.com/opencontainers/runc",
            &["github.com/opencontainers/runc"],
        )
    },
    Tool::new(
        Part::Node,
        "cni",
        "github.com/containernetworking/plugins",
        &[
            "github.com/containernetworking/plugins/plugins/ipam/host-local",
            "github.com/containernetworking/plugins/plugins/main/bridge",
            "github.com/containernetworking/plugins/plugins/main/loopback",
            "github.com/containernetworking/plugins/plugins/meta/portmap",
        ],
    ),
    Tool::new(Part::Node, "coredns", "github.com/coredns/coredns", &["./coredns"]),
    Tool::new(
        Part::Node,
        "registry",
        "github.com/distribution/distribution/v3",
        &["./registry"],
    ),
    Tool::new(
        Part::Node,
        "local-path",
        "github.com/rancher/local-path-provisioner",
        &["github.com/rancher/local-path-provisioner"],
    ),
    Tool::new(
        Part::Node,
        "s3",
        "github.com/versity/versitygw",
        &["github.com/versity/versitygw/cmd/versitygw"],
    ),
    Tool {
        stamps: &["helm.sh/helm/v4/internal/version.version={version}"],
        ..Tool::new(Part::Suites, "helm", "helm.sh/helm/v4", &["helm.sh/helm/v4/cmd/helm"])
    },
    Tool {
        // Targets are written in the configuration: no cloud's client library is needed.
        tags: "remove_all_sd",
        stamps: &["github.com/prometheus/common/version.Version={version}"],
        ..Tool::new(
            Part::Suites,
            "prometheus",
            "github.com/prometheus/prometheus",
            &[
                "github.com/prometheus/prometheus/cmd/prometheus",
                "github.com/prometheus/prometheus/cmd/promtool",
            ],
        )
    },
    Tool::new(
        Part::Suites,
        "kubeconform",
        "github.com/yannh/kubeconform",
        &["github.com/yannh/kubeconform/cmd/kubeconform"],
    ),
    Tool::new(Part::Suites, "kstatus", "sigs.k8s.io/cli-utils", &["./kstatus"]),
    Tool::new(
        Part::Suites,
        "glua",
        "github.com/yuin/gopher-lua",
        &["github.com/yuin/gopher-lua/cmd/glua"],
    ),
];

/// Where each program lies.
pub(super) type Programs = BTreeMap<String, PathBuf>;

/// The program of this name.
pub(super) fn program<'a>(programs: &'a Programs, name: &str) -> anyhow::Result<&'a Path> {
    programs
        .get(name)
        .map(PathBuf::as_path)
        .with_context(|| format!("{name} is not among the cluster's programs"))
}

/// The directory in which built programs are kept.
pub(crate) fn cache() -> anyhow::Result<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let directory = match (set("LEGION_TOOLS"), set("XDG_CACHE_HOME"), set("HOME")) {
        (Some(tools), _, _) => PathBuf::from(tools),
        (_, Some(cache), _) => Path::new(&cache).join("legion"),
        (_, _, Some(home)) => Path::new(&home).join(".cache/legion"),
        _ => bail!("no place for built programs: set LEGION_TOOLS to a directory"),
    };
    fs::create_dir_all(&directory)
        .with_context(|| format!("{} cannot be created: set LEGION_TOOLS", directory.display()))?;
    Ok(directory)
}

/// Finds or builds every program, and says what it builds.
pub(super) fn provide(repository: &Path, control_plane_only: bool) -> anyhow::Result<Programs> {
    let assets = std::env::var_os("KUBEBUILDER_ASSETS")
        .filter(|value| !value.is_empty())
        .map(PathBuf::from);
    if let Some(assets) = &assets
        && !assets.is_dir()
    {
        bail!(
            "KUBEBUILDER_ASSETS={} is not a directory: unset it, or name the one with kube-apiserver and etcd",
            assets.display()
        );
    }
    let cache = cache()?;
    let mut programs = Programs::new();
    for tool in TOOLS.iter().filter(|tool| match tool.part {
        Part::ControlPlane => true,
        Part::Node => !control_plane_only,
        Part::Suites => false,
    }) {
        let mut missing = Vec::new();
        for name in tool.programs() {
            match assets
                .as_ref()
                .map(|assets| assets.join(name))
                .filter(|path| path.is_file())
            {
                Some(path) => {
                    programs.insert(name.to_owned(), path);
                }
                None => missing.push(name),
            }
        }
        if missing.is_empty() {
            continue;
        }
        let directory = tool.provide(repository, &cache)?;
        for name in missing {
            programs.insert(name.to_owned(), directory.join(name));
        }
    }
    if !control_plane_only {
        programs.insert("pause".to_owned(), pause(repository, &cache)?);
    }
    Ok(programs)
}

/// Where a single program lies, whatever it is for. It is built now if it is not there.
pub(super) fn provide_one(repository: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let Some(tool) = TOOLS.iter().find(|tool| tool.programs().any(|program| program == name)) else {
        let known: Vec<&str> = TOOLS.iter().flat_map(Tool::programs).collect();
        bail!("there is no tool {name}: name one of {}", known.join(", "));
    };
    Ok(tool.provide(repository, &cache()?)?.join(name))
}

impl Tool {
    /// One that is built without anything special.
    const fn new(part: Part, name: &'static str, upstream: &'static str, packages: &'static [&'static str]) -> Self {
        Self {
            name,
            upstream,
            packages,
            built_as: None,
            tags: "",
            stamps: &[],
            cgo: false,
            part,
        }
    }

    /// The names of its programs.
    fn programs(&self) -> impl Iterator<Item = &'static str> {
        self.packages.iter().map(|package| match self.built_as {
            Some(_) => self.name,
            None => package.rsplit('/').next().unwrap_or(package),
        })
    }

    /// The directory with the built programs, which are built now if they are not there.
    fn provide(&self, repository: &Path, cache: &Path) -> anyhow::Result<PathBuf> {
        let source = repository.join(SOURCE);
        let version = pinned(&source, self.upstream)?;
        let directory = cache.join(format!("{}-{version}-{}", self.name, self.key(&source)?));
        if self.complete(&directory) {
            return Ok(directory);
        }
        self.check_prerequisites()?;
        let _lock = lock(&directory)?;
        // Another process may have built it while this one waited for the lock.
        if self.complete(&directory) {
            return Ok(directory);
        }
        let partial = beside(&directory, "partial");
        let _ = fs::remove_dir_all(&partial);
        fs::create_dir_all(&partial)?;
        self.build(&source, &version, &partial)?;
        if let Some(built_as) = self.built_as {
            fs::rename(partial.join(built_as), partial.join(self.name))?;
        }
        fs::rename(&partial, &directory)?;
        Ok(directory)
    }

    fn complete(&self, directory: &Path) -> bool {
        self.programs().all(|name| directory.join(name).is_file())
    }

    /// Everything that decides what the build yields, shortened.
    fn key(&self, source: &Path) -> anyhow::Result<String> {
        let mut hash = Sha256::new();
        let ours = self.packages.iter().filter_map(|package| package.strip_prefix("./"));
        let files = ["go.mod".into(), "go.sum".into()]
            .into_iter()
            .chain(ours.map(|directory| format!("{directory}/main.go")));
        for file in files {
            let path = source.join(file);
            hash.update(fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))?);
        }
        for text in self.packages.iter().chain([&self.tags]).chain(self.stamps) {
            hash.update(text);
        }
        hash.update([u8::from(self.cgo)]);
        Ok(hex(&hash.finalize()[..8]))
    }

    fn check_prerequisites(&self) -> anyhow::Result<()> {
        check_go()?;
        if self.cgo {
            check_c()?;
            let found = Command::new("pkg-config").args(["--exists", "libseccomp"]).status();
            if !found.is_ok_and(|status| status.success()) {
                bail!(
                    "{} is built with libseccomp, which pkg-config does not find: install libseccomp-dev and pkg-config",
                    self.name
                );
            }
        }
        Ok(())
    }

    fn build(&self, source: &Path, version: &str, target: &Path) -> anyhow::Result<()> {
        let what = format!("{} {version}", self.name);
        let began = Instant::now();
        let programs: Vec<&str> = self.programs().collect();
        eprintln!("building {what} ({})", programs.join(", "));
        let total = self.count_packages(source);
        let mut child = go(source, self.cgo)
            .args(["build", "-v", "-trimpath", "-tags", self.tags, "-ldflags"])
            .arg(self.linker_flags(version))
            .arg("-o")
            // With the separator at its end Go takes it for a directory.
            .arg(target.join(""))
            .args(self.packages)
            .stderr(Stdio::piped())
            .spawn()
            .context("go cannot be started")?;
        let compiled = Arc::new(AtomicUsize::new(0));
        let reader = child.stderr.take().map(|stderr| {
            let compiled = Arc::clone(&compiled);
            std::thread::spawn(move || follow(BufReader::new(stderr), &compiled))
        });
        let mut reported = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if reported.elapsed() >= PROGRESS {
                reported = Instant::now();
                let done = compiled.load(Ordering::Relaxed);
                eprintln!(
                    "building {what}: {done} packages compiled of at most {total}, {} s",
                    began.elapsed().as_secs()
                );
            }
            std::thread::sleep(Duration::from_millis(100));
        };
        let messages = reader.and_then(|reader| reader.join().ok()).unwrap_or_default();
        if !status.success() {
            bail!("{what} does not build ({status}):\n{}", messages.join("\n"));
        }
        eprintln!("built {what} in {} s", began.elapsed().as_secs());
        Ok(())
    }

    fn count_packages(&self, source: &Path) -> usize {
        let listed = go(source, self.cgo)
            .args(["list", "-deps", "-tags", self.tags])
            .args(self.packages)
            .stderr(Stdio::inherit())
            .output();
        listed.map_or(0, |output| output.stdout.split(|byte| *byte == b'\n').count())
    }

    fn linker_flags(&self, version: &str) -> String {
        let mut numbers = version.trim_start_matches('v').split('.');
        let (major, minor) = (numbers.next().unwrap_or(""), numbers.next().unwrap_or(""));
        let mut flags = "-s -w".to_owned();
        for stamp in self.stamps {
            let stamp = stamp
                .replace("{version}", version)
                .replace("{major}", major)
                .replace("{minor}", minor);
            flags.push_str(" -X ");
            flags.push_str(&stamp);
        }
        flags
    }
}

/// Counts compiled packages, which `go build -v` names one a line, and keeps the last lines that are something else.
fn follow(lines: impl BufRead, compiled: &AtomicUsize) -> Vec<String> {
    let mut messages = Vec::new();
    for line in lines.lines().map_while(Result::ok) {
        let package = !line.contains(' ') && !line.starts_with('#') && !line.is_empty();
        if package {
            compiled.fetch_add(1, Ordering::Relaxed);
        } else if !line.starts_with("go: downloading") {
            messages.push(line);
            if messages.len() > 40 {
                messages.remove(0);
            }
        }
    }
    messages
}

/// Go in a module of ours: at low priority, because it takes every core for minutes; and deaf to a workspace around it.
fn go(source: &Path, cgo: bool) -> Command {
    let mut command = Command::new("nice");
    command
        .args(["-n", "5", "go"])
        .current_dir(source)
        .env("CGO_ENABLED", if cgo { "1" } else { "0" })
        .env("GOWORK", "off")
        // What is in the checkout's git says nothing about the tool.
        .env("GOFLAGS", "-buildvcs=false -mod=readonly");
    command
}

fn check_go() -> anyhow::Result<()> {
    let remedy =
        "Kubernetes is built from source: install Go 1.26 or newer, or set KUBECONFIG to use a cluster of yours";
    match Command::new("go").arg("version").output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => bail!(
            "`go version` fails ({}): {remedy}",
            String::from_utf8_lossy(&output.stderr).trim()
        ),
        Err(error) => bail!("go cannot be started ({error}): {remedy}"),
    }
}

fn check_c() -> anyhow::Result<()> {
    if Command::new("cc").arg("--version").output().is_err() {
        bail!("no C compiler: install gcc and libc6-dev (runc and the pause container are built with it)");
    }
    Ok(())
}

/// The container that holds a pod's namespaces: Kubernetes' own source, linked statically.
fn pause(repository: &Path, cache: &Path) -> anyhow::Result<PathBuf> {
    let source = repository.join(SOURCE);
    let version = pinned(&source, "k8s.io/kubernetes")?;
    let directory = cache.join(format!("pause-{version}"));
    let program = directory.join("pause");
    if program.is_file() {
        return Ok(program);
    }
    check_go()?;
    check_c()?;
    let _lock = lock(&directory)?;
    let module = go(&source, false)
        .args(["list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes"])
        .output()
        .context("go cannot be started")?;
    let code = Path::new(String::from_utf8_lossy(&module.stdout).trim()).join("build/pause/linux/pause.c");
    fs::create_dir_all(&directory)?;
    let partial = directory.join("pause.partial");
    let status = Command::new("cc")
        .args(["-Os", "-static", "-o"])
        .arg(&partial)
        .arg(format!("-DVERSION={version}"))
        .arg(&code)
        .status()
        .context("cc cannot be started")?;
    if !status.success() {
        bail!("{} does not compile: {status}", code.display());
    }
    fs::set_permissions(&partial, fs::Permissions::from_mode(0o755))?;
    fs::rename(&partial, &program)?;
    Ok(program)
}

/// Returns `DIRECTORY.SUFFIX`. The name of the directory contains dots already, so it has no extension to replace.
fn beside(directory: &Path, suffix: &str) -> PathBuf {
    let mut name = directory.as_os_str().to_owned();
    name.push(format!(".{suffix}"));
    name.into()
}

/// Takes the lock of a directory, until the result is dropped. One process at a time builds its programs.
fn lock(directory: &Path) -> anyhow::Result<fs::File> {
    let file = fs::File::create(beside(directory, "lock"))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        eprintln!("waiting for another process that builds {}", directory.display());
        flock(&file, FlockOperation::LockExclusive)?;
    }
    Ok(file)
}

/// The version of a module that the go.mod in `source` requires.
fn pinned(source: &Path, module: &str) -> anyhow::Result<String> {
    let path = source.join("go.mod");
    let file = fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    required_version(&file, module)
        .map(str::to_owned)
        .with_context(|| format!("{} requires no {module}", path.display()))
}

/// The version of a module in a go.mod.
fn required_version<'a>(go_mod: &'a str, module: &str) -> Option<&'a str> {
    go_mod.lines().find_map(|line| {
        let mut words = line.trim().trim_start_matches("require ").split_whitespace();
        (words.next()? == module).then_some(())?;
        words.next().filter(|version| version.starts_with('v'))
    })
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_every_tool_is_pinned_and_no_two_have_a_program_of_one_name() {
        let source = xtask::repository().join(SOURCE);
        let mut names = std::collections::BTreeSet::new();
        for tool in &TOOLS {
            let version = pinned(&source, tool.upstream).unwrap();
            assert!(version.starts_with('v'), "{}: {version}", tool.name);
            for program in tool.programs() {
                assert!(names.insert(program), "{program}");
            }
        }
        assert!(
            names.contains("etcd") && names.contains("containerd-shim-runc-v2"),
            "{names:?}"
        );
    }

    #[test]
    fn the_version_is_stamped_in() {
        let flags = TOOLS[1].linker_flags("v1.37.2");
        assert!(flags.contains("version.gitVersion=v1.37.2 "), "{flags}");
        assert!(flags.contains("version.gitMinor=37"), "{flags}");
    }

    #[test]
    fn a_builds_packages_are_counted_and_its_errors_are_kept() {
        let output =
            "go: downloading example.org/x v1.0.0\nexample.org/x\nexample.org/y\n# example.org/y\ny.go:1:1: wrong\n";
        let compiled = AtomicUsize::new(0);
        let messages = follow(output.as_bytes(), &compiled);
        assert_eq!(compiled.into_inner(), 2);
        assert_eq!(messages, ["# example.org/y", "y.go:1:1: wrong"]);
    }
}
