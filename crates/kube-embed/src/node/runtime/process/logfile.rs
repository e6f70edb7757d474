//! Log files in the CRI format (`TIME STREAM F|P TEXT`). The supervisor writes them and rotates them once. The node
//! reads and follows them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use jiff::Timestamp;
use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncBufReadExt, BufReader};

use super::record::{EXIT, LOG};
use crate::node::runtime::LogItem;

/// Maximum length of a line in bytes. Longer lines are split into parts, as containerd does.
const LINE_LIMIT: usize = 16 * 1024;

/// Writes a container's log.
pub(super) struct LogWriter {
    path: PathBuf,
    file: BufWriter<File>,
    size: u64,
    limit: u64,
    /// The unfinished line of each stream.
    partial: [(&'static str, Vec<u8>); 2],
}

impl LogWriter {
    pub(super) fn open(dir: &Path, limit: u64) -> io::Result<Self> {
        let path = dir.join(LOG);
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let size = file.metadata()?.len();
        let partial = [("stdout", Vec::new()), ("stderr", Vec::new())];
        Ok(Self {
            path,
            file: BufWriter::with_capacity(128 * 1024, file),
            size,
            limit,
            partial,
        })
    }

    /// Adds output of a stream. When this returns, every finished line is in the file.
    pub(super) fn write(&mut self, stream: &'static str, mut data: &[u8]) -> io::Result<()> {
        let now = stamp();
        let slot = usize::from(stream == "stderr");
        while let Some(end) = data.iter().position(|b| *b == b'\n') {
            let mut line = std::mem::take(&mut self.partial[slot].1);
            line.extend_from_slice(&data[..end]);
            data = &data[end + 1..];
            let mut parts = line.chunks(LINE_LIMIT).peekable();
            if parts.peek().is_none() {
                self.put(&now, stream, 'F', b"")?;
            }
            while let Some(part) = parts.next() {
                let tag = if parts.peek().is_some() { 'P' } else { 'F' };
                self.put(&now, stream, tag, part)?;
            }
        }
        self.partial[slot].1.extend_from_slice(data);
        while self.partial[slot].1.len() >= LINE_LIMIT {
            let rest = self.partial[slot].1.split_off(LINE_LIMIT);
            let part = std::mem::replace(&mut self.partial[slot].1, rest);
            self.put(&now, stream, 'P', &part)?;
        }
        self.file.flush()?;
        if self.size >= self.limit {
            self.rotate()?;
        }
        Ok(())
    }

    /// Writes lines without a final newline.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        let now = stamp();
        for slot in 0..self.partial.len() {
            let (stream, rest) = (self.partial[slot].0, std::mem::take(&mut self.partial[slot].1));
            if !rest.is_empty() {
                self.put(&now, stream, 'P', &rest)?;
            }
        }
        self.file.flush()
    }

    fn put(&mut self, time: &str, stream: &str, tag: char, text: &[u8]) -> io::Result<()> {
        let head = format!("{time} {stream} {tag} ");
        self.file.write_all(head.as_bytes())?;
        self.file.write_all(text)?;
        self.file.write_all(b"\n")?;
        self.size += (head.len() + text.len() + 1) as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        fs::rename(&self.path, older(&self.path))?;
        let file = OpenOptions::new().create(true).append(true).open(&self.path)?;
        self.file = BufWriter::with_capacity(128 * 1024, file);
        self.size = 0;
        Ok(())
    }
}

fn older(path: &Path) -> PathBuf {
    path.with_extension("1")
}

fn stamp() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string()
}

