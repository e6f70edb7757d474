//! Notices of `fetch`, and names of existing files in messages.

use std::path::Path;

use legion_protocol::result::WireNotice;
use legion_protocol::text::bounded;

/// Longest list of names in a message, in bytes.
const NAMES_BYTES: usize = 200;

/// Returns names as a list for a message, shortened if they are many.
pub(super) fn some_of(names: &[String]) -> String {
    bounded(&names.join(", "), NAMES_BYTES)
}

/// Returns the names of the directories in a directory, as a list for a message. It is empty if there are none.
pub(super) fn directories(directory: &Path) -> String {
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|e| e.path().is_dir())
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .filter(|name| name != ".git")
        .collect();
    names.sort();
    some_of(&names)
}

/// Submodules of the repository that were not fetched.
pub(super) fn submodules(paths: &[String]) -> WireNotice {
    WireNotice {
        reason: "SubmodulesNotFetched".to_owned(),
        message: format!(
            "the repository has submodules, and their directories are empty: {}. Set spec.source.git.submodules to \
             true to fetch them",
            some_of(paths)
        ),
    }
}

/// Git LFS pointers of the source. Their content was not fetched.
pub(super) fn lfs(paths: &[String]) -> WireNotice {
    WireNotice {
        reason: "LfsContentMissing".to_owned(),
        message: format!(
            "the source has {} Git LFS pointers. Legion does not fetch their content, and reading them fails: {}. \
             Provide the content with spec.data and its localPath",
            paths.len(),
            some_of(paths)
        ),
    }
}

/// FIFOs, sockets and devices of a source volume.
pub(super) fn special(paths: &[String]) -> WireNotice {
    WireNotice {
        reason: "SpecialFilesLeftOut".to_owned(),
        message: format!(
            "the source has FIFOs, sockets or devices, which are left out: {}",
            some_of(paths)
        ),
    }
}
