//! The faults of each origin of errors. The first row that matches decides.

use std::io::ErrorKind;

use object_store::Error as BucketError;
use rustix::io::Errno;

use super::kind::Fault;
use crate::confined::OpenRefusal;
use crate::tls;

/// Errors of the file system. Any other error may pass: an I/O error, an interrupted call, a stale handle of a network
/// file system, or too many open files.
const FILE_SYSTEM: &[(ErrorKind, Fault)] = &[
    (ErrorKind::NotFound, Fault::Missing),
    (ErrorKind::PermissionDenied, Fault::Denied),
    (ErrorKind::ReadOnlyFilesystem, Fault::Denied),
    (ErrorKind::AlreadyExists, Fault::Content),
    (ErrorKind::NotADirectory, Fault::Content),
    (ErrorKind::IsADirectory, Fault::Content),
    (ErrorKind::DirectoryNotEmpty, Fault::Content),
    (ErrorKind::InvalidFilename, Fault::Content),
    // Also a name with a NUL byte.
    (ErrorKind::InvalidInput, Fault::Content),
    (ErrorKind::StorageFull, Fault::Full),
    (ErrorKind::QuotaExceeded, Fault::Full),
    (ErrorKind::FileTooLarge, Fault::Full),
];

/// Returns the fault of an error of the file system.
pub(crate) fn of_io(error: &std::io::Error) -> Fault {
    // The standard library has no stable kind for a loop of links.
    if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) {
        return Fault::Content;
    }
    FILE_SYSTEM
        .iter()
        .find(|(kind, _)| *kind == error.kind())
        .map_or(Fault::Node, |(_, fault)| *fault)
}

/// Returns the fault of an error about an entry that a listing of a volume has found. A missing entry was deleted
/// meanwhile, so the next attempt does not find it.
pub(crate) fn of_volume(error: &std::io::Error) -> Fault {
    match of_io(error) {
        Fault::Missing => Fault::Node,
        fault => fault,
    }
}

/// Returns the fault of an entry that a listing of a volume has found, and that was not opened.
pub(crate) fn of_refusal(refusal: OpenRefusal) -> Fault {
    match refusal {
        OpenRefusal::Denied => Fault::Denied,
        OpenRefusal::TooLong | OpenRefusal::Outside => Fault::Content,
        OpenRefusal::Io(errno) => of_volume(&errno.into()),
        // Another program has changed the entry since it was listed.
        OpenRefusal::Missing | OpenRefusal::Link | OpenRefusal::Special | OpenRefusal::TooLarge => Fault::Node,
    }
}

/// Returns the fault of the status of an HTTP answer that is not the requested content.
pub(crate) fn of_status(status: u16) -> Fault {
    match status {
        // 511: a network that wants a login first.
        401 | 403 | 407 | 511 => Fault::Denied,
        404 | 410 => Fault::Missing,
        408 | 425 | 429 => Fault::Unreachable,
        200..=499 | 501 | 505 => Fault::Refused,
        _ => Fault::Unreachable,
    }
}

/// Error codes in answers of S3 whose status says something else.
const BUCKET_CODES: &[(&str, Fault)] = &[
    ("ExpiredToken", Fault::Denied),
    ("InvalidToken", Fault::Denied),
    ("TokenRefreshRequired", Fault::Denied),
    ("NoSuchBucket", Fault::Missing),
    // These come with status 400, 403 or 409.
    ("RequestTimeout", Fault::Unreachable),
    ("IncompleteBody", Fault::Unreachable),
    ("OperationAborted", Fault::Unreachable),
    ("ConditionalRequestConflict", Fault::Unreachable),
    ("InvalidObjectState", Fault::Refused),
];

/// Parts of the text of an error without an answer.
const CONNECTIONS: &[(&str, Fault)] = &[
    (tls::CERTIFICATE, Fault::Certificate),
    // A server without TLS behind an https address.
    (tls::NO_TLS, Fault::Refused),
    // S3 answers like this if the bucket is in another region.
    (BARE_REDIRECT, Fault::Refused),
];

/// The library's text for a redirect without a target.
const BARE_REDIRECT: &str = "Received redirect without LOCATION";

/// Returns the fault of a request that got no answer, from the text of its cause.
pub(crate) fn of_connection(cause: &str) -> Fault {
    matching(CONNECTIONS, cause).unwrap_or(Fault::Unreachable)
}

/// Returns the fault of an error of the S3 client. `code` is the error code of the answer, and `status` its status.
pub(crate) fn of_bucket(error: &BucketError, cause: &str, code: Option<&str>, status: Option<u16>) -> Fault {
    let of_code = BUCKET_CODES.iter().find(|(known, _)| Some(*known) == code);
    match (error, of_code, status) {
        (_, Some((_, fault)), _) => *fault,
        (BucketError::NotFound { .. }, ..) => Fault::Missing,
        (BucketError::PermissionDenied { .. } | BucketError::Unauthenticated { .. }, ..) => Fault::Denied,
        (BucketError::InvalidPath { .. }, ..) => Fault::Content,
        (
            BucketError::NotSupported { .. }
            | BucketError::NotImplemented { .. }
            | BucketError::UnknownConfigurationKey { .. }
            | BucketError::AlreadyExists { .. }
            | BucketError::Precondition { .. }
            | BucketError::NotModified { .. },
            ..,
        ) => Fault::Refused,
        (_, None, Some(status)) => of_status(status),
        (_, None, None) => of_connection(cause),
    }
}