fn parse(line: &[u8]) -> Option<(Timestamp, Bytes)> {
    let mut parts = line.splitn(4, |b| *b == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
    let _stream = parts.next()?;
    let full = parts.next()? == b"F";
    let text = parts.next()?;
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let mut data = Vec::with_capacity(text.len() + 1);
    data.extend_from_slice(text);
    if full {
        data.push(b'\n');
    }
    Some((time, data.into()))
}

/// Returns the end of a log without timestamps.
pub(super) fn tail(dir: &Path, bytes: u64) -> Vec<u8> {
    let path = dir.join(LOG);
    let mut raw = Vec::new();
    for file in [older(&path), path] {
        // A log that was never rotated has no older part.
        let Ok(mut file) = File::open(file) else { continue };
        let size = file.metadata().map_or(0, |m| m.len());
        let begin = size.saturating_sub(bytes);
        if file.seek(SeekFrom::Start(begin)).is_ok() && file.read_to_end(&mut raw).is_err() {
            break;
        }
    }
    raw.split_inclusive(|b| *b == b'\n')
        .filter_map(parse)
        .flat_map(|(_, data)| data)
        .collect()
}

struct Reader {
    dir: PathBuf,
    watch: Option<AsyncFd<OwnedFd>>,
    files: Vec<BufReader<tokio::fs::File>>,
    inode: u64,
    line: Vec<u8>,
    caught_up: bool,
    ended: bool,
}

/// Reads a log from its beginning. With `follow`, reads until the container has ended.
pub(super) async fn read(dir: PathBuf, follow: bool) -> Option<BoxStream<'static, io::Result<LogItem>>> {
    let watch = if follow { watch(&dir).ok() } else { None };
    let path = dir.join(LOG);
    let current = tokio::fs::File::open(&path).await.ok()?;
    let inode = current.metadata().await.ok()?.ino();
    let mut files = vec![BufReader::with_capacity(128 * 1024, current)];
    if let Ok(before) = tokio::fs::File::open(older(&path)).await
        && before.metadata().await.is_ok_and(|m| m.ino() != inode)
    {
        files.push(BufReader::with_capacity(128 * 1024, before));
    }
    let reader = Reader {
        dir,
        watch,
        files,
        inode,
        line: Vec::new(),
        caught_up: false,
        ended: false,
    };
    Some(futures::stream::unfold(reader, |mut reader| async move { Some((reader.next().await?, reader)) }).boxed())
}

fn watch(dir: &Path) -> io::Result<AsyncFd<OwnedFd>> {
    let fd = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
    let events = inotify::WatchFlags::MODIFY
        | inotify::WatchFlags::CREATE
        | inotify::WatchFlags::MOVED_TO
        | inotify::WatchFlags::DELETE_SELF;
    inotify::add_watch(&fd, dir, events)?;
    super::readiness(fd)
}

impl Reader {
    async fn next(&mut self) -> Option<io::Result<LogItem>> {
        loop {
            // The oldest file is last.
            while let Some(file) = self.files.last_mut() {
                match file.read_until(b'\n', &mut self.line).await {
                    Err(error) => return Some(Err(error)),
                    Ok(_) if self.line.ends_with(b"\n") => {
                        let parsed = parse(&self.line);
                        self.line.clear();
                        if let Some((time, data)) = parsed {
                            return Some(Ok(LogItem::Line { time, data }));
                        }
                    }
                    // This is the end of a file. Only the newest file can grow.
                    Ok(_) if self.files.len() > 1 => {
                        self.files.pop();
                    }
                    Ok(_) => break,
                }
            }
            if self.rotated().await {
                continue;
            }
            if !self.caught_up {
                self.caught_up = true;
                return Some(Ok(LogItem::CaughtUp));
            }
            if self.ended || self.watch.is_none() {
                return None;
            }
            // This is checked before the next read, so everything that was written before the end is still read.
            self.ended = self.dir.join(EXIT).exists() || !self.dir.exists();
            if !self.ended {
                self.changed().await;
            }
        }
    }

    /// Switches to the new file if the log has been rotated.
    async fn rotated(&mut self) -> bool {
        let Ok(file) = tokio::fs::File::open(self.dir.join(LOG)).await else {
            return false;
        };
        match file.metadata().await {
            Ok(metadata) if metadata.ino() != self.inode => {
                self.files = vec![BufReader::with_capacity(128 * 1024, file)];
                // If the log was rotated twice since the last read, the older part is unread, too.
                if let Ok(before) = tokio::fs::File::open(older(&self.dir.join(LOG))).await
                    && before
                        .metadata()
                        .await
                        .is_ok_and(|m| ![self.inode, metadata.ino()].contains(&m.ino()))
                {
                    self.files.push(BufReader::with_capacity(128 * 1024, before));
                }
                self.inode = metadata.ino();
                true
            }
            _ => false,
        }
    }

