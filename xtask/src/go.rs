//! The Go toolchain of the tests: the machine's, or the one that the Go project publishes.

#![allow(clippy::print_stdout, reason = "a command-line tool reports on stdout")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The module whose `go` line says what is needed.
const MODULE: &str = "tests/kubernetes/tools";

/// Unpacks a published toolchain into a directory. Such an archive carries no permissions.
const DOWNLOAD: &str = include_str!("go.py");

/// Digests of the archives, for the version in [`MODULE`].
const SHA256: [(&str, &str, &str); 2] = [
    (
        "x86_64",
        "linux-amd64",
        "478883fe531df5785b9186e7a39ecf2f67da37aaf81e3c9718e9c04e643ff5d1",
    ),
    (
        "aarch64",
        "linux-arm64",
        "419d4f55c682419a5f91839e3a9cff6d866ed00b4bad1800fecfbc10f37de522",
    ),
];

/// Where a suitable `go` is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Go {
    /// In `PATH`.
    InPath,
    /// In this directory.
    In(PathBuf),
}

/// Finds a toolchain that is new enough, in `PATH` or below the directory of the caches.
pub(crate) fn find(caches: &Path) -> Option<Go> {
    let repository = crate::repository();
    let needed = needed(&repository)?;
    let output = Command::new("go")
        .args(["env", "GOVERSION"])
        // Go 1.21 and later fetch the toolchain that the module needs, and report that one.
        .current_dir(repository.join(MODULE))
        .output();
    let is_new_enough = output.is_ok_and(|output| {
        let reported = String::from_utf8_lossy(&output.stdout);
        output.status.success() && version(reported.trim().trim_start_matches("go")) >= version(&needed)
    });
    if is_new_enough {
        return Some(Go::InPath);
    }
    let programs = caches.join(format!("go-{needed}")).join("bin");
    programs.join("go").exists().then_some(Go::In(programs))
}

/// Installs the toolchain that the module needs below the directory of the caches. A failure is printed: the tiers that
/// need Go are left out.
pub(crate) fn provide(python: &Path, caches: &Path) {
    let Some(needed) = needed(&crate::repository()) else {
        return;
    };
    let Some((_, platform, sha256)) = SHA256.iter().find(|(machine, _, _)| *machine == env::consts::ARCH) else {
        return;
    };
    let directory = caches.join(format!("go-{needed}"));
    println!("installing Go {needed} into {}", directory.display());
    let proxy = env::var("GOPROXY").unwrap_or_default();
    let proxy = proxy.split([',', '|']).find(|part| part.starts_with("http"));
    let url = format!(
        "{}/golang.org/toolchain/@v/v0.0.1-go{needed}.{platform}.zip",
        proxy.unwrap_or("https://proxy.golang.org").trim_end_matches('/')
    );
    let partial = directory.with_file_name(format!("go-{needed}.partial"));
    let _ = fs::remove_dir_all(&partial);
    let status = Command::new(python)
        .args(["-c", DOWNLOAD, &url, sha256])
        .arg(&partial)
        .status();
    let is_there = status.is_ok_and(|status| status.success())
        && Command::new(partial.join("bin/go"))
            .arg("version")
            .output()
            .is_ok_and(|output| output.status.success())
        && fs::rename(&partial, &directory).is_ok();
    if !is_there {
        println!("Go cannot be installed from {url}");
    }
}

/// Returns the `go` line of the module.
fn needed(repository: &Path) -> Option<String> {
    let module = fs::read_to_string(repository.join(MODULE).join("go.mod")).ok()?;
    let line = module.lines().find_map(|line| line.strip_prefix("go "))?;
    Some(line.trim().to_owned())
}

/// Returns the numbers of a version. What is no number counts as 0, so `1.26rc1` is below every `1.26.x`.
fn version(text: &str) -> Vec<u32> {
    text.split('.').map(|part| part.parse().unwrap_or_default()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        assert!(version("1.26.10") > version("1.26.7"));
        assert!(version("1.19.8") < version("1.26.7"));
        assert!(version("1.26rc1") < version("1.26.0"));
    }

    #[test]
    fn the_module_names_the_version_of_the_digests() {
        assert_eq!(
            needed(&crate::repository()).as_deref(),
            Some("1.26.7"),
            "another version needs other digests in SHA256"
        );
    }
}
