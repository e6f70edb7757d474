//! Extracts untrusted archives. Refuses path traversal, links out of the tree, decompression bombs and special files.
//! An archive is extracted whole or not at all: one that was cut, or that continues behind its end, is an error.

use std::cell::Cell;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use flate2::read::MultiGzDecoder;
use legion_protocol::reason::{StepError, StepReason};

use crate::confined::{ConfinedDir, shown};
use crate::error::{Result, carried, node_fault};
use crate::fault::{Fault, Side};
use crate::paths;
use crate::tree::{self, TreeCollector, TreeLimits, TreeSummary};

/// Size of the blocks of a tar archive, in bytes.
const BLOCK: usize = 512;

/// Extracts a tar archive that is compressed with gzip into an empty directory. Parallel compressors and joined files
/// have several gzip members, and all of them belong to the archive (RFC 1952, section 2.2).
pub(crate) fn tar_gz(archive: impl Read, to: &Path, limits: TreeLimits) -> Result<TreeSummary> {
    tar(MultiGzDecoder::new(archive), to, limits)
}

/// Extracts a tar archive into an empty directory.
pub(crate) fn tar(archive: impl Read, to: &Path, limits: TreeLimits) -> Result<TreeSummary> {
    let end = ArchiveEnd::default();
    let mut archive = tar::Archive::new(EndWatch {
        inner: archive,
        end: &end,
    });
    let unreadable = |e: &std::io::Error| unreadable(e, &end);
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
        let path = inner_path(&path)?;
        let target = to.join(&path);
        match entry.header().entry_type() {
            tar::EntryType::Directory => paths::create_dir(&target)?,
            tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
                if let Some(parent) = target.parent() {
                    paths::create_dir(parent)?;
                }
                let executable = entry.header().mode().is_ok_and(|mode| mode & 0o100 != 0);
                let left = limits.bytes - bytes;
                let (digest, size) = tree::copy_file(&mut entry, &target, left, executable, &unreadable)?;
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
    finish(archive.into_inner(), limits)?;
    create_links(&links, to)?;
    Ok(collector.finish())
}

/// Returns the path of an entry without `.`, or an error if it leaves the source.
fn inner_path(path: &Path) -> Result<PathBuf> {
    let path: PathBuf = path.components().filter(|c| *c != Component::CurDir).collect();
    if path.components().any(|c| !matches!(c, Component::Normal(_))) {
        return Err(StepError::new(
            StepReason::PathEscapes,
            format!("the archive's entry {:?} is outside of the source", shown(&path)),
        ));
    }
    Ok(path)
}

fn create_links(links: &[(PathBuf, PathBuf)], to: &Path) -> Result<()> {
    for (path, link) in links {
        let target = to.join(path);
        if let Some(parent) = target.parent() {
            paths::create_dir(parent)?;
        }
        std::os::unix::fs::symlink(link, &target)
            .map_err(|e| node_fault(format_args!("cannot create the link {:?}", shown(path)), &e))?;
    }
    let root = ConfinedDir::open(to).map_err(|e| StepError::new(StepReason::NodeFault, e.to_string()))?;
    links
        .iter()
        .try_for_each(|(path, _)| tree::link_inside(&root, path, to))
}

/// What the last read blocks say about the end of an archive. The `tar` crate accepts an archive without an end.
#[derive(Default)]
struct ArchiveEnd {
    /// Whether the file ended.
    file_ended: Cell<bool>,
    /// Number of zero bytes at the end of what was read.
    zeros: Cell<usize>,
}

/// A reader that watches for the end of an archive.
struct EndWatch<'a, R> {
    inner: R,
    end: &'a ArchiveEnd,
}

impl<R: Read> Read for EndWatch<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        if read == 0 && !buffer.is_empty() {
            self.end.file_ended.set(true);
        }
        let zeros = buffer[..read].iter().rev().take_while(|byte| **byte == 0).count();
        let before = if zeros == read { self.end.zeros.get() } else { 0 };
        self.end.zeros.set(before + zeros);
        Ok(read)
    }
}

/// Checks that the archive ended where its file ends. Without this check, an archive that was cut between two entries,
/// or two joined archives, would be extracted in part.
fn finish<R: Read>(mut rest: EndWatch<'_, R>, limits: TreeLimits) -> Result<()> {
    let end = rest.end;
    // The archive ends with zero blocks. One of them proves that no entry was cut off.
    if end.file_ended.get() || end.zeros.get() < BLOCK {
        return Err(cut());
    }
    let mut buffer = vec![0; 64 << 10];
    let mut bytes = 0u64;
    loop {
        let read = rest.read(&mut buffer).map_err(|e| unreadable(&e, end))?;
        if read == 0 {
            return Ok(());
        }
        if buffer[..read].iter().any(|byte| *byte != 0) {
            let message = "the archive has more data behind its end, as joined archives do";
            return Err(StepError::new(StepReason::ContentRefused, message)
                .remedy("store one archive with all files. `tar --concatenate` joins archives"));
        }
        bytes += read as u64;
        if bytes > limits.bytes {
            return Err(StepError::new(
                StepReason::TooLarge,
                format!("the archive has more than {} bytes behind its end", limits.bytes),
            ));
        }
    }
}

fn cut() -> StepError {
    StepError::new(
        StepReason::ContentRefused,
        "the archive is not complete: its file ends before the archive does",
    )
    .remedy("store the archive again: its upload or its creation was interrupted")
}

