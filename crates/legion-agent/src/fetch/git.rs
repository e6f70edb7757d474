//! Sources in git, fetched with the system's `git`.
//!
//! A repository is untrusted, so nothing in it runs. Git does not read the configuration of the system or the user.
//! Hooks, filters, file system monitors, credential helpers and remote helpers are disabled. Only the transport of the
//! address is allowed, and https and ssh for submodules. After the checkout, links out of the tree are refused.

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use legion_protocol::git_address::Transport;
use legion_protocol::message::FetchedSource;
use legion_protocol::reason::{StepError, StepReason};
use legion_protocol::text::bounded;
use url::Url;

use super::address::{self, authority};
use super::fetched::Fetched;
use super::{askpass, notices};
use crate::error::{Result, node_fault};
use crate::fault::{self, Fault, Side};
use crate::secrets::{Secret, hide};
use crate::tree::{self, TreeLimits};
use crate::{paths, retry};

const FIELD: &str = "spec.source.git";
const REF_FIELD: &str = "spec.source.git.ref";
const SUBMODULES_FIELD: &str = "spec.source.git.submodules";
/// The field that errors about missing credentials name.
pub(super) const SECRET_FIELD: &str = "spec.source.git.connection";

/// The repository of a task.
#[derive(Clone, Copy, Debug)]
pub(super) struct Repository<'a> {
    pub(super) uri: &'a str,
    pub(super) reference: &'a str,
    pub(super) commit: &'a str,
    pub(super) submodules: bool,
    pub(super) known_hosts: &'a str,
}