    async fn changed(&mut self) {
        let Some(watch) = &self.watch else { return };
        // An error of the descriptor counts as a wake-up. The next read finds the new data.
        let Ok(mut guard) = watch.readable().await else { return };
        let mut buffer = [0_u8; 4096];
        while rustix::io::read(watch.get_ref(), &mut buffer).is_ok_and(|n| n > 0) {}
        guard.clear_ready();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn text(dir: &Path) -> String {
        let items: Vec<_> = read(dir.to_owned(), false).await.unwrap().collect().await;
        let lines = items.into_iter().filter_map(|item| match item.unwrap() {
            LogItem::Line { data, .. } => Some(String::from_utf8(data.to_vec()).unwrap()),
            LogItem::CaughtUp => None,
        });
        lines.collect()
    }

    #[tokio::test]
    async fn what_is_printed_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogWriter::open(dir.path(), 1 << 20).unwrap();
        let long = "x".repeat(40_000);
        log.write("stdout", b"one\n\ntw").unwrap();
        log.write("stderr", b"err\n").unwrap();
        log.write("stdout", format!("o\n{long}\nno newline").as_bytes())
            .unwrap();
        log.finish().unwrap();
        assert_eq!(text(dir.path()).await, format!("one\n\nerr\ntwo\n{long}\nno newline"));
        assert_eq!(tail(dir.path(), 60), b"no newline");
    }

    #[tokio::test]
    async fn the_log_is_bounded_and_its_end_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogWriter::open(dir.path(), 10_000).unwrap();
        for n in 0..5000 {
            log.write("stdout", format!("{n}\n").as_bytes()).unwrap();
        }
        let kept = text(dir.path()).await;
        assert!(kept.ends_with("4998\n4999\n"), "{kept:.100}");
        let size: u64 = [LOG, "log.1"]
            .iter()
            .map(|f| fs::metadata(dir.path().join(f)).unwrap().len())
            .sum();
        assert!(size <= 21_000, "{size}");
    }

    #[tokio::test]
    async fn a_reader_that_is_one_rotation_behind_reads_every_line() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogWriter::open(dir.path(), 1_000).unwrap();
        let mut items = read(dir.path().to_owned(), true).await.unwrap();
        assert_eq!(items.next().await.unwrap().unwrap(), LogItem::CaughtUp);
        let mut rotations = 0;
        let mut written = 0;
        while rotations < 2 {
            log.write("stdout", format!("{written}\n").as_bytes()).unwrap();
            written += 1;
            rotations += usize::from(log.size == 0);
        }
        fs::write(dir.path().join(EXIT), "{}").unwrap();
        let mut lines = Vec::new();
        while let Some(Ok(LogItem::Line { data, .. })) = items.next().await {
            lines.push(String::from_utf8(data.to_vec()).unwrap());
        }
        let expected: Vec<String> = (0..written).map(|n| format!("{n}\n")).collect();
        assert_eq!(lines, expected);
    }

    #[tokio::test]
    async fn following_passes_a_rotation_and_ends_with_the_container() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogWriter::open(dir.path(), 10_000).unwrap();
        let mut items = read(dir.path().to_owned(), true).await.unwrap();
        assert_eq!(items.next().await.unwrap().unwrap(), LogItem::CaughtUp);
        let mut seen = 0;
        for n in 0..300 {
            log.write("stdout", format!("{n}\n").as_bytes()).unwrap();
            let LogItem::Line { data, .. } = items.next().await.unwrap().unwrap() else {
                panic!("no line")
            };
            assert_eq!(data, format!("{n}\n"));
            seen += 1;
        }
        fs::write(dir.path().join(EXIT), "{}").unwrap();
        assert!(items.next().await.is_none());
        assert_eq!(seen, 300);
    }
}
