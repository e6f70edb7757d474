//! The programs of the cluster: built from pinned Go modules (`tests/kubernetes/tools/*`), each module once per set of versions.
//!
//! They lie in a cache outside the checkout, `$LEGION_TOOLS` or the user's cache directory, under a name made of the version
//! and of everything that decides what the build yields. `$KUBEBUILDER_ASSETS` comes first where it has the program.

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

/// A module of ours that has this is a program around a library.
const OWN_PROGRAM: &str = "main.go";

/// A Go module of ours that pins a tool.
struct Module {
    /// Directory below `tests/kubernetes/tools`.
    name: &'static str,
    /// The module whose version is the tool's.
    upstream: &'static str,
    programs: &'static [&'static str],
    /// What Go calls the program of a package at the root of its module, where the tool is called otherwise.
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

const MODULES: [Module; 14] = [
    Module {
        name: "etcd",
        upstream: "go.etcd.io/etcd/server/v3",
        programs: &["etcd"],
        built_as: Some("server"),
        tags: "",
        stamps: &[],
        cgo: false,
        part: Part::ControlPlane,
    },
    Module {
        name: "kubernetes",
        upstream: "k8s.io/kubernetes",
        programs: &[
            "kube-apiserver",
            "kube-controller-manager",
            "kube-scheduler",
            "kubelet",
            "kube-proxy",
            "kubectl",
        ],
        built_as: None,
        tags: "",
        stamps: VERSION_OF_KUBERNETES,
        cgo: false,
        part: Part::ControlPlane,
    },
    Module {
        name: "containerd",
        upstream: "github.com/containerd/containerd/v2",
        programs: &["containerd", "containerd-shim-runc-v2", "ctr"],
        built_as: None,
        // Snapshotters that are not used, and that need C libraries or tools of their own.
        tags: "no_btrfs,no_devmapper,no_zfs",
        stamps: &["github.com/containerd/containerd/v2/version.Version={version}"],
        cgo: false,
        part: Part::Node,
    },
    Module {
        name: "runc",
        upstream: "github.com/opencontainers/runc",
        programs: &["runc"],
        built_as: None,
        tags: "seccomp",
        stamps: &[],
        cgo: true,
        part: Part::Node,
    },
    Module {
        name: "cni",
        upstream: "github.com/containernetworking/plugins",
        programs: &["bridge", "host-local", "loopback", "portmap"],
        built_as: None,
        tags: "",
        stamps: &[],
        cgo: false,
        part: Part::Node,
    },
    Module {
        name: "coredns",
        upstream: "github.com/coredns/coredns",
        programs: &["coredns"],
        built_as: None,
        tags: "",
        stamps: &[],
        cgo: false,
        part: Part::Node,
    },
    Module {
        name: "registry",
        upstream: "github.com/distribution/distribution/v3",
        programs: &["registry"],
        built_as: None,
        tags: "",
        stamps: &[],
        cgo: false,
        part: Part::Node,
    },
    Module {
        name: "local-path",
        upstream: "github.com/rancher/local-path-provisioner",
        programs: &["local-path-provisioner"],
        built_as: None,
        tags: "",
        stamps: &[],
        cgo: false,
        part: Part::Node,
    },
    Module {
        name: "s3",
        upstream: "github.com/versity/versitygw",
        programs: &["versitygw"],
        built_as: None,
        tags: "",
        stamps: &[],
        cgo: false,
        part: Part::Node,
    },
    Module {
        name: "helm",
        upstream: "helm.sh/helm/v4",
        programs: &["helm"],
        built_as: None,
        tags: "",
        stamps: &["helm.sh/helm/v4/internal/version.version={version}"],
        cgo: false,
        part: Part::Suites,
    },
    Module {
        name: "prometheus",
        upstream: "github.com/prometheus/prometheus",
        programs: &["prometheus", "promtool"],
        built_as: None,
        // Targets are written in the configuration: no cloud's client library is needed.
        tags: "remove_all_sd",
        stamps: &["github.com/prometheus/common/version.Version={version}"],
        cgo: false,
        part: Part::Suites,
    },
    Module {
        name: "kubeconform",
        upstream: "github.com/yannh/kubeconform",
        programs: &["kubeconform"],
        built_as: None,
        tags: "",
        stamps: &[],
        cgo: false,
        part: Part::Suites,
    },
    Module {
        name: "kstatus",
        upstream: "sigs.k8s.io/cli-utils",
        programs: &["kstatus"],
        built_as: None,
        tags: "",
        stamps: &[],
        cgo: false,
        part: Part::Suites,
    },
    Module {
        name: "glua",
        upstream: "github.com/yuin/gopher-lua",
        programs: &["glua"],
        built_as: None,
        tags: "",
        stamps: &[],
        cgo: false,
        part: Part::Suites,
    },
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
    for module in MODULES.iter().filter(|module| match module.part {
        Part::ControlPlane => true,
        Part::Node => !control_plane_only,
        Part::Suites => false,
    }) {
        let mut missing = Vec::new();
        for name in module.programs {
            match assets
                .as_ref()
                .map(|assets| assets.join(name))
                .filter(|path| path.is_file())
            {
                Some(path) => {
                    programs.insert((*name).to_owned(), path);
                }
                None => missing.push(*name),
            }
        }
        if missing.is_empty() {
            continue;
        }
        let directory = module.provide(repository, &cache)?;
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
    let all = || MODULES.iter().flat_map(|module| module.programs);
    let Some(module) = MODULES.iter().find(|module| module.programs.contains(&name)) else {
        let known: Vec<&str> = all().copied().collect();
        bail!("there is no tool {name}: name one of {}", known.join(", "));
    };
    Ok(module.provide(repository, &cache()?)?.join(name))
}

impl Module {
    /// The directory with the built programs, which are built now if they are not there.
    fn provide(&self, repository: &Path, cache: &Path) -> anyhow::Result<PathBuf> {
        let source = source(repository, self.name);
        let version = self.version(&source)?;
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
        let partial = directory.with_extension("partial");
        let _ = fs::remove_dir_all(&partial);
        fs::create_dir_all(&partial)?;
        self.build(&source, &version, &partial)?;
        if let (Some(built_as), [program]) = (self.built_as, self.programs) {
            fs::rename(partial.join(built_as), partial.join(program))?;
        }
        fs::rename(&partial, &directory)?;
        Ok(directory)
    }

    fn complete(&self, directory: &Path) -> bool {
        self.programs.iter().all(|name| directory.join(name).is_file())
    }

    /// Everything that decides what the build yields, shortened.
    fn key(&self, source: &Path) -> anyhow::Result<String> {
        let mut hash = Sha256::new();
        for file in ["go.mod", "go.sum"] {
            let path = source.join(file);
            hash.update(fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))?);
        }
        if let Ok(program) = fs::read(source.join(OWN_PROGRAM)) {
            hash.update(program);
        }
        hash.update(self.tags);
        for stamp in self.stamps {
            hash.update(stamp);
        }
        hash.update([u8::from(self.cgo)]);
        Ok(hex(&hash.finalize()[..8]))
    }

    fn version(&self, source: &Path) -> anyhow::Result<String> {
        let file = fs::read_to_string(source.join("go.mod"))?;
        required_version(&file, self.upstream)
            .map(str::to_owned)
            .with_context(|| format!("{}/go.mod requires no {}", source.display(), self.upstream))
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
        eprintln!("building {what} ({})", self.programs.join(", "));
        let total = count_packages(source, self.tags, self.cgo);
        let mut child = go(source, self.cgo)
            .args(["build", "-v", "-trimpath", "-tags", self.tags, "-ldflags"])
            .arg(self.linker_flags(version))
            .arg("-o")
            // With the separator at its end Go takes it for a directory.
            .arg(target.join(""))
            .arg(what_to_build(source))
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

/// The package to build: the module's own program where it has one, else what its go.mod calls tools.
fn what_to_build(source: &Path) -> &'static str {
    if source.join(OWN_PROGRAM).is_file() {
        "."
    } else {
        "tool"
    }
}

