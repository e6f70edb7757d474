//! Extracts untrusted archives. Refuses path traversal, links out of the tree, decompression bombs and special files.

use std::io::Read;
use std::path::{Component, Path, PathBuf};

use legion_protocol::reason::{StepError, StepReason};

use crate::confined::{ConfinedDir, shown};
use crate::error::{Result, carried, node_fault};
use crate::paths;
use crate::tree::{self, TreeCollector, TreeLimits, TreeSummary};

/// Extracts a tar archive into an empty directory.
pub(crate) fn tar(archive: impl Read, to: &Path, limits: TreeLimits) -> Result<TreeSummary> {
    let mut archive = tar::Archive::new(archive);
    let mut collector = TreeCollector::default();
    let (mut bytes, mut count) = (0u64, 0u64);
    // Links are created last, so that no entry is written through a link.
    let mut links: Vec<(PathBuf, PathBuf)> = Vec::new();
    for entry in archive.entries().map_err(|e| unreadable(&e))? {
        let mut entry = entry.map_err(|e| unreadable(&e))?;
        count += 1;
        if count > limits.entries {
            return Err(StepError::new(
                StepReason::TooLarge,
                format!("the archive has more than {} entries", limits.entries),
            ));
        }
        let path = entry.path().map_err(|e| unreadable(&e))?.into_owned();
        let path: PathBuf = path.components().filter(|c| *c != Component::CurDir).collect();
        if path.components().any(|c| !matches!(c, Component::Normal(_))) {
            return Err(StepError::new(
                StepReason::PathEscapes,
                format!("the archive's entry {:?} is outside of the source", shown(&path)),
            ));
        }
        let target = to.join(&path);
        match entry.header().entry_type() {
            tar::EntryType::Directory => paths::create_dir(&target)?,
            tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
                if let Some(parent) = target.parent() {
                    paths::create_dir(parent)?;
                }
                let executable = entry.header().mode().is_ok_and(|mode| mode & 0o100 != 0);
                let (digest, size) = tree::copy_file(&mut entry, &target, limits.bytes - bytes, executable)?;
                bytes += size;
                collector.add(&path, digest, size);
            }
            tar::EntryType::Symlink => {
                let link = entry
                    .link_name()
                    .ok()
                    .flatten()
                    .map(|l| l.into_owned())
                    .unwrap_or_default();
                links.push((path, link));
            }
            tar::EntryType::XGlobalHeader => {}
            _ => {
                return Err(StepError::new(
                    StepReason::ContentRefused,
                    format!(
                        "the archive's entry {:?} is not a file, directory or symbolic link",
                        shown(&path)
                    ),
                ));
            }
        }
    }
    for (path, link) in &links {
        let target = to.join(path);
        if let Some(parent) = target.parent() {
            paths::create_dir(parent)?;
        }
        std::os::unix::fs::symlink(link, &target)
            .map_err(|e| node_fault(format_args!("cannot create the link {:?}", shown(path)), &e))?;
    }
    let root = ConfinedDir::open(to).map_err(|e| StepError::new(StepReason::NodeFault, e.to_string()))?;
    if let Some((path, _)) = links.iter().find(|(path, _)| root.points_outside(path, to)) {
        return Err(StepError::new(
            StepReason::PathEscapes,
            format!("the archive's link {:?} points outside of the source", shown(path)),
        ));
    }
    Ok(collector.finish())
}

fn unreadable(error: &std::io::Error) -> StepError {
    // A failed download is not an error of the archive.
    if let Some(error) = carried(error) {
        return error;
    }
    StepError::new(
        StepReason::ContentRefused,
        format!("the archive cannot be read: {error}"),
    )
    .remedy("store a tar archive. Compress it with gzip if its name ends in .tar.gz or .tgz")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: TreeLimits = TreeLimits {
        bytes: 10_000,
        entries: 10,
    };

    /// Writes headers by hand, because the `tar` crate refuses to create most of these archives.
    fn archive(entries: &[(&str, tar::EntryType, &str, u64)]) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, kind, link, size) in entries {
            let mut header = tar::Header::new_gnu();
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
            header.set_entry_type(*kind);
            header.set_size(*size);
            header.set_mode(0o644);
            header.set_cksum();
            out.extend_from_slice(header.as_bytes());
            out.resize(out.len() + size.next_multiple_of(512) as usize, b'x');
        }
        out.resize(out.len() + 1024, 0);
        out
    }

    #[test]
    fn a_valid_tree_is_accepted_and_hostile_entries_are_refused() {
        use tar::EntryType as T;
        for (entries, refused) in [
            (
                vec![
                    ("a/b", T::Regular, "", 5),
                    ("./c", T::Regular, "", 0),
                    ("l", T::Symlink, "a/b", 0),
                ],
                None,
            ),
            (vec![("../b", T::Regular, "", 5)], Some(StepReason::PathEscapes)),
            (vec![("/etc/b", T::Regular, "", 5)], Some(StepReason::PathEscapes)),
            (vec![("l", T::Symlink, "/etc", 0)], Some(StepReason::PathEscapes)),
            (
                vec![("l", T::Symlink, "..", 0), ("l/x", T::Regular, "", 1)],
                Some(StepReason::NodeFault),
            ),
            (vec![("l", T::Link, "/etc/passwd", 0)], Some(StepReason::ContentRefused)),
            (vec![("f", T::Fifo, "", 0)], Some(StepReason::ContentRefused)),
            (vec![("d", T::Block, "", 0)], Some(StepReason::ContentRefused)),
            (vec![("big", T::Regular, "", 10_001)], Some(StepReason::TooLarge)),
            (vec![("n", T::Regular, "", 0); 11], Some(StepReason::TooLarge)),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let to = dir.path().join("to");
            std::fs::create_dir(&to).unwrap();
            let result = tar(archive(&entries).as_slice(), &to, LIMITS);
            assert_eq!(
                result.as_ref().err().map(|e| e.reason),
                refused,
                "{entries:?}: {result:?}"
            );
            assert_eq!(
                std::fs::read_dir(dir.path()).unwrap().count(),
                1,
                "nothing was written outside"
            );
        }
    }

    #[test]
    fn a_decompression_bomb_is_refused_before_it_fills_the_disk() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut gzip, &archive(&[("bomb", tar::EntryType::Regular, "", 5_000_000)])).unwrap();
        let packed = gzip.finish().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let error = tar(flate2::read::GzDecoder::new(packed.as_slice()), dir.path(), LIMITS).unwrap_err();
        assert_eq!(error.reason, StepReason::TooLarge);
        assert!(std::fs::metadata(dir.path().join("bomb")).unwrap().len() <= LIMITS.bytes);
    }
}
