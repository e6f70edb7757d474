//! The output store: a directory or a bucket, behind the few operations that publishing needs.

mod create;
mod directory;
pub(crate) mod runtime;
pub(crate) mod s3;

use std::io::Write;

use directory::Directory;
use legion_protocol::digest;
use legion_protocol::reason::{StepError, StepReason};
use legion_protocol::task::{OutputTask, WireStore};
use s3::Bucket;
use sha2::{Digest as _, Sha256};

pub(crate) use self::create::{Created, FIELD};
use crate::error::Result;
use crate::fault::Side;
use crate::paths;
use crate::secrets::Secret;

/// The slot of the output's Secret and volume.
pub(crate) const SLOT: &str = "output";
/// The output store. Its errors name the connection, because users can change it.
#[derive(Debug)]
pub(crate) struct Output {
    connection: String,
    backend: OutputBackend,
}

#[derive(Debug)]
enum OutputBackend {
    /// A mounted volume or a directory of the node.
    Directory(Directory),
    /// A bucket.
    Bucket(Bucket),
}

/// An upload in progress, with its digest and size so far. Dropping it discards the uploaded parts.
pub(crate) struct Upload<'a> {
    output: &'a Output,
    backend: UploadBackend<'a>,
    hash: Sha256,
    bytes: u64,
}

enum UploadBackend<'a> {
    File(directory::PendingFile),
    Object(s3::PendingObject<'a>),
}

/// Digest and size of a stored object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredObject {
    pub(crate) digest: String,
    pub(crate) bytes: u64,
}

impl Output {
    /// Opens the store of a task. Sends no request.
    pub(crate) fn open(task: &OutputTask) -> Result<Self> {
        let backend = match &task.store {
            WireStore::S3 { secret, .. } => OutputBackend::Bucket(Bucket::open(
                &task.store,
                Secret::of(secret, SLOT, FIELD)?.as_ref(),
                Side::Output,
            )?),
            WireStore::Volume { path } => OutputBackend::Directory(Directory::new(
                paths::storage(SLOT)?.join(paths::relative(path, FIELD)?),
                &task.uri,
            )),
            WireStore::Http { .. } => {
                return Err(StepError::new(
                    StepReason::OutputNotWritable,
                    format!(
                        "the connection {:?} has the type http, which is read-only",
                        task.connection
                    ),
                )
                .field(FIELD)
                .remedy("use a connection of type s3, pvc or local for spec.output"));
            }
        };
        Ok(Self {
            connection: task.connection.clone(),
            backend,
        })
    }

    /// Adds the name of the connection to an error.
    fn named(&self, error: StepError) -> StepError {
        StepError {
            message: format!("the connection {:?}: {}", self.connection, error.message),
            ..error
        }
    }

    /// Checks write access by writing one object.
    pub(crate) fn probe(&self, path: &str) -> Result<()> {
        paths::relative(path, FIELD)?;
        match &self.backend {
            OutputBackend::Directory(directory) => directory.probe(path),
            OutputBackend::Bucket(bucket) => bucket.probe(path),
        }
        .map_err(|e| self.named(e))
    }

    /// Starts an upload. When it finishes, it replaces an object of the same name. `estimate` is its approximate size.
    pub(crate) fn upload(&self, path: &str, estimate: u64) -> Result<Upload<'_>> {
        paths::relative(path, FIELD)?;
        let backend = match &self.backend {
            OutputBackend::Directory(directory) => {
                UploadBackend::File(directory.start(path).map_err(|e| self.named(e))?)
            }
            OutputBackend::Bucket(bucket) => UploadBackend::Object(bucket.start(path, estimate)),
        };
        Ok(Upload {
            output: self,
            backend,
            hash: Sha256::new(),
            bytes: 0,
        })
    }

    /// Waits until complete objects next to `path` survive a crash of the store.
    pub(crate) fn sync(&self, path: &str) -> Result<()> {
        match &self.backend {
            OutputBackend::Directory(directory) => directory.sync(path).map_err(|e| self.named(e)),
            // An object is durable when the store has answered its upload.
            OutputBackend::Bucket(_) => Ok(()),
        }
    }

    /// Creates a small object unless one of the same name exists.
    pub(crate) fn create(&self, path: &str, bytes: &[u8]) -> Result<Created> {
        paths::relative(path, FIELD)?;
        match &self.backend {
            OutputBackend::Directory(directory) => directory.create(path, bytes),
            OutputBackend::Bucket(bucket) => bucket.create(path, bytes),
        }
        .map_err(|e| self.named(e))
    }

    /// Reads a small object. Returns `None` if it does not exist.
    pub(crate) fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        paths::relative(path, FIELD)?;
        match &self.backend {
            OutputBackend::Directory(directory) => directory.read(path, limit),
            OutputBackend::Bucket(bucket) => bucket.read(path, limit),
        }
        .map_err(|e| self.named(e))
    }

    /// Returns the size of an object, or `None` if it does not exist.
    pub(crate) fn size(&self, path: &str) -> Result<Option<u64>> {
        paths::relative(path, FIELD)?;
        match &self.backend {
            OutputBackend::Directory(directory) => directory.size(path),
            OutputBackend::Bucket(bucket) => bucket.size(path),
        }
        .map_err(|e| self.named(e))
    }
}

impl Upload<'_> {
    /// Completes the upload. The object appears under its name now.
    pub(crate) fn finish(self) -> Result<StoredObject> {
        match self.backend {
            UploadBackend::File(pending) => pending.finish(),
            UploadBackend::Object(pending) => pending.finish(),
        }
        .map_err(|e| self.output.named(e))?;
        Ok(StoredObject {
            digest: digest::render(self.hash),
            bytes: self.bytes,
        })
    }
}

impl Write for Upload<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        crate::terminate::check().map_err(std::io::Error::other)?;
        match &mut self.backend {
            UploadBackend::File(pending) => pending.write(bytes),
            UploadBackend::Object(pending) => pending.write(bytes),
        }
        .map_err(|e| std::io::Error::other(self.output.named(e)))?;
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
