//! Exit codes and errors.

use std::fmt;

/// Exit codes of `legionctl`. Stable: scripts compare them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// Done. For a training: it succeeded.
    Ok = 0,
    /// The training failed, or a toolchain does not conform.
    Failed = 1,
    /// The command line or a manifest is wrong.
    Invalid = 2,
    /// An object or a file does not exist, or the API does not answer.
    NotFound = 3,
    /// The time of `--timeout` has passed.
    Timeout = 4,
    /// Any other error, for example a full disk or a request that the API rejects.
    Other = 5,
    /// Interrupted with Ctrl-C.
    Interrupted = 130,
}

impl Code {
    /// Every code with its meaning, for the reference docs.
    pub const ALL: [(Self, &'static str); 7] = [
        (Self::Ok, "done, or the training succeeded"),
        (Self::Failed, "the training failed, or a toolchain does not conform"),
        (Self::Invalid, "the command line or a manifest is wrong"),
        (
            Self::NotFound,
            "an object or a file does not exist, or the API does not answer",
        ),
        (Self::Timeout, "the time of --timeout has passed"),
        (
            Self::Other,
            "any other error, for example a full disk or a request that the API rejects",
        ),
        (Self::Interrupted, "interrupted with Ctrl-C"),
    ];
}

/// The reason why a command failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CliError {
    pub(crate) code: Code,
    /// What went wrong, with the value at fault.
    pub(crate) message: String,
    /// How to fix it.
    pub(crate) remedy: Option<String>,
}

/// Result of a command.
pub(crate) type Result<T> = std::result::Result<T, CliError>;

impl CliError {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            remedy: None,
        }
    }

    /// Creates an error of the machine: of a file, a process or a socket.
    pub(crate) fn io(what: impl fmt::Display, error: impl fmt::Display) -> Self {
        Self::new(Code::Other, format!("{what}: {error}"))
    }

    /// Adds how to fix the error.
    #[must_use]
    pub(crate) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Puts the failed operation before the message.
    #[must_use]
    pub(crate) fn context(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(remedy) = &self.remedy {
            write!(f, "\n  remedy: {remedy}")?;
        }
        Ok(())
    }
}

impl std::error::Error for CliError {}

impl From<kube::Error> for CliError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => {
                let code = match status.code {
                    404 => Code::NotFound,
                    400 | 409 | 413 | 422 => Code::Invalid,
                    _ => Code::Other,
                };
                let error = Self::new(code, status.message.clone());
                match status.code {
                    401 => error.remedy("the API rejects the credentials of the kubeconfig: get a new one (`legionctl local status` prints the path of the local one)"),
                    403 => error.remedy("request the permission that the message names"),
                    409 if status.reason == "Conflict" => {
                        error.remedy("another field manager owns the field: change it there, or apply with `kubectl apply --server-side --force-conflicts`")
                    }
                    _ => error,
                }
            }
            kube::Error::Service(_) | kube::Error::HyperError(_) => {
                Self::new(Code::NotFound, format!("the API does not answer: {}", chain(&error))).remedy(
                    "start the local API with `legionctl local up --detach`, or name a kubeconfig with --kubeconfig",
                )
            }
            other => Self::new(Code::Other, chain(&other)),
        }
    }
}

/// Returns the text of an error and of its causes. A cause is left out if the text before it contains it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}
