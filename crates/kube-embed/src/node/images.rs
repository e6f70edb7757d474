//! The image table: the meaning of a container image on a node that runs plain processes.
//!
//! A process node pulls no images. Its host defines an environment for each image reference: the program directories,
//! the entrypoint and, if the environment must be created first (such as a Python environment), how to create it. An
//! image without an entry is reported as a kubelet does (`ErrImagePull`, then `ImagePullBackOff`), with the remedy in
//! the message.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use futures::future::BoxFuture;

/// The environment that replaces an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageEnvironment {
    /// Identity for `imageID`. If empty, the reference is used.
    pub id: String,
    /// Replaces the image's `ENTRYPOINT`.
    pub entrypoint: Vec<String>,
    /// Replaces the image's `CMD`.
    pub cmd: Vec<String>,
    /// Replaces the image's `ENV`.
    pub env: Vec<(String, String)>,
    /// Directories for `PATH`. They precede any `PATH` in `env`.
    pub path: Vec<PathBuf>,
    /// Replaces the image's `WORKDIR`. Without it, a container starts in an empty directory of its own.
    pub working_dir: Option<PathBuf>,
}

impl ImageEnvironment {
    /// Returns an environment with the machine's own programs in the usual directories.
    pub fn system() -> Self {
        Self {
            path: [
                "/usr/local/sbin",
                "/usr/local/bin",
                "/usr/sbin",
                "/usr/bin",
                "/sbin",
                "/bin",
            ]
            .map(PathBuf::from)
            .to_vec(),
            ..Self::default()
        }
    }
}

/// Progress of a preparation, one sentence per message. Each becomes an event of the waiting pod. Without a message,
/// nothing had to be created.
pub type Progress = tokio::sync::mpsc::UnboundedSender<String>;

/// A prepared environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// The environment that replaces the image.
    pub environment: ImageEnvironment,
    /// Size on disk in bytes, for the `Pulled` event.
    pub size_bytes: u64,
}

/// An image whose environment must be created before its first use.
pub trait PrepareImage: Send + Sync + 'static {
    /// Creates the environment. The error is one sentence with the problem and the fix. Called for every container
    /// that starts while [`ImageTable::find`] returns [`Image::Prepare`], so concurrent calls must share the work. A
    /// call is canceled by dropping it when its pod is deleted.
    fn prepare(&self, progress: Progress) -> BoxFuture<'static, Result<Prepared, String>>;
}

/// An entry of the table.
#[derive(Clone)]
pub enum Image {
    /// Ready to use.
    Ready(ImageEnvironment),
    /// Must be created first.
    Prepare(Arc<dyn PrepareImage>),
}

/// Maps image references to environments.
pub trait ImageTable: Send + Sync + 'static {
    /// Returns the entry for a reference. It is called for each container, so an entry may appear or change at any
    /// time.
    fn find(&self, reference: &str) -> Option<Image>;

    /// Returns the remedy for a reference without an entry.
    fn remedy(&self, reference: &str) -> String {
        format!("add {reference:?} to this node's image table, or run the pod on a cluster")
    }
}

/// A table with fixed contents.
#[derive(Clone, Default)]
pub struct StaticImages {
    entries: BTreeMap<String, Image>,
    fallback: Option<ImageEnvironment>,
}

impl StaticImages {
    /// Creates an empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an environment that is ready to use.
    #[must_use]
    pub fn with(mut self, reference: impl Into<String>, environment: ImageEnvironment) -> Self {
        self.entries.insert(reference.into(), Image::Ready(environment));
        self
    }

    /// Adds an environment that must be created first.
    #[must_use]
    pub fn with_preparation(mut self, reference: impl Into<String>, prepare: Arc<dyn PrepareImage>) -> Self {
        self.entries.insert(reference.into(), Image::Prepare(prepare));
        self
    }

    /// Uses this environment for every reference without an entry.
    #[must_use]
    pub fn otherwise(mut self, environment: ImageEnvironment) -> Self {
        self.fallback = Some(environment);
        self
    }
}

impl ImageTable for StaticImages {
    fn find(&self, reference: &str) -> Option<Image> {
        self.entries
            .get(reference)
            .cloned()
            .or_else(|| self.fallback.clone().map(Image::Ready))
    }
}

/// Formats a size as in `Pulled` events.
pub(crate) fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["B", "KiB", "MiB", "GiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{bytes} B")
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}
