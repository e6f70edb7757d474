//! Volumes as directories.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use crate::node::runtime::{Volume, VolumeContent, VolumeFile};

/// Creates a volume and returns its path.
pub(super) fn make(root: &Path, claims: &Path, volume: &Volume) -> Result<PathBuf, String> {
    let dir = root.join(&volume.name);
    let failed = |error: io::Error| format!("MountVolume.SetUp failed for volume {:?} : {error}", volume.name);
    match &volume.content {
        VolumeContent::Empty { .. } => {
            fs::create_dir_all(&dir).map_err(failed)?;
            Ok(dir)
        }
        VolumeContent::Files(files) => {
            fs::create_dir_all(&dir).map_err(failed)?;
            fs::set_permissions(&dir, Permissions::from_mode(0o700)).map_err(failed)?;
            for file in files {
                write(&dir, file).map_err(failed)?;
            }
            Ok(dir)
        }
        VolumeContent::Host { path, kind } => {
            host(path, kind).map_err(|why| format!("MountVolume.SetUp failed for volume {:?} : {why}", volume.name))?;
            Ok(path.clone())
        }
        VolumeContent::Claim { uid } => {
            let dir = claims.join(uid);
            fs::create_dir_all(&dir).map_err(failed)?;
            Ok(dir)
        }
    }
}

/// Writes a file atomically, because a container may be reading the previous one.
fn write(dir: &Path, file: &VolumeFile) -> io::Result<()> {
    let path = dir.join(&file.path);
    let parent = path.parent().unwrap_or(dir);
    fs::create_dir_all(parent)?;
    let mut temporary = tempfile(parent)?;
    io::Write::write_all(&mut temporary.1, &file.data)?;
    temporary.1.set_permissions(Permissions::from_mode(file.mode & 0o777))?;
    fs::rename(temporary.0, path)
}

fn tempfile(parent: &Path) -> io::Result<(PathBuf, fs::File)> {
    use std::os::unix::fs::OpenOptionsExt;
    let path = parent.join("..writing");
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    Ok((path, file))
}

fn host(path: &Path, kind: &str) -> Result<(), String> {
    let metadata = fs::metadata(path);
    let checked = |ok: bool, what: &str| {
        if ok {
            Ok(())
        } else {
            Err(format!(
                "hostPath type check failed: {} is not a {what}",
                path.display()
            ))
        }
    };
    match kind {
        "" => Ok(()),
        "Directory" => checked(metadata.is_ok_and(|m| m.is_dir()), "directory"),
        "File" => checked(metadata.is_ok_and(|m| m.is_file()), "file"),
        "DirectoryOrCreate" => {
            fs::create_dir_all(path).map_err(|e| format!("hostPath {} cannot be created: {e}", path.display()))
        }
        "FileOrCreate" => fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .map(|_| ())
            .map_err(|e| format!("hostPath {} cannot be created: {e}", path.display())),
        other => Err(format!(
            "hostPath type {other:?} is not offered by this node; use Directory, DirectoryOrCreate, File or FileOrCreate"
        )),
    }
}

/// Creates the parent directories of mount paths below `root`, with a link for each mount. Returns the directory for
/// each parent. Top-level directories (`/dev` above `/dev/shm`) belong to the machine and are omitted.
pub(super) fn parents(root: &Path, mounts: &[(String, String)]) -> io::Result<BTreeMap<String, String>> {
    let mut parents = BTreeMap::new();
    for (path, real) in mounts {
        let path = Path::new(path.trim_end_matches('/'));
        let (Some(parent), Ok(relative)) = (path.parent(), path.strip_prefix("/")) else {
            continue;
        };
        if parent.components().count() < 3 || relative.components().any(|c| !matches!(c, Component::Normal(_))) {
            continue;
        }
        let link = root.join(relative);
        let directory = link.parent().unwrap_or(root);
        fs::create_dir_all(directory)?;
        match std::os::unix::fs::symlink(real, &link) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        parents.insert(
            parent.to_string_lossy().into_owned(),
            directory.to_string_lossy().into_owned(),
        );
    }
    Ok(parents)
}

