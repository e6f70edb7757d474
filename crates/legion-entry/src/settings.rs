//! Settings from the environment and the command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use legion_protocol::{env, log};

/// Default time between TERM and KILL.
const DEFAULT_GRACE: Duration = Duration::from_secs(60);

/// The command, its directories and its limits.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Directory of the control files.
    pub(crate) run: PathBuf,
    /// Working directory of the command.
    pub(crate) directory: PathBuf,
    pub(crate) program: OsString,
    pub(crate) args: Vec<OsString>,
    /// Longest time it may run.
    pub(crate) timeout: Option<Duration>,
    /// Time between TERM and KILL.
    pub(crate) grace: Duration,
    /// Bytes of output to keep.
    pub(crate) log_limit: u64,
}

impl Settings {
    /// Reads the environment and `-- COMMAND [ARGUMENT...]`.
    pub(crate) fn from_env(args: Vec<OsString>) -> Result<Self, String> {
        let mut args = args.into_iter();
        let program = match (args.next(), args.next()) {
            (Some(dashes), Some(program)) if dashes == "--" => program,
            _ => return Err("usage: legion-entry -- COMMAND [ARGUMENT...]".into()),
        };
        let directory = |name: &str| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
                .ok_or_else(|| format!("the environment variable {name} is not set"))
        };
        Ok(Self {
            run: directory(env::RUN)?,
            directory: directory(env::SOURCE)?,
            program,
            args: args.collect(),
            timeout: number(env::TIMEOUT_SECONDS)?
                .filter(|s| *s > 0)
                .map(Duration::from_secs),
            grace: number(env::GRACE_SECONDS)?.map_or(DEFAULT_GRACE, Duration::from_secs),
            log_limit: number(env::LOG_LIMIT_BYTES)?
                .unwrap_or(log::DEFAULT_LIMIT)
                .max(log::MIN_LIMIT),
        })
    }
}

/// Returns a whole number from the environment, or `None` if the variable is unset or empty.
fn number(name: &str) -> Result<Option<u64>, String> {
    let Some(text) = std::env::var_os(name).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let number = text.to_str().and_then(|text| text.parse().ok());
    number
        .map(Some)
        .ok_or_else(|| format!("the environment variable {name} is {text:?}, which is not a whole number"))
}
