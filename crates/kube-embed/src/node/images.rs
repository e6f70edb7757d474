//! The image table: what a container image means on a node that runs plain processes.
//!
//! A process node pulls nothing. Its host says, for each image reference, which environment stands in for the image:
//! where programs are found, what the entrypoint is, and, when the environment has to be made first (a Python
//! environment, say), how. An image that is not in the table ends as a kubelet says it (`ErrImagePull`, then
//! `ImagePullBackOff`), with the remedy in the message.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use futures::future::BoxFuture;

/// What stands in for an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageEnvironment {
    /// Identity for `imageID`; empty means the reference itself.
    pub id: String,
    /// Replaces the image's `ENTRYPOINT`.
    pub entrypoint: Vec<String>,
    /// Replaces the image's `CMD`.
    pub cmd: Vec<String>,
    /// Replaces the image's `ENV`.
    pub env: Vec<(String, String)>,
    /// Directories for `PATH`, before any `PATH` in `env`.
    pub path: Vec<PathBuf>,
    /// Replaces the image's `WORKDIR`; without one a container starts in an empty directory of its own.
    pub working_dir: Option<PathBuf>,
}

impl ImageEnvironment {
    /// An environment of the machine's own programs in the usual directories.
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

/// Progress of a preparation, one sentence at a time; each becomes an event of the pod that waits.
pub type Progress = tokio::sync::mpsc::UnboundedSender<String>;

/// A prepared environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// What stands in for the image.
    pub environment: ImageEnvironment,
    /// What it takes on disk, for the `Pulled` event.
    pub size_bytes: u64,
}

/// An image whose environment must be made before its first use.
pub trait PrepareImage: Send + Sync + 'static {
    /// Makes the environment, or says in one sentence what is wrong and what to do. Called for every container that
    /// is started while [`ImageTable::find`] answers [`Image::Prepare`]: concurrent calls must share the work, and a
    /// call is cancelled by dropping it when its pod is deleted.
    fn prepare(&self, progress: Progress) -> BoxFuture<'static, Result<Prepared, String>>;
}

/// An entry of the table.
#[derive(Clone)]
pub enum Image {
    /// Usable at once.
    Ready(ImageEnvironment),
    /// To be made first.
    Prepare(Arc<dyn PrepareImage>),
}

/// Maps image references to environments.
pub trait ImageTable: Send + Sync + 'static {
    /// The entry for a reference. Asked again for each container, so that an entry may appear or change at any time.
    fn find(&self, reference: &str) -> Option<Image>;

    /// What a user can do about a reference that is not in the table.
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
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an environment that is usable at once.
    #[must_use]
    pub fn with(mut self, reference: impl Into<String>, environment: ImageEnvironment) -> Self {
        self.entries.insert(reference.into(), Image::Ready(environment));
        self
    }

    /// Adds an environment that has to be made first.
    #[must_use]
    pub fn with_preparation(mut self, reference: impl Into<String>, prepare: Arc<dyn PrepareImage>) -> Self {
        self.entries.insert(reference.into(), Image::Prepare(prepare));
        self
    }

    /// Uses this environment for every reference that has no entry of its own.
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

/// A size as `Pulled` events say it.
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