fn count_packages(source: &Path, tags: &str, cgo: bool) -> usize {
    let listed = go(source, cgo)
        .args(["list", "-deps", "-tags", tags, what_to_build(source)])
        .stderr(Stdio::inherit())
        .output();
    listed.map_or(0, |output| output.stdout.split(|byte| *byte == b'\n').count())
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
    let source = source(repository, "kubernetes");
    let version = required_version(&fs::read_to_string(source.join("go.mod"))?, "k8s.io/kubernetes")
        .map(str::to_owned)
        .context("tests/kubernetes/tools/kubernetes/go.mod requires no k8s.io/kubernetes")?;
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

fn source(repository: &Path, name: &str) -> PathBuf {
    repository.join("tests/kubernetes/tools").join(name)
}

/// Held until it is dropped: one process at a time builds what lies in this directory.
fn lock(directory: &Path) -> anyhow::Result<fs::File> {
    let file = fs::File::create(directory.with_extension("lock"))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        eprintln!("waiting for another process that builds {}", directory.display());
        flock(&file, FlockOperation::LockExclusive)?;
    }
    Ok(file)
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

    /// A version that is moved in one place only would give two kubectls, or a node of another version than its server.
    #[test]
    fn every_module_pins_its_tool_and_kubernetes_is_one_version() {
        let repository = crate::repository();
        for module in &MODULES {
            let version = module.version(&source(&repository, module.name)).unwrap();
            assert!(version.starts_with('v'), "{}: {version}", module.name);
        }
        let read = |path: &str| fs::read_to_string(repository.join(path)).unwrap();
        let server = read("tests/kubernetes/tools/kubernetes/go.mod");
        let client = read("tests/kubectl/go.mod");
        let server = required_version(&server, "k8s.io/kubernetes").unwrap();
        let client = required_version(&client, "k8s.io/kubectl").unwrap();
        assert_eq!(server.strip_prefix("v1"), client.strip_prefix("v0"));
    }

    #[test]
    fn the_version_is_stamped_in() {
        let flags = MODULES[1].linker_flags("v1.37.2");
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
