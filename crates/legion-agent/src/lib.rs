//! What runs beside the trainer in its pod.
//!
//! `fetch`, an init container, brings source and data in and installs `legion-entry`; `publish`, a main container, waits
//! for the trainer's end without polling, checks what it left as hostile input, and stores it. Both answer through their
//! termination message. The code is synchronous: an async runtime and TLS come into being only for the first request
//! to a network store, so that a waiting `publish` stays small and a local run starts at once.

mod beneath;
mod extract;
mod fetch;
mod pack;
mod places;
mod publish;
mod record;
mod report;
mod retry;
mod secrets;
mod store;
mod terminate;
mod tls;
mod tree;

use legion_protocol::reason::{StepError, StepReason};
use std::ffi::OsString;
use std::process::ExitCode;

/// What a step of the agent gives back.
type Result<T> = std::result::Result<T, StepError>;

/// The program: one word chooses the step.
pub fn main(args: Vec<OsString>) -> ExitCode {
    // `git` asks for credentials by running this program with the question as its only argument.
    if fetch::askpass::is_asked() {
        return fetch::askpass::answer(args.first());
    }
    match args.iter().map(|a| a.to_str()).collect::<Vec<_>>()[..] {
        [Some("fetch")] => fetch::main(),
        [Some("publish")] => publish::main(),
        [Some("--version")] => {
            report::line(&format!("legion-agent {}", env!("CARGO_PKG_VERSION")));
            ExitCode::SUCCESS
        }
        _ => {
            report::line("usage: legion-agent fetch | publish");
            ExitCode::from(2)
        }
    }
}

/// A fault of the node or of its file system, told apart from a full disk, which has a remedy.
fn node_fault(what: impl std::fmt::Display, error: &std::io::Error) -> StepError {
    let reason = match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => StepReason::WorkspaceFull,
        _ => StepReason::NodeFault,
    };
    StepError::new(reason, format!("{what}: {error}"))
}
