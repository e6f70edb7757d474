//! `cargo xtask setup`: checks what the tests need besides Rust, and installs it where possible. It runs before
//! anything long is compiled.

#![allow(clippy::print_stdout, reason = "a command-line tool reports on stdout")]

use std::{
    collections::BTreeSet,
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use anyhow::Context as _;

use crate::go::{self, Go};

/// Something that tests need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// git.
    Git,
    /// A C compiler.
    Cc,
    /// Python with virtual environments.
    Python,
    /// Go.
    Go,
    /// An ssh client.
    Ssh,
    /// The right to create network namespaces and containers.
    Root,
    /// `ip`.
    Ip,
    /// `nsenter`.
    Nsenter,
    /// `sysctl`.
    Sysctl,
    /// jq.
    Jq,
    /// `mount`.
    Mount,
    /// `nft`.
    Nft,
    /// `conntrack`.
    Conntrack,
    /// Control groups.
    Cgroups,
    /// Buildah.
    Buildah,
    /// skopeo.
    Skopeo,
    /// debootstrap.
    Debootstrap,
    /// A static busybox.
    Busybox,
    /// wrk.
    Wrk,
    /// pkg-config.
    PkgConfig,
    /// The headers of libseccomp.
    Seccomp,
    /// Debian's Chromium, and curl.
    Chromium,
    /// Not there on any machine.
    #[cfg(test)]
    Nothing,
}

/// What every tier needs.
pub const BASIC: &[Need] = &[Need::Cc, Need::Git];
/// What tests with Python packages need.
pub const PYTHON: &[Need] = &[Need::Cc, Need::Git, Need::Python];
/// What the test of the model server's page needs.
pub const PYTHON_AND_BROWSER: &[Need] = &[Need::Cc, Need::Git, Need::Python, Need::Chromium];
/// What benchmarks of the model server need.
pub const BENCHMARKS: &[Need] = &[Need::Cc, Need::Python, Need::Wrk];
/// What tests against other servers need.
pub const SERVERS: &[Need] = &[Need::Cc, Need::Git, Need::Python, Need::Ssh];
/// What tests with programs in Go need.
pub const GO: &[Need] = &[Need::Cc, Need::Git, Need::Go];
/// What end-to-end tests need.
pub const PYTHON_AND_GO: &[Need] = &[Need::Cc, Need::Git, Need::Python, Need::Go];
/// What a control plane needs.
pub const CONTROL_PLANE: &[Need] = &[
    Need::Cc,
    Need::Git,
    Need::Go,
    Need::Root,
    Need::Ip,
    Need::Nsenter,
    Need::Sysctl,
];
/// What the tests on a control plane need: the same, and the commands of the guides.
pub const CONTROL_PLANE_TESTS: &[Need] = &[
    Need::Cc,
    Need::Git,
    Need::Go,
    Need::Root,
    Need::Ip,
    Need::Nsenter,
    Need::Sysctl,
    Need::Jq,
];
/// What a cluster with a node needs, and the images that it runs.
pub const NODE: &[Need] = &[
    Need::Cc,
    Need::Git,
    Need::Go,
    Need::Root,
    Need::Ip,
    Need::Nsenter,
    Need::Sysctl,
    Need::Mount,
    Need::Nft,
    Need::Conntrack,
    Need::Cgroups,
    Need::Buildah,
    Need::Skopeo,
    Need::Debootstrap,
    Need::Busybox,
    Need::PkgConfig,
    Need::Seccomp,
];

/// How a need is checked, and how it is met.
struct Requirement {
    check: Check,
    /// Debian's packages; none where no package helps.
    packages: &'static [&'static str],
    /// What it is for.
    purpose: &'static str,
}