/// The configuration of the git commands for one repository.
struct Git {
    directory: PathBuf,
    uri: String,
    transports: Vec<Transport>,
    /// Whether the connection has a Secret.
    has_secret: bool,
    /// File of certificate authorities to trust instead of the system's.
    authorities: Option<PathBuf>,
    environment: Vec<(&'static str, std::ffi::OsString)>,
    /// Directory of the key, the known hosts and the configuration. Dropping it deletes them.
    _private: PrivateDir,
}

/// A private directory below TMPDIR.
struct PrivateDir(PathBuf);

impl Drop for PrivateDir {
    fn drop(&mut self) {
        // An error is ignored, because the volume is deleted with the pod.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Checks a commit out into an empty directory.
pub(super) fn fetch(
    repository: Repository<'_>,
    secret: Option<&Secret>,
    to: &Path,
    limits: TreeLimits,
) -> Result<Fetched> {
    let git = Git::prepare(&repository, secret, to)?;
    git.run(&["init", "--quiet", "--template=", "."])?;
    git.run(&["remote", "add", "origin", "--", &git.uri])?;
    let commit = if repository.commit.is_empty() {
        git.resolve(repository.reference)?
    } else {
        git.fetch_commit(repository.commit)?
    };
    git.run(&["checkout", "--quiet", "--force", "--detach", &commit])?;
    if repository.submodules {
        retry::transient(|| {
            git.run(&[
                "submodule",
                "--quiet",
                "update",
                "--init",
                "--recursive",
                "--force",
                "--checkout",
            ])
            .map(drop)
        })
        .map_err(|e| match e.reason {
            StepReason::GitRefNotFound => e.field(SUBMODULES_FIELD).remedy(
                "push the commits of the submodules to their own repositories, or set spec.source.git.submodules to \
                 false",
            ),
            _ => e,
        })?;
    }
    let missing = if repository.submodules {
        Vec::new()
    } else {
        git.submodules()?
    };
    let summary = tree::check(to, limits).map_err(|e| e.field(FIELD))?;
    Ok(Fetched {
        source: FetchedSource {
            commit,
            digest: String::new(),
            files: summary.files,
            size_bytes: summary.bytes,
        },
        notice: (!missing.is_empty()).then(|| notices::submodules(&missing)),
    })
}

impl Git {
    fn prepare(repository: &Repository<'_>, secret: Option<&Secret>, to: &Path) -> Result<Self> {
        let transport = address::check(repository.uri)?;
        let private = PrivateDir(std::env::temp_dir().join(format!("legion-git-{}", std::process::id())));
        let make = |e: std::io::Error| node_fault("cannot create a private directory", &e);
        std::fs::create_dir_all(&private.0).map_err(make)?;
        std::fs::set_permissions(&private.0, std::os::unix::fs::PermissionsExt::from_mode(0o700)).map_err(make)?;
        let mut environment: Vec<(&'static str, std::ffi::OsString)> = Vec::new();
        // Git reads its configuration from HOME, and curl reads .netrc from it. Both find an empty directory.
        environment.push(("HOME", private.0.clone().into()));
        // The user's configuration for git. A repository on a mounted volume may belong to another user.
        let config = private.0.join("config");
        paths::write(&config, b"[safe]\n\tdirectory = *\n")?;
        environment.push(("GIT_CONFIG_GLOBAL", config.into()));
        if transport == Transport::Ssh {
            environment.push(("GIT_SSH_COMMAND", ssh(repository, secret, &private.0)?.into()));
        } else if let (Some(secret), Transport::Https) = (secret, transport) {
            secret.require("password")?;
            let host = Url::parse(repository.uri)
                .ok()
                .and_then(|u| authority(&u))
                .unwrap_or_default();
            environment.push(("GIT_ASKPASS", askpass::program()));
            environment.push((askpass::DIRECTORY, secret.directory().into()));
            environment.push((askpass::HOST, host.into()));
        }
        let mut transports = vec![Transport::Https, Transport::Ssh];
        if !transports.contains(&transport) {
            transports.push(transport);
        }
        Ok(Self {
            directory: to.to_owned(),
            uri: repository.uri.to_owned(),
            transports,
            has_secret: secret.is_some(),
            // OpenSSL, Go and the agent's own TLS read this variable. Git needs a setting of its own.
            authorities: paths::optional("SSL_CERT_FILE"),
            environment,
            _private: private,
        })
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("git");
        for setting in [
            "core.hooksPath=/dev/null",
            "core.attributesFile=/dev/null",
            "core.fsmonitor=false",
            "core.untrackedCache=false",
            "credential.helper=",
            "protocol.allow=never",
            "filter.lfs.smudge=",
            "filter.lfs.process=",
            "filter.lfs.required=false",
            "submodule.recurse=false",
            "gc.auto=0",
            "maintenance.auto=false",
            "advice.detachedHead=false",
            "init.defaultBranch=main",
            // Only the first answer may redirect, and only to https, because every other transport is disabled.
            "http.followRedirects=initial",
            "http.lowSpeedLimit=1000",
            "http.lowSpeedTime=60",
        ] {
            command.args(["-c", setting]);
        }
        if let Some(file) = &self.authorities {
            command.arg("-c").arg(format!("http.sslCAInfo={}", file.display()));
        }
        for transport in &self.transports {
            command.args(["-c", &format!("protocol.{}.allow=always", transport.as_str())]);
        }
        command.args(args).current_dir(&self.directory).stdin(Stdio::null());
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("GIT_")) {
            command.env_remove(name);
        }
        command
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ASKPASS", "/bin/false")
            .env("SSH_ASKPASS", "/bin/false")
            .env("GIT_SSH_VARIANT", "ssh")
            .env("GIT_LFS_SKIP_SMUDGE", "1")
            .env(
                "GIT_CEILING_DIRECTORIES",
                self.directory.parent().unwrap_or(Path::new("/")),
            )
            .env_remove("LEGION_TASK")
            .env_remove("XDG_CONFIG_HOME")
            .env("LC_ALL", "C")
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs git and returns its output.
    fn run(&self, args: &[&str]) -> Result<String> {
        let output = self.command(args).output().map_err(|e| {
            let reason = match e.kind() {
                std::io::ErrorKind::NotFound => StepReason::ProgramMissing,
                _ => StepReason::NodeFault,
            };
            StepError::new(reason, format!("cannot run git: {e}")).field(FIELD)
        })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        if let Some(signal) = output.status.signal() {
            let message = format!("{}: git was ended by signal {signal}", self.uri);
            return Err(Fault::Node.error(Side::Source, message).field(FIELD));
        }
        Err(self.failed(&String::from_utf8_lossy(&output.stderr)))
    }

    /// Resolves a branch, a tag, or a full or short commit, and fetches it. Returns the full commit.
    fn resolve(&self, reference: &str) -> Result<String> {
        let listed = retry::transient(|| self.run(&["ls-remote", "--quiet", "--", &self.uri]))?;
        let refs: Vec<(&str, &str)> = listed.lines().filter_map(|line| line.split_once('\t')).collect();
        let candidates = if reference.is_empty() {
            vec!["HEAD".to_owned()]
        } else {
            ["", "refs/heads/", "refs/tags/"]
                .map(|prefix| format!("{prefix}{reference}"))
                .to_vec()
        };
        for candidate in candidates {
            if let Some((_, name)) = refs.iter().find(|(_, name)| *name == candidate) {
                retry::transient(|| {
                    self.run(&[
                        "fetch",
                        "--quiet",
                        "--no-tags",
                        "--no-recurse-submodules",
                        "--depth=1",
                        "origin",
                        name,
                    ])
                })?;
                return self.commit("FETCH_HEAD");
            }
        }
        let is_hex = reference.len() >= 4 && reference.bytes().all(|b| b.is_ascii_hexdigit());
        if is_hex {
            match self.fetch_commit(reference) {
                Err(error) if error.reason == StepReason::GitRefNotFound => {}
                // A network error does not mean that the commit does not exist.
                done => return done,
            }
        }
        let names: Vec<String> = refs
            .iter()
            .filter_map(|(_, name)| {
                name.strip_prefix("refs/heads/")
                    .or_else(|| name.strip_prefix("refs/tags/"))
            })
            .filter(|name| !name.ends_with("^{}"))
            .map(str::to_owned)
            .collect();
        let message = match (reference.is_empty(), names.is_empty()) {
            (true, true) => "the repository is empty".to_owned(),
            (true, false) => format!("HEAD of {} names a branch that does not exist", self.uri),
            (false, _) => format!("{} has no branch, tag or commit {reference:?}", self.uri),
        };
        let error = StepError::new(StepReason::GitRefNotFound, message).field(REF_FIELD);
        if names.is_empty() {
            return Err(error.remedy("push a commit to the repository, or correct its address"));
        }
        let known = notices::some_of(&names);
        Err(error.remedy(format!("set {REF_FIELD} to one that exists: {known}")))
    }

    /// Returns the paths of the submodules in the index.
    fn submodules(&self) -> Result<Vec<String>> {
        let listed = self.run(&["ls-files", "--stage"])?;
        let is_submodule = |line: &&str| line.starts_with("160000 ");
        Ok(listed
            .lines()
            .filter(is_submodule)
            .filter_map(|line| Some(line.split_once('\t')?.1.to_owned()))
            .collect())
    }

    /// Fetches a full or short commit. Fetches it alone if the server allows that, otherwise with the whole history.
    fn fetch_commit(&self, commit: &str) -> Result<String> {
        let full = matches!(commit.len(), 40 | 64) && commit.bytes().all(|b| b.is_ascii_hexdigit());
        if full
            && self
                .run(&[
                    "fetch",
                    "--quiet",
                    "--no-tags",
                    "--no-recurse-submodules",
                    "--depth=1",
                    "origin",
                    commit,
                ])
                .is_ok()
        {
            return self.commit(commit);
        }
        let everything = [
            "fetch",
            "--quiet",
            "--no-recurse-submodules",
            "origin",
            "+refs/heads/*:refs/remotes/origin/*",
            "+refs/tags/*:refs/tags/*",
        ];
        retry::transient(|| self.run(&everything))?;
        self.commit(commit).map_err(|_| {
            StepError::new(
                StepReason::GitRefNotFound,
                format!("{} does not contain the commit {commit:?}", self.uri),
            )
            .field(REF_FIELD)
        })
    }

    fn commit(&self, name: &str) -> Result<String> {
        let name = format!("{name}^{{commit}}");
        Ok(self
            .run(&["rev-parse", "--quiet", "--verify", "--end-of-options", &name])?
            .trim()
            .to_owned())
    }

    /// Returns the error for the stderr output of git.
    fn failed(&self, stderr: &str) -> StepError {
        let reason = fault::of_git(stderr).reason(Side::Source);
        // Git adds these lines to every failure of ssh, and ssh adds them for every unknown host.
        let is_noise = |line: &&str| {
            [
                "",
                "and the repository exists.",
                "fatal: Could not read from remote repository.",
            ]
            .contains(line)
                || line.starts_with("Please make sure you have the correct access rights")
                || line.starts_with("@@@")
        };
        let last: Vec<_> = stderr.lines().map(str::trim).filter(|l| !is_noise(l)).collect();
        let shown = bounded(&hide(&last[last.len().saturating_sub(3)..].join("; ")), 400);
        let error = StepError::new(reason, format!("{}: git reports: {shown}", self.uri)).field(FIELD);
        if reason == StepReason::SourceAccessDenied && !self.has_secret {
            return error.field(SECRET_FIELD).remedy(
                "correct the address. If the repository is private, create a Secret with the keys username and \
                 password, create a Connection of type git with that secretRef, and set \
                 spec.source.git.connection to it",
            );
        }
        error
    }
}

/// Returns the keys of a Secret that the transport of a repository requires.
pub(super) fn keys(uri: &str) -> &'static [&'static str] {
    match address::check(uri) {
        Ok(Transport::Https) => &["password"],
        Ok(Transport::Ssh) => &["ssh-privatekey"],
        _ => &[],
    }
}

/// Returns the ssh command for git. Writes the key and the known hosts to private files.
fn ssh(repository: &Repository<'_>, secret: Option<&Secret>, private: &Path) -> Result<String> {
    let known = match secret {
        Some(secret) => secret.get("known_hosts")?,
        None => None,
    };
    let known = known.unwrap_or_default() + "\n" + repository.known_hosts;
    if known.trim().is_empty() {
        let message = format!("no host key is configured for {}", repository.uri);
        return Err(StepError::new(StepReason::HostKeyUnverified, message)
            .field(FIELD)
            .remedy(
                "run `ssh-keyscan HOST`, check its output, and put it into the key known_hosts of the \
             connection's Secret or into spec.knownHosts of the connection",
            ));
    }
    let Some(secret) = secret else {
        let message = format!("{} needs an SSH key, but the connection has no Secret", repository.uri);
        return Err(StepError::new(StepReason::SourceAccessDenied, message)
            .field(FIELD)
            .remedy("set secretRef of the connection to a Secret of type kubernetes.io/ssh-auth"));
    };
    let (hosts, key) = (private.join("known_hosts"), private.join("key"));
    paths::write(&hosts, (known + "\n").as_bytes())?;
    // ssh refuses a key that others can read, for example in a Secret with an fsGroup, or that has no final line feed.
    private_file(&key, &(secret.require("ssh-privatekey")? + "\n"))?;
    let quoted = |path: &Path| format!("'{}'", path.to_string_lossy().replace('\'', r"'\''"));
    Ok(format!(
        "ssh -F /dev/null -i {} -o IdentitiesOnly=yes -o BatchMode=yes -o StrictHostKeyChecking=yes \
         -o UserKnownHostsFile={} -o GlobalKnownHostsFile=/dev/null -o ConnectTimeout=20 -o ServerAliveInterval=20",
        quoted(&key),
        quoted(&hosts)
    ))
}

fn private_file(path: &Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|e| node_fault("cannot write a private file", &e))
}
