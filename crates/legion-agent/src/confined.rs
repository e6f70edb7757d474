//! Opens files of other programs. Every path stays inside one directory, no link is followed, and no open call waits
//! for a device.

use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path};

use rustix::fd::OwnedFd;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat, fstat, open, openat, openat2};
use rustix::io::Errno;

/// Why a path inside a directory was not opened. The text contains neither a name nor file content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OpenRefusal {
    #[error("does not exist")]
    Missing,
    /// The path or a directory on it is a symbolic link.
    #[error("is a symbolic link or is reached through one")]
    Link,
    /// The path is neither a regular file nor, if directories are accepted, a directory.
    #[error("is not a regular file")]
    Special,
    #[error("is larger than its limit")]
    TooLarge,
    #[error("cannot be read: its mode must allow its owner to read it")]
    Denied,
    /// The path is longer than the system accepts.
    #[error("has a path that is too long")]
    TooLong,
    #[error("is outside of its directory")]
    Outside,
    #[error("cannot be read ({0})")]
    Io(Errno),
}

impl From<Errno> for OpenRefusal {
    fn from(e: Errno) -> Self {
        match e {
            // A component of the path is a file and not a directory.
            Errno::NOENT | Errno::NOTDIR => Self::Missing,
            Errno::LOOP => Self::Link,
            Errno::XDEV => Self::Outside,
            Errno::ACCESS | Errno::PERM => Self::Denied,
            Errno::NAMETOOLONG => Self::TooLong,
            // A socket, or a device without a driver.
            Errno::NXIO | Errno::NODEV => Self::Special,
            e => Self::Io(e),
        }
    }
}

/// Where a symbolic link leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkTarget {
    /// To a path inside its directory, which may not exist.
    Inside,
    /// Out of its directory.
    Outside,
    /// To itself, through other links or directly.
    Loop,
}

const FLAGS: OFlags = OFlags::CLOEXEC
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY);

/// A directory with untrusted content.
#[derive(Debug)]
pub(crate) struct ConfinedDir {
    fd: OwnedFd,
    device: u64,
    /// Whether `openat2` confines paths to a directory (Linux 5.6). Some sandboxes forbid the call.
    by_kernel: bool,
}

impl ConfinedDir {
    /// Opens a directory that no other program can have replaced, for example a mount.
    pub(crate) fn open(path: &Path) -> Result<Self, OpenRefusal> {
        Self::with(path, OFlags::empty())
    }

    /// Opens a directory that another program may have replaced by a link.
    pub(crate) fn open_untrusted(path: &Path) -> Result<Self, OpenRefusal> {
        Self::with(path, OFlags::NOFOLLOW).map_err(|why| match std::fs::symlink_metadata(path) {
            // With both flags a link is reported as "not a directory". Otherwise that error means that the path is
            // missing.
            Ok(meta) if meta.is_symlink() => OpenRefusal::Link,
            _ => why,
        })
    }

    fn with(path: &Path, flags: OFlags) -> Result<Self, OpenRefusal> {
        let flags = flags | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
        let fd = open(path, flags, Mode::empty())?;
        let device = fstat(&fd)?.st_dev;
        let by_kernel = !matches!(
            openat2(
                &fd,
                ".",
                OFlags::PATH | OFlags::CLOEXEC,
                Mode::empty(),
                ResolveFlags::BENEATH
            ),
            Err(Errno::NOSYS | Errno::PERM)
        );
        Ok(Self { fd, device, by_kernel })
    }

    /// Disables `openat2`.
    #[cfg(test)]
    pub(crate) fn by_component(mut self) -> Self {
        self.by_kernel = false;
        self
    }

