//! `legionctl doctor`: what this machine offers for the local mode, and what is missing.

use std::{
    collections::BTreeMap,
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde::Serialize;
use serde_json::json;

use super::{binaries, cache, interpreters::Places, python, toolchains};
use crate::{
    args::{Format, Global},
    columns,
    data_dir::DataDir,
    exit::{Code, Result},
    output,
};

/// Environment variables that name a proxy. Some programs read only the small ones.
const PROXIES: [&str; 8] = [
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "all_proxy",
    "NO_PROXY",
    "no_proxy",
];
/// Environment variables that name certificate authorities: files or directories.
const AUTHORITIES: [&str; 6] = [
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "PIP_CERT",
    "AWS_CA_BUNDLE",
];
/// The certificate authorities of the system: Debian, Fedora, SUSE, Alpine.
const SYSTEM_AUTHORITIES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// One line of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Check {
    /// What was looked for.
    name: String,
    state: CheckState,
    /// What was found, or what is wrong.
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum CheckState {
    Ok,
    /// Not needed by everyone.
    Optional,
    Missing,
}

impl CheckState {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Optional => "optional",
            Self::Missing => "missing",
        }
    }
}

impl Check {
    fn ok(name: &str, found: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            state: CheckState::Ok,
            found: found.into(),
            remedy: None,
        }
    }

    fn lacks(name: &str, state: CheckState, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            state,
            found: found.into(),
            remedy: Some(remedy.into()),
        }
    }
}

/// Runs `legionctl doctor`. The exit code is that of a missing object if something is missing.
pub(crate) fn doctor(global: &Global, format: Format, out: &mut dyn Write) -> Result<Code> {
    let variables: BTreeMap<String, String> = env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let mut checks = programs();
    checks.extend(interpreters(&Places::of_user()));
    checks.extend(directories(global));
    checks.extend(proxies(&variables));
    checks.extend(certificates(&variables, &SYSTEM_AUTHORITIES.map(Path::new)));
    let is_missing = checks.iter().any(|check| check.state == CheckState::Missing);
    if matches!(format, Format::Json | Format::Yaml) {
        let value = json!({"version": env!("CARGO_PKG_VERSION"), "ready": !is_missing, "checks": checks});
        output::structured(out, format, &value)?;
    } else {
        for line in table(&checks) {
            output::line(out, format_args!("{line}"))?;
        }
    }
    Ok(if is_missing { Code::NotFound } else { Code::Ok })
}

/// Formats the checks: one line each, and the remedy below it.
fn table(checks: &[Check]) -> Vec<String> {
    let rows: Vec<Vec<String>> = checks
        .iter()
        .map(|check| vec![check.state.as_str().to_owned(), check.name.clone(), check.found.clone()])
        .collect();
    let mut lines = Vec::new();
    for (line, check) in columns::align(&rows).into_iter().zip(checks) {
        lines.push(line);
        lines.extend(check.remedy.iter().map(|remedy| format!("          remedy: {remedy}")));
    }
    lines
}

fn programs() -> Vec<Check> {
    let mut checks = vec![
        match version("git") {
            Some(found) => Check::ok("git", found),
            None => Check::lacks(
                "git",
                CheckState::Missing,
                "not on PATH",
                "install git: sources in git and `local run --source` need it",
            ),
        },
        match version("uv") {
            Some(found) => Check::ok("uv", found),
            None => Check::lacks(
                "uv",
                CheckState::Optional,
                "not on PATH: pip installs the packages of toolchains",
                "install uv: it is several times faster (https://docs.astral.sh/uv/)",
            ),
        },
        match binaries::present() {
            Ok(directory) => Check::ok("agent", directory.display().to_string()),
            Err(error) => Check::lacks(
                "agent",
                CheckState::Missing,
                error.message,
                error.remedy.unwrap_or_default(),
            ),
        },
    ];
    match toolchains::all() {
        Ok(found) => checks.extend(found.iter().map(|toolchain| {
            Check::ok(
                "toolchain",
                format!("{} ({})", toolchain.name(), toolchain.directory.display()),
            )
        })),
        Err(error) => checks.push(Check::lacks(
            "toolchain",
            CheckState::Missing,
            error.message,
            error.remedy.unwrap_or_default(),
        )),
    }
    checks
}

