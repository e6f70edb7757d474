//! Objects on disk: a redb file with one writer thread.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};
use serde_json::Value;

use super::object::{Object, ObjectKey, WatchEventType};

const FILE: &str = "objects.redb";
/// (collection, namespace, name) -> the object's JSON.
const OBJECTS: TableDefinition<'_, (&str, &str, &str), &[u8]> = TableDefinition::new("objects");
/// `format`, `uid`, `version`.
const META: TableDefinition<'_, &str, &str> = TableDefinition::new("meta");
const FORMAT: &str = "1";
/// The maximum number of writes in a transaction. It bounds the wait of the first write.
const GROUP: usize = 1024;

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process uses it.
    #[error("{} is in use by another process: stop that process, or use another directory", .0.display())]
    InUse(PathBuf),
    /// The file system returned an error.
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// The error of the file system.
        source: std::io::Error,
    },
    /// The content of the file is invalid.
    #[error("{} cannot be read: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// The content of an opened store.
pub(super) struct Opened {
    pub(super) database: Database,
    pub(super) uid: String,
    pub(super) version: u64,
    pub(super) objects: Vec<(Arc<str>, Object)>,
}

pub(super) fn open(directory: &Path) -> Result<Opened, OpenError> {
    let path = directory.join(FILE);
    std::fs::create_dir_all(directory).map_err(|source| OpenError::Io {
        path: directory.to_owned(),
        source,
    })?;
    let database = Database::create(&path).map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => OpenError::InUse(directory.to_owned()),
        other => OpenError::Damaged {
            path: path.clone(),
            reason: other.to_string(),
        },
    })?;
    let (uid, version, objects) = load(&database).map_err(|reason| OpenError::Damaged {
        path: path.clone(),
        reason: reason.to_string(),
    })?;
    Ok(Opened {
        database,
        uid,
        version,
        objects,
    })
}

type Loaded = (String, u64, Vec<(Arc<str>, Object)>);

fn load(database: &Database) -> Result<Loaded, Box<dyn std::error::Error>> {
    let transaction = database.begin_write()?;
    {
        let mut meta = transaction.open_table(META)?;
        transaction.open_table(OBJECTS)?;
        if meta.get("format")?.is_none() {
            meta.insert("format", FORMAT)?;
            meta.insert("uid", uuid::Uuid::new_v4().to_string().as_str())?;
            meta.insert("version", "1")?;
        }
    }
    transaction.commit()?;

    let transaction = database.begin_read()?;
    let meta = transaction.open_table(META)?;
    let text = |key: &str| -> Result<String, Box<dyn std::error::Error>> {
        Ok(meta
            .get(key)?
            .ok_or_else(|| format!("no {key} in it"))?
            .value()
            .to_owned())
    };
    let format = text("format")?;
    if format != FORMAT {
        return Err(format!("it has format {format}, this version reads format {FORMAT}").into());
    }
    let version: u64 = text("version")?.parse()?;
    let mut objects = Vec::new();
    let mut last: Option<Arc<str>> = None;
    for entry in transaction.open_table(OBJECTS)?.iter()? {
        let (key, bytes) = entry?;
        let (collection, namespace, name) = key.value();
        let collection = match last.take() {
            Some(same) if &*same == collection => same,
            _ => Arc::from(collection),
        };
        last = Some(Arc::clone(&collection));
        let value: Value = serde_json::from_slice(bytes.value())?;
        let version = value
            .pointer("/metadata/resourceVersion")
            .and_then(Value::as_str)
            .ok_or_else(|| format!("{collection} {namespace}/{name} has no resourceVersion"))?
            .parse()?;
        objects.push((collection, Object::new(ObjectKey::new(namespace, name), version, value)));
    }
    Ok((text("uid")?, version, objects))
}

/// A write on its way to the disk.
pub(super) struct Write {
    pub(super) collection: Arc<str>,
    pub(super) kind: WatchEventType,
    pub(super) object: Arc<Object>,
}

/// The result of a durable transaction.
pub(super) struct Synced {
    pub(super) version: u64,
    pub(super) collections: Vec<Arc<str>>,
}

/// The thread that owns the file.
#[derive(Debug)]
pub(super) struct Writer {
    queue: Mutex<Option<Sender<Write>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    pub(super) fn start(database: Database, report: impl Fn(Result<Synced, String>) + Send + 'static) -> Self {
        let (queue, writes) = channel();
        let thread = std::thread::spawn(move || run(&database, &writes, report));
        Self {
            queue: Mutex::new(Some(queue)),
            thread: Mutex::new(Some(thread)),
        }
    }

    pub(super) fn send(&self, write: Write) {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        // If the thread has ended, it has reported the reason, and every barrier fails with that reason.
        if let Some(Err(lost)) = queue.as_ref().map(|q| q.send(write)) {
            tracing::error!(
                version = lost.0.object.version(),
                "a write arrived after the storage had failed"
            );
        }
    }

    /// Lets the thread finish the queued writes, and closes the file.
    pub(super) async fn stop(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && tokio::task::spawn_blocking(move || thread.join()).await.is_err()
        {
            tracing::error!("the storage thread ended abnormally");
        }
    }
}

fn run(database: &Database, writes: &Receiver<Write>, report: impl Fn(Result<Synced, String>)) {
    while let Ok(first) = writes.recv() {
        let mut group = vec![first];
        while group.len() < GROUP
            && let Ok(next) = writes.try_recv()
        {
            group.push(next);
        }
        match write(database, &group) {
            Ok(synced) => report(Ok(synced)),
            Err(error) => return report(Err(error.to_string())),
        }
    }
}

fn write(database: &Database, group: &[Write]) -> Result<Synced, redb::Error> {
    let mut synced = Synced {
        version: 0,
        collections: Vec::new(),
    };
    let transaction = database.begin_write()?;
    {
        let mut objects = transaction.open_table(OBJECTS)?;
        for Write {
            collection,
            kind,
            object,
        } in group
        {
            let key = object.key();
            let id = (&**collection, key.namespace.as_str(), key.name.as_str());
            if *kind == WatchEventType::Deleted {
                objects.remove(id)?;
            } else {
                objects.insert(id, object.bytes().as_ref())?;
            }
            synced.version = object.version();
            if !synced.collections.contains(collection) {
                synced.collections.push(Arc::clone(collection));
            }
        }
        transaction
            .open_table(META)?
            .insert("version", synced.version.to_string().as_str())?;
    }
    transaction.commit()?;
    Ok(synced)
}