    /// Opens a path below the directory without following a link. An empty path is the directory itself.
    fn any(&self, path: &Path) -> Result<(OwnedFd, Stat), OpenRefusal> {
        if path
            .components()
            .any(|c| !matches!(c, Component::Normal(_) | Component::CurDir))
        {
            return Err(OpenRefusal::Outside);
        }
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        let fd = if self.by_kernel {
            let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
            openat2(&self.fd, path, FLAGS, Mode::empty(), how)?
        } else {
            self.walk(path)?
        };
        let stat = fstat(&fd)?;
        // The trainer did not write files on another mount.
        if stat.st_dev != self.device {
            return Err(OpenRefusal::Outside);
        }
        Ok((fd, stat))
    }

    /// Opens a path component by component, without following a link.
    fn walk(&self, path: &Path) -> Result<OwnedFd, OpenRefusal> {
        let mut at = openat(&self.fd, ".", FLAGS | OFlags::DIRECTORY, Mode::empty())?;
        for component in path.components() {
            let Component::Normal(name) = component else { continue };
            at = openat(&at, name, FLAGS, Mode::empty())?;
        }
        Ok(at)
    }

    /// Opens a regular file of at most `limit` bytes.
    pub(crate) fn file(&self, path: &Path, limit: u64) -> Result<(File, Stat), OpenRefusal> {
        let (fd, stat) = self.any(path)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(OpenRefusal::Special);
        }
        // The size counts and not the blocks, because a sparse file takes as long to read as a full one.
        if u64::try_from(stat.st_size).unwrap_or(u64::MAX) > limit {
            return Err(OpenRefusal::TooLarge);
        }
        Ok((File::from(fd), stat))
    }

    /// Opens a regular file or a directory.
    pub(crate) fn entry(&self, path: &Path) -> Result<(OwnedFd, Stat), OpenRefusal> {
        let (fd, stat) = self.any(path)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile | FileType::Directory => Ok((fd, stat)),
            _ => Err(OpenRefusal::Special),
        }
    }

    /// Reads a small regular file.
    pub(crate) fn read(&self, path: &Path, limit: u64) -> Result<Vec<u8>, OpenRefusal> {
        use std::io::Read as _;
        let (file, _) = self.file(path, limit)?;
        let mut bytes = Vec::new();
        // The read is bounded, because the file may grow meanwhile.
        file.take(limit + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| OpenRefusal::Io(Errno::from_io_error(&e).unwrap_or(Errno::IO)))?;
        if bytes.len() as u64 > limit {
            Err(OpenRefusal::TooLarge)
        } else {
            Ok(bytes)
        }
    }

    /// Returns where a link below the directory leads. The kernel follows the link, so that a link to a link is
    /// resolved as a program would resolve it.
    pub(crate) fn target_of(&self, link: &Path, root: &Path) -> LinkTarget {
        if self.by_kernel {
            let how = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
            return match openat2(&self.fd, link, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), how) {
                Ok(_) => LinkTarget::Inside,
                Err(Errno::NOENT | Errno::NOTDIR) => self.dangling(link, root),
                Err(Errno::LOOP) => LinkTarget::Loop,
                Err(_) => LinkTarget::Outside,
            };
        }
        let Ok(real_root) = root.canonicalize() else {
            return LinkTarget::Outside;
        };
        match root.join(link).canonicalize() {
            Ok(target) if target.starts_with(real_root) => LinkTarget::Inside,
            Ok(_) => LinkTarget::Outside,
            Err(e) => match Errno::from_io_error(&e) {
                Some(Errno::NOENT | Errno::NOTDIR) => self.dangling(link, root),
                Some(Errno::LOOP) => LinkTarget::Loop,
                _ => LinkTarget::Outside,
            },
        }
    }

    /// Returns where a link to nothing leads. It is allowed if its path stays inside the directory, both as it is
    /// written and as far as it exists.
    fn dangling(&self, link: &Path, root: &Path) -> LinkTarget {
        let at = root.join(link);
        let (Ok(target), Ok(real_root)) = (std::fs::read_link(&at), root.canonicalize()) else {
            return LinkTarget::Outside;
        };
        let target = at.parent().unwrap_or(root).join(target);
        let existing = target.ancestors().find_map(|ancestor| ancestor.canonicalize().ok());
        if existing.is_some_and(|existing| existing.starts_with(real_root)) && !self.dangles_outside(link, root) {
            LinkTarget::Inside
        } else {
            LinkTarget::Outside
        }
    }

    fn dangles_outside(&self, link: &Path, root: &Path) -> bool {
        let Ok(target) = std::fs::read_link(root.join(link)) else {
            return true;
        };
        let mut depth = link.components().count().saturating_sub(1);
        for component in target.components() {
            match component {
                Component::Normal(_) => depth += 1,
                Component::CurDir => {}
                Component::ParentDir if depth > 0 => depth -= 1,
                _ => return true,
            }
        }
        false
    }
}