/// Returns the first line that `PROGRAM --version` prints.
fn version(program: &str) -> Option<String> {
    answer(Path::new(program), &["--version"])
}

/// Returns the first line that a program prints, if it succeeds.
fn answer(program: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let first = text.lines().next().unwrap_or_default();
    (output.status.success() && !first.is_empty()).then(|| first.to_owned())
}

/// Checks every interpreter. A toolchain creates its environment with the module `venv`, which Debian packages apart.
fn interpreters(places: &Places) -> Vec<Check> {
    let mut checks: Vec<Check> = places
        .interpreters()
        .into_iter()
        .map(|found| {
            let place = format!("{} ({})", found.program.display(), found.origin.as_str());
            let Some(version) = answer(&found.program, &["-c", python::ASK_VERSION]) else {
                let remedy = "install it again, or remove it";
                return Check::lacks(
                    "python",
                    CheckState::Optional,
                    format!("{place} does not start"),
                    remedy,
                );
            };
            let found_text = format!("{version} {place}");
            match answer(&found.program, &["-c", "import venv, ensurepip; print(1)"]) {
                Some(_) => Check::ok("python", found_text),
                None => Check::lacks(
                    "python",
                    CheckState::Optional,
                    format!("{found_text} has no module venv"),
                    format!("install it (on Debian: apt-get install python3.{}-venv)", found.minor),
                ),
            }
        })
        .collect();
    if !checks.iter().any(|check| check.state == CheckState::Ok) {
        checks.push(Check::lacks(
            "python",
            CheckState::Missing,
            "no Python with the module venv: the MLflow toolchain needs Python 3.11 or newer",
            "install it (on Debian: apt-get install python3-venv; with uv: uv python install 3.11), or name one with LEGION_PYTHON",
        ));
    }
    checks
}

fn directories(global: &Global) -> Vec<Check> {
    let mut checks = Vec::new();
    match DataDir::choose(global.data_dir.as_deref()) {
        Ok(data_dir) => {
            let state = data_dir
                .holder()
                .map_or_else(|| "down".to_owned(), |holder| format!("up, pid {}", holder.pid));
            checks.push(directory("data", data_dir.root(), &state, "set --data-dir"));
        }
        Err(error) => checks.push(Check::lacks(
            "data",
            CheckState::Missing,
            error.message,
            error.remedy.unwrap_or_default(),
        )),
    }
    let cache = python::cache();
    let (count, bytes) = cache::summary(&cache);
    let state = format!("{count} environments and downloads, {}", cache::size(bytes));
    checks.push(directory("cache", &cache, &state, "set LEGION_CACHE_DIR"));
    checks
}

/// Checks that a directory, or the nearest one above it that exists, may be written.
fn directory(name: &str, path: &Path, state: &str, setting: &str) -> Check {
    let present = path.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
    let free = rustix::fs::statvfs(present).map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize));
    let free = free.map_or_else(|_| String::new(), |free| format!(", {} free", cache::size(free)));
    match rustix::fs::access(present, rustix::fs::Access::WRITE_OK) {
        Ok(()) => Check::ok(name, format!("{} ({state}{free})", path.display())),
        Err(error) => Check::lacks(
            name,
            CheckState::Missing,
            format!("{}: {error}", present.display()),
            format!("{setting} to a directory that you may write"),
        ),
    }
}

/// Returns the proxies of this process. Pods see only the variables of their training.
fn proxies(variables: &BTreeMap<String, String>) -> Vec<Check> {
    let mut set = PROXIES
        .iter()
        .filter_map(|name| Some((*name, variables.get(*name).filter(|value| !value.is_empty())?)))
        .peekable();
    if set.peek().is_none() {
        return vec![Check::ok("proxy", "none is set")];
    }
    set.map(|(name, value)| {
        Check::lacks(
            "proxy",
            CheckState::Optional,
            format!("{name}={}", without_credentials(value)),
            format!("a training does not inherit it: add {name} to spec.env if the training needs it"),
        )
    })
    .collect()
}