/// Parts of git's output. ssh and curl add their own words to it. The order matters: git ends every failure with
/// general words.
const GIT: &[(&str, Fault)] = &[
    ("Host key verification failed", Fault::HostKey),
    ("host key is known", Fault::HostKey),
    ("REMOTE HOST IDENTIFICATION", Fault::HostKey),
    ("no matching host key type", Fault::HostKey),
    ("certificate problem", Fault::Certificate),
    ("certificate verif", Fault::Certificate),
    ("certificate subject name", Fault::Certificate),
    ("No space left on device", Fault::Full),
    ("Disk quota exceeded", Fault::Full),
    ("cannot run ssh", Fault::Program),
    ("ssh: not found", Fault::Program),
    ("ssh: command not found", Fault::Program),
    ("Authentication failed", Fault::Denied),
    ("could not read Username", Fault::Denied),
    ("could not read Password", Fault::Denied),
    ("unable to read askpass", Fault::Denied),
    ("Permission denied", Fault::Denied),
    ("Unable to negotiate with", Fault::Denied),
    ("error: 401", Fault::Denied),
    ("error: 403", Fault::Denied),
    ("error: 407", Fault::Denied),
    // Statuses that may pass. The rows after them hold for every other status of a client error.
    ("error: 408", Fault::Unreachable),
    ("error: 425", Fault::Unreachable),
    ("error: 429", Fault::Unreachable),
    ("returned error: 3", Fault::Missing),
    ("returned error: 4", Fault::Missing),
    ("returned error: 501", Fault::Missing),
    ("couldn't find remote ref", Fault::Reference),
    ("not our ref", Fault::Reference),
    ("does not allow request for unadvertised object", Fault::Reference),
    ("Unable to find current revision", Fault::Reference),
    ("transport '", Fault::Content),
    ("No url found for submodule path", Fault::Content),
    ("invalid path '", Fault::Content),
    ("File name too long", Fault::Content),
    ("Unable to find remote helper", Fault::Content),
    ("dumb http transport does not support", Fault::Missing),
    ("unable to update url base from redirection", Fault::Missing),
    ("is this a git repository", Fault::Missing),
    ("does not appear to be a git repository", Fault::Missing),
    ("wrong version number", Fault::Missing),
    ("An unexpected TLS packet was received", Fault::Missing),
    // Names that cannot be resolved may be a fault of the cluster's DNS.
    ("Could not resolve", Fault::Unreachable),
    ("does not exist", Fault::Missing),
    ("not found", Fault::Missing),
    ("Cannot allocate memory", Fault::Node),
    ("unable to create thread", Fault::Node),
];

/// Returns the fault of a failed git command from its stderr.
pub(crate) fn of_git(stderr: &str) -> Fault {
    matching(GIT, stderr).unwrap_or(Fault::Unreachable)
}

fn matching(rows: &[(&str, Fault)], text: &str) -> Option<Fault> {
    rows.iter()
        .find(|(part, _)| text.contains(part))
        .map(|(_, fault)| *fault)
}

#[cfg(test)]
mod tests {
    use legion_protocol::reason::StepClass;

    use super::super::kind::Side;
    use super::*;

    fn is_permanent(fault: Fault, side: Side) -> bool {
        fault.reason(side).class() == StepClass::User
    }

    #[test]
    fn every_errno_of_a_volume_is_permanent_or_passing_on_purpose() {
        use Errno as E;
        let permanent = [
            E::PERM,
            E::ACCESS,
            E::EXIST,
            E::NOTDIR,
            E::ISDIR,
            E::INVAL,
            E::FBIG,
            E::NOSPC,
            E::ROFS,
            E::NAMETOOLONG,
            E::NOTEMPTY,
            E::LOOP,
            E::DQUOT,
        ];
        for raw in 1..=133 {
            let fault = of_volume(&std::io::Error::from_raw_os_error(raw));
            let expected = permanent.iter().any(|errno| errno.raw_os_error() == raw);
            for side in [Side::Workspace, Side::Source, Side::Data] {
                assert_eq!(
                    is_permanent(fault, side),
                    expected,
                    "errno {raw}: {fault:?} of {side:?}"
                );
            }
        }
        assert_eq!(of_io(&std::io::Error::from_raw_os_error(2)), Fault::Missing);
    }