/// Returns an untrusted path in a form that is safe for a message.
pub(crate) fn shown(path: &Path) -> String {
    legion_protocol::text::bounded(&String::from_utf8_lossy(path.as_os_str().as_bytes()), 200)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn roots(dir: &Path) -> [ConfinedDir; 2] {
        [
            ConfinedDir::open(dir).unwrap(),
            ConfinedDir::open(dir).unwrap().by_component(),
        ]
    }

    #[test]
    fn only_regular_files_below_the_directory_are_opened_both_ways() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::fs::write(dir.path().join("secret"), "s").unwrap();
        std::fs::write(root.join("sub/file"), "content").unwrap();
        symlink("../secret", root.join("out")).unwrap();
        symlink("sub/file", root.join("in")).unwrap();
        symlink("sub", root.join("way")).unwrap();
        symlink("/", root.join("slash")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, root.join("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
        File::create(root.join("endless")).unwrap().set_len(1 << 43).unwrap();
        for root in roots(&root) {
            let read = |path: &str| root.read(Path::new(path), 100);
            assert_eq!(read("sub/file").unwrap(), b"content");
            assert_eq!(root.read(Path::new("sub/file"), 6).unwrap_err(), OpenRefusal::TooLarge);
            for (path, why) in [
                ("nothing", OpenRefusal::Missing),
                ("sub/file/below", OpenRefusal::Missing),
                ("out", OpenRefusal::Link),
                ("in", OpenRefusal::Link),
                ("way/file", OpenRefusal::Link),
                ("slash/etc/passwd", OpenRefusal::Link),
                ("../secret", OpenRefusal::Outside),
                ("sub/../../secret", OpenRefusal::Outside),
                ("/etc/passwd", OpenRefusal::Outside),
                ("fifo", OpenRefusal::Special),
                ("socket", OpenRefusal::Special),
                ("sub", OpenRefusal::Special),
                ("", OpenRefusal::Special),
                ("endless", OpenRefusal::TooLarge),
            ] {
                assert_eq!(read(path).unwrap_err(), why, "{path} ({root:?})");
            }
            assert!(root.entry(Path::new("sub")).is_ok());
        }
    }

    #[test]
    fn links_are_classified_by_their_final_target() {
        use LinkTarget::{Inside, Loop, Outside};
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::write(root.join("file"), "").unwrap();
        symlink("pong", root.join("ping")).unwrap();
        for (link, target, leads) in [
            ("fine", "a/b", Inside),
            ("a/b/up", "../../a", Inside),
            ("dangling", "a/nothing", Inside),
            ("through-a-file", "file/below", Inside),
            ("absolute", "/etc", Outside),
            ("parent", "..", Outside),
            ("a/parent", "../../x", Outside),
            ("here", ".", Inside),
            // The text of this link stays inside the directory, but the link points outside.
            ("chain", "here/../x", Outside),
            ("self", "self", Loop),
            ("pong", "ping", Loop),
        ] {
            symlink(target, root.join(link)).unwrap();
            for opened in roots(&root) {
                assert_eq!(
                    opened.target_of(Path::new(link), &root),
                    leads,
                    "{link} -> {target} ({opened:?})"
                );
            }
        }
    }
}