/// How a need is checked.
enum Check {
    Program(&'static str),
    File(&'static str),
    /// One of several interpreters, with version and modules.
    Python,
    Go,
    Root,
    Cgroups,
    #[cfg(test)]
    Never,
}

/// The one list of what tests need.
fn requirement(need: Need) -> Requirement {
    let (check, packages, purpose): (Check, &[&str], _) = match need {
        Need::Git => (
            Check::Program("git"),
            &["git"],
            "sources from git, checks of the repository",
        ),
        Need::Cc => (Check::Program("cc"), &["gcc", "libc6-dev"], "linking"),
        Need::Python => (
            Check::Python,
            &["python3", "python3-venv"],
            "toolchains and their tests",
        ),
        Need::Go => (
            Check::Go,
            &[],
            "kubectl, Helm and Kubernetes, which are built from source",
        ),
        Need::Ssh => (Check::Program("ssh"), &["openssh-client"], "sources from git over ssh"),
        Need::Root => (
            Check::Root,
            &[],
            "network namespaces and containers of the test cluster",
        ),
        Need::Ip => (Check::Program("ip"), &["iproute2"], "the network of the test cluster"),
        Need::Nsenter => (
            Check::Program("nsenter"),
            &["util-linux"],
            "commands in the test cluster's network",
        ),
        Need::Sysctl => (Check::Program("sysctl"), &["procps"], "the network of the test cluster"),
        Need::Jq => (Check::Program("jq"), &["jq"], "the commands of the guide on backups"),
        Need::Mount => (
            Check::Program("mount"),
            &["mount"],
            "volumes of the test cluster's node",
        ),
        Need::Nft => (Check::Program("nft"), &["nftables"], "kube-proxy"),
        Need::Conntrack => (Check::Program("conntrack"), &["conntrack"], "kube-proxy"),
        Need::Cgroups => (Check::Cgroups, &[], "the kubelet"),
        Need::Buildah => (Check::Program("buildah"), &["buildah"], "images"),
        Need::Skopeo => (
            Check::Program("skopeo"),
            &["skopeo"],
            "images in the test cluster's registry",
        ),
        Need::Debootstrap => (Check::Program("debootstrap"), &["debootstrap"], "the base of images"),
        Need::Busybox => (
            Check::File("/bin/busybox"),
            &["busybox-static"],
            "images of the test cluster",
        ),
        Need::Wrk => (Check::Program("wrk"), &["wrk"], "the load of benchmarks"),
        Need::PkgConfig => (Check::Program("pkg-config"), &["pkg-config"], "building runc"),
        Need::Seccomp => (
            Check::File("/usr/include/seccomp.h"),
            &["libseccomp-dev"],
            "building runc",
        ),
        Need::Chromium => (
            Check::Program("chromium"),
            &["chromium", "curl"],
            "the page of the model server",
        ),
        #[cfg(test)]
        Need::Nothing => (Check::Never, &[], "a test"),
    };
    Requirement {
        check,
        packages,
        purpose,
    }
}

impl Check {
    fn is_met(&self) -> bool {
        match self {
            Self::Program(name) => finds(name),
            Self::File(path) => Path::new(path).exists(),
            Self::Python => python().is_some(),
            Self::Go => go::find(&caches()).is_some(),
            Self::Root => rustix::process::geteuid().is_root(),
            Self::Cgroups => ["/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/memory/cgroup.procs"]
                .iter()
                .any(|path| Path::new(path).exists()),
            #[cfg(test)]
            Self::Never => false,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Program(name) | Self::File(name) => name,
            Self::Python => "Python 3.11 or newer with venv (or another one in LEGION_PYTHON)",
            Self::Go => "Go as new as tests/kubernetes/tools/go.mod says",
            Self::Root => "root",
            Self::Cgroups => "cgroups below /sys/fs/cgroup",
            #[cfg(test)]
            Self::Never => "nothing",
        }
    }
}

/// Returns what is missing, each with its purpose and what to install.
#[must_use]
pub fn missing(needs: &[Need]) -> Vec<String> {
    let unmet = needs
        .iter()
        .map(|need| requirement(*need))
        .filter(|requirement| !requirement.check.is_met());
    unmet
        .map(|requirement| {
            let remedy = match requirement.check {
                Check::Root => "run it as root".to_owned(),
                Check::Cgroups => "mount them".to_owned(),
                Check::Go => "install it from https://go.dev/dl".to_owned(),
                _ => format!("install {} (Debian)", requirement.packages.join(", ")),
            };
            format!(
                "{} is missing, needed for {}: {remedy}",
                requirement.check.name(),
                requirement.purpose
            )
        })
        .collect()
}

/// What building images needs.
pub const IMAGES: &[Need] = &[Need::Root, Need::Buildah, Need::Skopeo, Need::Debootstrap];

/// Fails with the list of everything that is missing.
///
/// # Errors
/// When something is missing.
pub fn require(needs: &[Need]) -> anyhow::Result<()> {
    let missing = missing(needs);
    anyhow::ensure!(
        missing.is_empty(),
        "{}\n`cargo xtask setup` installs it on Debian and Ubuntu",
        missing.join("\n")
    );
    Ok(())
}

/// What all tests and benchmarks need.
const ALL: [&[Need]; 6] = [
    SERVERS,
    PYTHON_AND_BROWSER,
    PYTHON_AND_GO,
    CONTROL_PLANE_TESTS,
    NODE,
    BENCHMARKS,
];

/// `cargo xtask setup`: prepares the machine for all tests and prints what is missing.
///
/// # Errors
/// When a package manager cannot be started.
pub fn act(strict: bool) -> anyhow::Result<ExitCode> {
    let needs: BTreeSet<Need> = ALL.concat().into_iter().collect();
    let needs: Vec<Need> = needs.into_iter().collect();
    run(&needs)?;
    let missing = missing(&needs);
    if missing.is_empty() {
        println!("everything that the tests need is there");
    }
    for missing in &missing {
        println!("{missing}");
    }
    Ok(if missing.is_empty() || !strict {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Installs what is missing on Debian and Ubuntu, with root or sudo without a password. Go and uv are installed into a
/// cache, on every Linux. Returns the directories that belong in front of `PATH`.
///
/// # Errors
/// When a package manager cannot be started.
pub fn run(needs: &[Need]) -> anyhow::Result<Vec<PathBuf>> {
    let unmet: BTreeSet<Need> = needs
        .iter()
        .copied()
        .filter(|need| !requirement(*need).check.is_met())
        .collect();
    let packages: BTreeSet<&str> = unmet
        .iter()
        .flat_map(|need| requirement(*need).packages)
        .copied()
        .collect();
    if !packages.is_empty()
        && let Some(prefix) = installer()
    {
        for need in &unmet {
            let requirement = requirement(*need);
            println!(
                "{} is missing, needed for {}",
                requirement.check.name(),
                requirement.purpose
            );
        }
        let packages: Vec<&str> = packages.into_iter().collect();
        println!("installing {}", packages.join(", "));
        install(&prefix, &packages)?;
    }
    let mut directories = Vec::new();
    let python = python();
    if needs.contains(&Need::Go) {
        if let (None, Some(python)) = (go::find(&caches()), &python) {
            go::provide(Path::new(python), &caches());
        }
        directories.extend(cached_go());
    }
    if needs.contains(&Need::Python) && !finds("uv") {
        directories.extend(python.and_then(provide_uv));
    }
    Ok(directories)
}

/// Returns the directory of a Go toolchain in the caches, if `PATH` has no suitable one.
#[must_use]
pub fn cached_go() -> Option<PathBuf> {
    match go::find(&caches())? {
        Go::InPath => None,
        Go::In(programs) => Some(programs),
    }
}

/// Returns the words before `apt-get`, or nothing where packages cannot be installed.
fn installer() -> Option<Vec<&'static str>> {
    if !Path::new("/etc/debian_version").exists() || !finds("apt-get") {
        return None;
    }
    if rustix::process::geteuid().is_root() {
        return Some(vec!["env"]);
    }
    let is_allowed = succeeds(Command::new("sudo").args(["-n", "true"]));
    is_allowed.then(|| vec!["sudo", "-n", "env"])
}

/// Installs packages. A failure is printed: the tiers that need them are left out.
fn install(prefix: &[&str], packages: &[&str]) -> anyhow::Result<()> {
    let installation: &[&str] = &["install", "-qy", "--no-install-recommends"];
    for arguments in [vec!["update", "-q"], [installation, packages].concat()] {
        let status = Command::new(prefix[0])
            .args(&prefix[1..])
            .args(["DEBIAN_FRONTEND=noninteractive", "apt-get"])
            .args(&arguments)
            .stdout(Stdio::null())
            .status()
            .context("apt-get cannot be started")?;
        if !status.success() {
            println!("apt-get {} failed: {status}", arguments.join(" "));
        }
    }
    Ok(())
}

/// Returns the first interpreter that is new enough and makes virtual environments.
pub(crate) fn python() -> Option<OsString> {
    // The lock file of the MLflow toolchain is made for 3.11, so that comes first.
    let named = env::var_os("LEGION_PYTHON").into_iter();
    let usual = ["python3.11", "python3", "python3.12", "python3.13"].map(OsString::from);
    named.chain(usual).find(|python| {
        let condition = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))";
        succeeds(Command::new(python).args(["-c", condition]))
    })
}

/// Installs uv beside the other caches and returns the directory of its program. It makes Python environments several
/// times faster. pip does without it, so a failure is only printed.
fn provide_uv(python: OsString) -> Option<PathBuf> {
    let tools = caches().join("uv");
    let programs = tools.join("bin");
    if programs.join("uv").exists() {
        return Some(programs);
    }
    println!("installing uv into {}", tools.display());
    let _ = fs::create_dir_all(&tools);
    let is_made = succeeds(Command::new(&python).args(["-m", "venv"]).arg(&tools))
        && succeeds(Command::new(programs.join("pip")).args([
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "uv",
        ]));
    if !is_made {
        println!("uv cannot be installed: environments are made by pip, which takes longer");
    }
    is_made.then_some(programs)
}

/// The release of cargo-mutants. Another one may know other mutants.
const CARGO_MUTANTS: &str = "27.1.0";

/// Installs cargo-mutants beside the other caches, unless it is there. Returns its program.
///
/// # Errors
/// When it cannot be compiled.
pub fn cargo_mutants() -> anyhow::Result<PathBuf> {
    let directory = caches().join(format!("cargo-mutants-{CARGO_MUTANTS}"));
    let program = directory.join("bin/cargo-mutants");
    if program.exists() {
        return Ok(program);
    }
    println!("installing cargo-mutants into {}", directory.display());
    let build = directory.join("target");
    let status = Command::new("cargo")
        .args(["install", "--quiet", "--locked", "--root"])
        .arg(&directory)
        .arg(format!("cargo-mutants@{CARGO_MUTANTS}"))
        .env("CARGO_TARGET_DIR", &build)
        .env("RUSTFLAGS", "")
        // clippy would compile it.
        .env_remove("LEGION_LINTS")
        .status()
        .context("cargo cannot be started")?;
    anyhow::ensure!(status.success(), "cargo-mutants cannot be installed: {status}");
    fs::remove_dir_all(&build).with_context(|| build.display().to_string())?;
    Ok(program)
}

/// Returns the directory of what tests install and unpack.
fn caches() -> PathBuf {
    cache("legion-tests", "LEGION_TEST_CACHE")
}

/// Returns the directory of a cache: the variable's, or the user's with this name.
#[must_use]
pub fn cache(name: &str, variable: &str) -> PathBuf {
    if let Some(directory) = env::var_os(variable) {
        return directory.into();
    }
    let home = || PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cache");
    env::var_os("XDG_CACHE_HOME")
        .map_or_else(home, PathBuf::from)
        .join(name)
}

/// Returns `PATH` with these directories in front.
#[must_use]
pub fn path_with(directories: &[PathBuf]) -> Option<OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::join_paths(directories.iter().cloned().chain(env::split_paths(&path))).ok()
}

fn finds(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path)
        .chain(system)
        .any(|directory| directory.join(program).is_file())
}

fn succeeds(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_purpose_and_remedy() {
        assert_eq!(missing(&[Need::Nothing]).len(), 1);
        for need in ALL.concat() {
            let requirement = requirement(need);
            let has_remedy = !requirement.packages.is_empty() || matches!(need, Need::Go | Need::Root | Need::Cgroups);
            assert!(has_remedy && !requirement.purpose.is_empty(), "{need:?}");
        }
    }
}
