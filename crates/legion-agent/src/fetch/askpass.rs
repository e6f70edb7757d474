//! Answers git's question for a user name or a password, so that neither is an argument or part of an address.

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

/// Directory of the Secret. If it is set, git started this process.
pub(super) const DIRECTORY: &str = "LEGION_ASKPASS_SECRET";
/// The authority that may receive the password.
pub(super) const HOST: &str = "LEGION_ASKPASS_HOST";

/// Returns whether git started this process.
pub(crate) fn is_asked() -> bool {
    std::env::var_os(DIRECTORY).is_some()
}

/// Writes the answer to the question to stdout.
pub(crate) fn answer(question: Option<&OsString>) -> ExitCode {
    let question = question.map(|q| q.to_string_lossy().into_owned()).unwrap_or_default();
    let host = std::env::var(HOST).unwrap_or_default();
    let Some(key) = key(&question, &host) else {
        return ExitCode::FAILURE;
    };
    let directory = std::env::var_os(DIRECTORY).unwrap_or_default();
    let text = std::fs::read_to_string(Path::new(&directory).join(key)).unwrap_or_default();
    // GitHub and GitLab accept a token as the password of any user.
    let text = if key == "username" && text.trim().is_empty() {
        "git".to_owned()
    } else {
        text
    };
    match writeln!(std::io::stdout(), "{}", text.trim_end_matches(['\n', '\r'])) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Returns the key that a question asks for: `Username for 'https://host': ` or `Password for 'https://user@host': `.
/// Any other host, such as the host of a submodule, gets no answer.
fn key(question: &str, host: &str) -> Option<&'static str> {
    let (what, rest) = question.split_once(" for '")?;
    let address = url::Url::parse(rest.split_once('\'')?.0).ok()?;
    let asked = super::address::authority(&address);
    if host.is_empty() || asked.as_deref() != Some(host) {
        return None;
    }
    match what {
        "Username" => Some("username"),
        "Password" => Some("password"),
        _ => None,
    }
}

/// Returns the path of this program, for git to call.
pub(super) fn program() -> OsString {
    std::env::current_exe().map_or_else(|_| OsStr::new("legion-agent").to_owned(), Into::into)
}

#[cfg(test)]
mod tests {
    use super::key;

    #[test]
    fn only_the_host_of_the_connection_gets_an_answer() {
        for (question, expected) in [
            ("Username for 'https://git.example.org': ", Some("username")),
            ("Password for 'https://me@git.example.org': ", Some("password")),
            ("Password for 'https://me@git.example.org:8443': ", None),
            ("Password for 'https://evil.example.org': ", None),
            ("Password for 'http://git.example.org': ", None),
            ("Enter passphrase for key '/x': ", None),
            ("", None),
        ] {
            assert_eq!(key(question, "https://git.example.org:443"), expected, "{question}");
        }
    }
}