/// Returns the directory (or file) of a mount with a `subPath`. A missing directory is created. The path must not
/// lead outside the volume, neither by `..` nor by a link.
pub(super) fn below(volume: &Path, sub_path: &str) -> Result<PathBuf, String> {
    if sub_path.is_empty() {
        return Ok(volume.to_owned());
    }
    let relative = Path::new(sub_path);
    if !relative
        .components()
        .all(|c| matches!(c, Component::Normal(_) | Component::CurDir))
    {
        return Err(format!(
            "subPath {sub_path:?} must be relative and must not contain '..'"
        ));
    }
    let path = volume.join(relative);
    let inside = || -> io::Result<bool> {
        // The part that already exists is checked before anything is created below it.
        let mut existing = path.as_path();
        while let Err(error) = fs::symlink_metadata(existing) {
            match existing.parent() {
                Some(parent) if error.kind() == io::ErrorKind::NotFound => existing = parent,
                _ => return Err(error),
            }
        }
        let real = volume.canonicalize()?;
        if !existing.canonicalize()?.starts_with(&real) {
            return Ok(false);
        }
        if !path.exists() {
            fs::create_dir_all(&path)?;
        }
        Ok(true)
    };
    match inside() {
        Ok(true) => Ok(path),
        Ok(false) => Err(format!("subPath {sub_path:?} leads out of its volume")),
        Err(error) => Err(format!("subPath {sub_path:?} cannot be prepared: {error}")),
    }
}

/// Returns the bytes on disk below a directory. Files that disappear during the scan count as zero.
pub(super) fn usage(dir: &Path) -> u64 {
    let mut total = 0;
    let mut next = vec![dir.to_owned()];
    while let Some(dir) = next.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            total += metadata.blocks() * 512;
            if metadata.is_dir() {
                next.push(entry.path());
            }
        }
    }
    total
}

/// Removes a directory tree, even if its owner made directories read-only.
pub(super) fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => return other,
    }
    let mut next = vec![dir.to_owned()];
    while let Some(dir) = next.pop() {
        fs::set_permissions(&dir, Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(&dir)?.flatten() {
            if entry.file_type()?.is_dir() {
                next.push(entry.path());
            }
        }
    }
    fs::remove_dir_all(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_of_mounts_hold_a_link_for_each_and_the_machines_own_directories_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let pair = |path: &str| (path.to_owned(), dir.path().join("real").to_string_lossy().into_owned());
        fs::create_dir(dir.path().join("real")).unwrap();
        fs::write(dir.path().join("real/f"), "x").unwrap();
        let mounts = [
            pair("/mnt/stores/a"),
            pair("/mnt/stores/b/"),
            pair("/dev/shm"),
            pair("/mnt/../etc/x"),
        ];
        let parents = parents(&dir.path().join("root"), &mounts).unwrap();
        let stores = dir.path().join("root/mnt/stores");
        assert_eq!(
            parents,
            [("/mnt/stores".to_owned(), stores.to_string_lossy().into_owned())].into()
        );
        assert_eq!(fs::read_to_string(stores.join("b/f")).unwrap(), "x");
        assert!(!dir.path().join("root/dev").exists());
    }

    #[test]
    fn a_sub_path_stays_in_its_volume() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("volume");
        fs::create_dir(&volume).unwrap();
        std::os::unix::fs::symlink("/", volume.join("out")).unwrap();
        assert_eq!(below(&volume, "").unwrap(), volume);
        assert!(below(&volume, "a/b").unwrap().is_dir());
        for path in ["../x", "/etc", "a/../../x", "out/etc", "out"] {
            assert!(below(&volume, path).is_err(), "{path}");
        }
        assert!(!Path::new("/etc/a").exists());
    }

    #[test]
    fn files_have_their_modes_and_are_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        for data in ["one", "two"] {
            let file = VolumeFile {
                path: "d/key".into(),
                data: data.into(),
                mode: 0o400,
            };
            let volume = Volume {
                name: "v".into(),
                content: VolumeContent::Files(vec![file]),
            };
            let made = make(dir.path(), dir.path(), &volume).unwrap();
            assert_eq!(fs::read_to_string(made.join("d/key")).unwrap(), data);
            assert_eq!(fs::metadata(made.join("d/key")).unwrap().mode() & 0o777, 0o400);
        }
    }

    #[test]
    fn host_paths_are_checked_by_type() {
        let dir = tempfile::tempdir().unwrap();
        let (file, missing) = (dir.path().join("f"), dir.path().join("m"));
        fs::write(&file, "").unwrap();
        assert!(host(dir.path(), "Directory").is_ok() && host(&file, "File").is_ok() && host(&missing, "").is_ok());
        assert!(host(&file, "Directory").unwrap_err().contains("is not a directory"));
        assert!(host(&missing, "Directory").is_err());
        assert!(host(&missing, "Socket").unwrap_err().contains("\"Socket\""));
        assert!(host(&missing, "DirectoryOrCreate").is_ok() && missing.is_dir());
    }
}