/// Returns the error for content of the archive that cannot be read.
fn unreadable(error: &std::io::Error, end: &ArchiveEnd) -> StepError {
    // A failed download is not an error of the archive.
    if let Some(error) = carried(error) {
        return error;
    }
    if end.file_ended.get() || error.kind() == std::io::ErrorKind::UnexpectedEof {
        return cut();
    }
    Fault::Content
        .error(Side::Source, format!("the archive cannot be read: {error}"))
        .remedy("store a tar archive. Compress it with gzip if its name ends in .tar.gz or .tgz")
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

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
                Some(StepReason::ContentRefused),
            ),
            (
                vec![("a", T::Regular, "", 1), ("a/b", T::Regular, "", 1)],
                Some(StepReason::ContentRefused),
            ),
            (
                vec![("a", T::Symlink, "b", 0), ("b", T::Symlink, "a", 0)],
                Some(StepReason::ContentRefused),
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

    /// Compresses a text as parallel compressors do: one gzip member for each part.
    fn members(bytes: &[u8], part: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for part in bytes.chunks(part) {
            let mut gzip = flate2::write::GzEncoder::new(out, flate2::Compression::fast());
            gzip.write_all(part).unwrap();
            out = gzip.finish().unwrap();
        }
        out
    }

    fn extract_gz(packed: &[u8]) -> (Result<TreeSummary>, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        (tar_gz(packed, dir.path(), LIMITS), dir)
    }

    #[test]
    fn an_archive_of_several_gzip_members_is_extracted_whole() {
        use tar::EntryType as T;
        let plain = archive(&[
            ("a", T::Regular, "", 700),
            ("b/c", T::Regular, "", 5),
            ("d", T::Regular, "", 0),
        ]);
        let whole = tar(plain.as_slice(), tempfile::tempdir().unwrap().path(), LIMITS).unwrap();
        assert_eq!(whole.files, 3);
        // Members that end at a block, within a block, and at the first end block.
        for part in [512, 1024, 1000, 100, plain.len() - 1024, plain.len()] {
            let (summary, dir) = extract_gz(&members(&plain, part));
            assert_eq!(summary.unwrap(), whole, "members of {part} bytes");
            assert_eq!(std::fs::metadata(dir.path().join("b/c")).unwrap().len(), 5);
        }
    }

    #[test]
    fn an_archive_that_was_cut_anywhere_is_refused() {
        use tar::EntryType as T;
        let plain = archive(&[("a", T::Regular, "", 700), ("b", T::Regular, "", 5)]);
        let entries = plain.len() - 1024;
        let packed = members(&plain, 1000);
        for length in 0..=entries {
            let dir = tempfile::tempdir().unwrap();
            let error = tar(&plain[..length], dir.path(), LIMITS).unwrap_err();
            assert_eq!(error.reason, StepReason::ContentRefused, "{length} bytes: {error}");
            assert!(error.message.contains("not complete"), "{length} bytes: {error}");
        }
        for length in 0..packed.len() {
            let (result, _dir) = extract_gz(&packed[..length]);
            let error = result.unwrap_err();
            assert_eq!(
                error.reason,
                StepReason::ContentRefused,
                "{length} bytes of gzip: {error}"
            );
            assert!(
                error.message.contains("not complete"),
                "{length} bytes of gzip: {error}"
            );
        }
        // A lone zero block, and any padding, is a complete archive.
        for length in [entries + 512, entries + 700, entries + 1024] {
            tar(&plain[..length], tempfile::tempdir().unwrap().path(), LIMITS).unwrap();
        }
        let padded = [plain.as_slice(), &[0; 9000]].concat();
        tar(padded.as_slice(), tempfile::tempdir().unwrap().path(), LIMITS).unwrap();
    }

    #[test]
    fn data_behind_the_end_and_a_damaged_archive_are_refused() {
        let plain = archive(&[("a", tar::EntryType::Regular, "", 700)]);
        let joined = [plain.as_slice(), plain.as_slice()].concat();
        let mut damaged = members(&plain, plain.len());
        // The checksum of the content.
        let checksum = damaged.len() - 8;
        damaged[checksum] ^= 0xff;
        for (packed, words) in [
            (members(&joined, 4096), "behind its end"),
            (damaged, "cannot be read"),
            (
                [members(&plain, 4096), b"this is no gzip member".to_vec()].concat(),
                "cannot be read",
            ),
        ] {
            let error = extract_gz(&packed).0.unwrap_err();
            assert_eq!(error.reason, StepReason::ContentRefused, "{error}");
            assert!(error.message.contains(words), "{words}: {error}");
        }
        // Zeros without an end are a bomb, too.
        let endless = members(&[plain, vec![0; 20_000]].concat(), 30_000);
        assert_eq!(extract_gz(&endless).0.unwrap_err().reason, StepReason::TooLarge);
    }

    #[test]
    fn a_decompression_bomb_is_refused_before_it_fills_the_disk() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&archive(&[("bomb", tar::EntryType::Regular, "", 5_000_000)]))
            .unwrap();
        let packed = gzip.finish().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let error = tar_gz(packed.as_slice(), dir.path(), LIMITS).unwrap_err();
        assert_eq!(error.reason, StepReason::TooLarge);
        assert!(std::fs::metadata(dir.path().join("bomb")).unwrap().len() <= LIMITS.bytes);
    }
}