    #[test]
    fn every_refusal_to_open_is_permanent_or_passing_on_purpose() {
        for (refusal, permanent) in [
            (OpenRefusal::Denied, true),
            (OpenRefusal::TooLong, true),
            (OpenRefusal::Outside, true),
            (OpenRefusal::Io(Errno::ROFS), true),
            (OpenRefusal::Io(Errno::IO), false),
            (OpenRefusal::Missing, false),
            (OpenRefusal::Link, false),
            (OpenRefusal::Special, false),
            (OpenRefusal::TooLarge, false),
        ] {
            assert_eq!(is_permanent(of_refusal(refusal), Side::Data), permanent, "{refusal:?}");
        }
    }

    #[test]
    fn every_status_is_permanent_or_passing_on_purpose() {
        for status in 100..600 {
            let passing = matches!(status, 100..=199 | 408 | 425 | 429 | 500 | 502..=504 | 506..=510 | 512..=599);
            assert_eq!(is_permanent(of_status(status), Side::Data), !passing, "{status}");
        }
    }

    #[test]
    fn every_error_of_the_s3_client_is_permanent_or_passing_on_purpose() {
        let source = || "x".into();
        let path = String::new;
        let generic = || BucketError::Generic {
            store: "S3",
            source: source(),
        };
        for (error, permanent) in [
            (generic(), false),
            (
                BucketError::NotFound {
                    path: path(),
                    source: source(),
                },
                true,
            ),
            (
                BucketError::PermissionDenied {
                    path: path(),
                    source: source(),
                },
                true,
            ),
            (
                BucketError::Unauthenticated {
                    path: path(),
                    source: source(),
                },
                true,
            ),
            (object_store::path::Path::parse("a//b").unwrap_err().into(), true),
            (BucketError::NotSupported { source: source() }, true),
            (
                BucketError::Precondition {
                    path: path(),
                    source: source(),
                },
                true,
            ),
        ] {
            let fault = of_bucket(&error, "", None, None);
            assert_eq!(is_permanent(fault, Side::Data), permanent, "{error}");
        }
        for (code, fault) in BUCKET_CODES {
            assert_eq!(of_bucket(&generic(), "", Some(code), Some(400)), *fault, "{code}");
        }
        for (part, fault) in CONNECTIONS {
            let cause = format!("the library says: {part}: more words");
            assert_eq!(of_bucket(&generic(), &cause, None, None), *fault, "{part}");
            assert!(is_permanent(*fault, Side::Source), "{part}");
        }
        for status in [400, 405, 301, 501] {
            assert!(
                is_permanent(of_bucket(&generic(), "", None, Some(status)), Side::Source),
                "{status}"
            );
        }
        for status in [429, 503] {
            assert_eq!(
                of_bucket(&generic(), "", None, Some(status)),
                Fault::Unreachable,
                "{status}"
            );
        }
        assert_eq!(
            of_bucket(&generic(), "operation timed out", None, None),
            Fault::Unreachable
        );
    }

    #[test]
    fn every_part_of_gits_output_is_permanent_or_passing_on_purpose() {
        let passing = [
            "error: 408",
            "error: 425",
            "error: 429",
            "Could not resolve",
            "Cannot allocate memory",
            "unable to create thread",
        ];
        for (part, _) in GIT {
            // The general words at the end of every failure do not change the decision.
            let stderr = format!("remote: {part} x\nfatal: Could not read from remote repository.\n");
            let permanent = is_permanent(of_git(&stderr), Side::Source);
            assert_eq!(permanent, !passing.contains(part), "{part}");
        }
        // Words of git, curl and ssh about a network that may recover.
        for stderr in [
            "fatal: unable to access 'https://e.org/x.git/': Could not resolve host: e.org",
            "ssh: Could not resolve hostname e.org: Name or service not known",
            "fatal: unable to access 'https://e.org/x.git/': The requested URL returned error: 503",
            "fatal: unable to access 'https://e.org/x.git/': The requested URL returned error: 429",
            "error: RPC failed; curl 56 GnuTLS recv error (-54): Error in the pull function.",
            "fatal: early EOF\nfatal: fetch-pack: invalid index-pack output",
            "ssh: connect to host e.org port 22: Connection refused",
            "kex_exchange_identification: Connection closed by remote host",
            "fatal: unable to access 'https://e.org/x.git/': Failed to connect to e.org port 443: Connection timed out",
        ] {
            assert_eq!(of_git(stderr), Fault::Unreachable, "{stderr}");
        }
        for (stderr, fault) in [
            (
                "fatal: unable to access 'https://e.org/x.git/': The requested URL returned error: 410",
                Fault::Missing,
            ),
            (
                "git@e.org: Permission denied (publickey).\nfatal: Could not read from remote repository.",
                Fault::Denied,
            ),
            ("fatal: repository 'https://e.org/x.git/' not found", Fault::Missing),
            (
                "error: invalid path 'a/.git/config'\nfatal: Could not reset index file",
                Fault::Content,
            ),
        ] {
            assert_eq!(of_git(stderr), fault, "{stderr}");
        }
    }
}
