//! Reports: the termination message for the operator, and stderr for people.

use std::io::Write as _;
use std::sync::Mutex;

use legion_protocol::env;
use legion_protocol::reason::StepError;

/// Whether the message has been written. Only the first one is.
static WRITTEN: Mutex<bool> = Mutex::new(false);

/// Writes a line to stderr. An error is ignored because there is no other place to report it.
pub(crate) fn line(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Writes an error to stderr.
pub(crate) fn error(error: &StepError) {
    let field = if error.field.is_empty() {
        String::new()
    } else {
        format!(" ({})", error.field)
    };
    line(&format!(
        "{}{field}: {}\nremedy: {}",
        error.reason, error.message, error.remedy
    ));
}

/// Writes the termination message once. The signal handler must not overwrite the message of a completed step.
pub(crate) fn message(text: &str) {
    let mut written = WRITTEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if *written {
        return;
    }
    *written = true;
    let Some(path) = std::env::var_os(env::TERMINATION_LOG).filter(|p| !p.is_empty()) else {
        return line(text);
    };
    // The kubelet mounts this file itself, so it is written in place and not by rename.
    if let Err(e) = std::fs::write(&path, text) {
        line(&format!("cannot write the termination message: {e}"));
    }
}
