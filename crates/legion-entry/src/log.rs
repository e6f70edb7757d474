//! Writes the bounded copy of the output in the layout of [`legion_protocol::log`].

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use legion_protocol::log::{HEAD, TAIL, TAIL_OLD, marker};

/// A bounded copy of the output: its beginning and its end.
#[derive(Debug)]
pub(crate) struct BoundedLog {
    directory: PathBuf,
    head: File,
    head_room: u64,
    segment: u64,
    tail: Option<Tail>,
    /// Bytes that were overwritten by newer ones.
    left_out: u64,
    old_bytes: u64,
}

#[derive(Debug)]
struct Tail {
    file: File,
    bytes: u64,
}

impl BoundedLog {
    /// Creates an empty copy of at most `limit` bytes.
    pub(crate) fn create(directory: &Path, limit: u64) -> io::Result<Self> {
        Ok(Self {
            directory: directory.to_owned(),
            head: File::create(directory.join(HEAD))?,
            head_room: limit / 2,
            segment: limit / 4,
            tail: None,
            left_out: 0,
            old_bytes: 0,
        })
    }

    /// Appends output.
    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let first = bytes.len().min(usize::try_from(self.head_room).unwrap_or(usize::MAX));
        if first > 0 {
            self.head.write_all(&bytes[..first])?;
            self.head_room -= first as u64;
            bytes = &bytes[first..];
        }
        while !bytes.is_empty() {
            let tail = self.tail()?;
            let room = tail.1 - tail.0.bytes;
            let part = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
            tail.0.file.write_all(&bytes[..part])?;
            tail.0.bytes += part as u64;
            bytes = &bytes[part..];
        }
        Ok(())
    }

    /// Returns the newest segment, which has room for at least one byte, and the size of a segment.
    fn tail(&mut self) -> io::Result<(&mut Tail, u64)> {
        if self.tail.as_ref().is_some_and(|t| t.bytes >= self.segment) {
            std::fs::rename(self.directory.join(TAIL), self.directory.join(TAIL_OLD))?;
            self.left_out += self.old_bytes;
            self.old_bytes = self.segment;
            self.tail = None;
        }
        let tail = match self.tail.take() {
            Some(tail) => tail,
            None => Tail {
                file: File::create(self.directory.join(TAIL))?,
                bytes: 0,
            },
        };
        Ok((self.tail.insert(tail), self.segment))
    }

    /// Joins the pieces into one file.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        if self.tail.is_none() {
            return Ok(());
        }
        if self.left_out > 0 {
            self.head.write_all(marker(Some(self.left_out)).as_bytes())?;
        }
        let (old, tail) = (self.directory.join(TAIL_OLD), self.directory.join(TAIL));
        if self.old_bytes > 0 {
            io::copy(&mut File::open(&old)?, &mut self.head)?;
        }
        io::copy(&mut File::open(&tail)?, &mut self.head)?;
        if self.old_bytes > 0 {
            std::fs::remove_file(old)?;
        }
        std::fs::remove_file(tail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(limit: u64, chunks: &[&[u8]]) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let mut log = BoundedLog::create(dir.path(), limit).unwrap();
        for chunk in chunks {
            log.write(chunk).unwrap();
        }
        let on_disk: u64 = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().metadata().unwrap().len())
            .sum();
        assert!(on_disk <= limit);
        log.finish().unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        std::fs::read(dir.path().join(HEAD)).unwrap()
    }

    #[test]
    fn output_within_the_limit_is_kept_whole() {
        let text: Vec<u8> = (0..=255).cycle().take(1000).collect();
        for size in [1, 7, 1000] {
            assert_eq!(kept(1000, &text.chunks(size).collect::<Vec<_>>()), text);
        }
        assert_eq!(kept(1000, &[]), b"");
    }

    #[test]
    fn output_over_the_limit_keeps_its_beginning_and_end() {
        let text: Vec<u8> = (0..20_000u32).flat_map(|i| format!("{i}\n").into_bytes()).collect();
        for size in [1, 333, 5000, text.len()] {
            let out = kept(4096, &text.chunks(size).collect::<Vec<_>>());
            assert!(out.starts_with(&text[..2048]));
            assert!(out.ends_with(&text[text.len() - 1024..]));
            let printed = String::from_utf8_lossy(&out).into_owned();
            let left_out: usize = printed
                .split_once("[legion: ")
                .and_then(|(_, rest)| rest.split_once(" bytes of output left out"))
                .unwrap()
                .0
                .parse()
                .unwrap();
            assert_eq!(out.len() - marker(Some(left_out as u64)).len() + left_out, text.len());
        }
    }
}
