//! The containers that Legion adds to a training pod: `fetch` and `publish`.
//!
//! `fetch` is an init container. It downloads the source and the data, and it installs `legion-entry`. `publish` is a
//! main container. It waits for the end of the trainer without polling, checks the output as hostile input, and uploads
//! it. Both report through their termination message. The code is synchronous. The async runtime and TLS start with the
//! first request to a network store. This keeps a waiting `publish` small and lets a local run start immediately.

mod confined;
mod error;
mod extract;
mod fault;
mod fetch;
mod pack;
mod paths;
mod publish;
mod record;
mod report;
mod retry;
mod secrets;
mod store;
mod terminate;
mod tls;
mod tree;

use std::ffi::OsString;
use std::io::BufRead;
use std::path::Path;
use std::process::ExitCode;

/// Extracts an untrusted tar archive, compressed with gzip or not, into an empty directory.
///
/// # Errors
/// When the archive is cut or refused, such as one with a path out of the directory. Then the directory has a part of
/// it.
pub fn extract_archive(mut archive: impl BufRead, to: &Path) -> Result<(), legion_protocol::reason::StepError> {
    let limits = tree::TreeLimits {
        bytes: u64::MAX,
        entries: 1_000_000,
    };
    // The magic number of gzip (RFC 1952).
    let is_gzip = archive.fill_buf().is_ok_and(|start| start.starts_with(&[0x1f, 0x8b]));
    let extracted = if is_gzip {
        extract::tar_gz(archive, to, limits)
    } else {
        extract::tar(archive, to, limits)
    };
    extracted.map(drop)
}

/// Runs the step that the argument names.
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
