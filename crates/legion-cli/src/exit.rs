//! Exit codes and errors: what scripts compare and what people read.

use std::fmt;

/// Exit codes of `legionctl`. Stable: scripts compare them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// Done; for a training: it succeeded.
    Ok = 0,
    /// The training failed, or a toolchain does not conform.
    Failed = 1,
    /// The command line or a manifest is wrong.
    Invalid = 2,
    /// Something named does not exist, or the API does not answer.
    NotFound = 3,
    /// The time given with `--timeout` is over.
    Timeout = 4,
    /// Anything else: a full disk, a missing program, an API that refuses.
    Other = 5,
    /// Interrupted with Ctrl-C.
    Interrupted = 130,
}

impl Code {
    /// Every code with what it stands for, for the reference docs.
    pub const ALL: [(Self, &'static str); 7] = [
        (Self::Ok, "done; for a training: it succeeded"),
        (Self::Failed, "the training failed, or a toolchain does not conform"),
        (Self::Invalid, "the command line or a manifest is wrong"),
        (
            Self::NotFound,
            "something named does not exist, or the API does not answer",
        ),
        (Self::Timeout, "the time given with --timeout is over"),
        (
            Self::Other,
            "anything else: a full disk, a missing program, an API that refuses",
        ),
        (Self::Interrupted, "interrupted with Ctrl-C"),
    ];
}

/// Why a command could not do its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CliError {
    /// The process's exit code.
    pub(crate) code: Code,
    /// What went wrong; names the value.
    pub(crate) message: String,
    /// What to do about it.
    pub(crate) remedy: Option<String>,
}

/// What commands give back.
pub(crate) type Result<T> = std::result::Result<T, CliError>;

impl CliError {
    /// An error with this exit code.
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            remedy: None,
        }
    }

    /// An error of the machine: a file, a process, a socket.
    pub(crate) fn io(what: impl fmt::Display, error: impl fmt::Display) -> Self {
        Self::new(Code::Other, format!("{what}: {error}"))
    }

    /// The same error with what to do about it.
    #[must_use]
    pub(crate) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// The same error, with what was being done before its message.
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
                    401 => error.remedy("the kubeconfig's credentials are refused: get a new one (`legionctl local status` names the local one)"),
                    403 => error.remedy("ask for the permission that the message names"),
                    409 if status.reason == "Conflict" => {
                        error.remedy("another manager owns the field: change it there, or apply with `kubectl apply --server-side --force-conflicts`")
                    }
                    _ => error,
                }
            }
            kube::Error::Service(_) | kube::Error::HyperError(_) => {
                Self::new(Code::NotFound, format!("the API does not answer: {}", chain(&error))).remedy(
                    "start the local one with `legionctl local up --detach`, or name a kubeconfig with --kubeconfig",
                )
            }
            other => Self::new(Code::Other, chain(&other)),
        }
    }
}

/// An error with all of its causes, where a cause says more than the error above it.
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