/// Replaces the user name and the password of a URL.
fn without_credentials(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
    let shown = rest
        .rsplit_once('@')
        .map_or_else(|| rest.to_owned(), |(_, host)| format!("***@{host}"));
    if scheme.is_empty() {
        shown
    } else {
        format!("{scheme}://{shown}")
    }
}

fn certificates(variables: &BTreeMap<String, String>, system: &[&Path]) -> Vec<Check> {
    let mut checks: Vec<Check> = AUTHORITIES
        .iter()
        .filter_map(|name| Some((*name, variables.get(*name).filter(|value| !value.is_empty())?)))
        .map(|(name, value)| {
            let path = PathBuf::from(value);
            // `PIP_CERT` and the others may also name a directory.
            match fs::metadata(&path) {
                Ok(_) => Check::lacks(
                    "certificates",
                    CheckState::Optional,
                    format!("{name}={value}"),
                    format!("a training does not inherit it: add {name} to spec.env if the training needs it"),
                ),
                Err(error) => Check::lacks(
                    "certificates",
                    CheckState::Missing,
                    format!("{name}={value}: {error}"),
                    format!("correct {name}, or remove it"),
                ),
            }
        })
        .collect();
    match system.iter().find(|path| path.is_file()) {
        Some(file) => checks.push(Check::ok("certificates", file.display().to_string())),
        None => checks.push(Check::lacks(
            "certificates",
            CheckState::Missing,
            "the system has no certificate authorities",
            "install them (on Debian: apt-get install ca-certificates), or name a file with SSL_CERT_FILE",
        )),
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn a_proxy_is_shown_without_its_password() {
        let checks = proxies(&variables(&[
            ("HTTPS_PROXY", "http://me:secret@proxy.example.com:3128"),
            ("no_proxy", "localhost"),
            ("http_proxy", ""),
        ]));
        let found: Vec<&str> = checks.iter().map(|check| check.found.as_str()).collect();
        assert_eq!(
            found,
            ["HTTPS_PROXY=http://***@proxy.example.com:3128", "no_proxy=localhost"]
        );
        assert!(
            checks[0]
                .remedy
                .as_deref()
                .unwrap()
                .contains("add HTTPS_PROXY to spec.env")
        );
        assert_eq!(proxies(&variables(&[]))[0].state, CheckState::Ok);
    }

    #[test]
    fn a_file_of_certificates_must_exist() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ca.pem");
        fs::write(&file, "").unwrap();
        let missing = directory.path().join("missing.pem");
        let of = |value: &Path, system: &Path| {
            let checks = certificates(&variables(&[("SSL_CERT_FILE", value.to_str().unwrap())]), &[system]);
            checks.iter().map(|check| check.state).collect::<Vec<_>>()
        };
        assert_eq!(of(&file, &file), [CheckState::Optional, CheckState::Ok]);
        assert_eq!(of(&missing, &missing), [CheckState::Missing, CheckState::Missing]);
    }

    #[test]
    fn without_an_interpreter_the_remedy_names_how_to_get_one() {
        let checks = interpreters(&Places::default());
        assert_eq!(checks.len(), 1);
        assert_eq!(checks[0].state, CheckState::Missing);
        assert!(checks[0].remedy.as_deref().unwrap().contains("LEGION_PYTHON"));
    }

    #[test]
    fn a_directory_that_does_not_exist_yet_is_created_later() {
        let root = tempfile::tempdir().unwrap();
        let check = directory("data", &root.path().join("a/b"), "down", "set --data-dir");
        assert_eq!(check.state, CheckState::Ok, "{check:?}");
        assert!(
            check.found.contains("a/b (down, ") && check.found.ends_with(" free)"),
            "{check:?}"
        );
    }

    #[test]
    fn remedies_stand_below_their_lines() {
        let lines = table(&[
            Check::ok("git", "2"),
            Check::lacks("agent", CheckState::Missing, "none", "install it"),
        ]);
        assert_eq!(
            lines,
            [
                "ok       git    2",
                "missing  agent  none",
                "          remedy: install it"
            ]
        );
    }
}
