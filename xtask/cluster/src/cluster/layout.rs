//! Where the parts of a cluster keep their files, and at which addresses they answer.
//!
//! Every cluster has a network namespace of its own. The addresses are the same in each, and free on any machine.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::tools::hex;

/// The bridge's address: node, API server, cluster DNS, registry and S3 server answer here.
pub const ADDRESS: &str = "10.244.0.1";
/// The pods' network, which the bridge is part of.
pub const PODS: &str = "10.244.0.0/24";
/// The Services' virtual addresses.
pub const SERVICES: &str = "10.96.0.0/16";
/// The Service `kubernetes.default`.
pub const API_SERVICE: &str = "10.96.0.1";
/// The API server's port at [`ADDRESS`].
pub const API_PORT: u16 = 6443;
/// The OCI registry's port at [`ADDRESS`]; it speaks plain HTTP.
pub const REGISTRY_PORT: u16 = 5000;
/// The S3 server's port at [`ADDRESS`]; it speaks plain HTTP.
pub const S3_PORT: u16 = 7070;
/// Access key and secret key of the S3 server: it is reachable from the cluster's own network only.
pub const S3_KEYS: (&str, &str) = ("legion-access", "legion-secret");
/// The only node.
pub const NODE: &str = "node-1";

/// A cluster's directory.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
}

/// What a later command must know of a cluster that is up.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterState {
    /// Whether there is a node.
    pub node: bool,
    /// Whether `up` came to its end.
    pub ready: bool,
}

impl Layout {
    /// The layout of a cluster in this directory, which need not exist.
    ///
    /// # Errors
    /// When the directory cannot be read, or its name has characters that the tools' configuration files would
    /// have to escape.
    pub fn new(directory: &Path) -> anyhow::Result<Self> {
        let root = match fs::canonicalize(directory) {
            Ok(root) => root,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => std::path::absolute(directory)?,
            Err(error) => return Err(error).with_context(|| format!("{} cannot be opened", directory.display())),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "/-_.+".contains(c);
        if !root.to_str().is_some_and(|text| text.chars().all(plain)) {
            bail!(
                "{} has characters besides letters, digits and /-_.+: choose another --dir",
                root.display()
            );
        }
        // Sockets lie below it, and their addresses hold 107 bytes.
        if root.as_os_str().len() > 80 {
            bail!(
                "{} is longer than 80 characters: choose a shorter --dir",
                root.display()
            );
        }
        Ok(Self { root })
    }

    /// The directory itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A file or directory of the cluster.
    #[must_use]
    pub fn join(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// A directory of the cluster, made if it does not exist.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn directory(&self, path: &str) -> anyhow::Result<PathBuf> {
        let path = self.root.join(path);
        fs::create_dir_all(&path).with_context(|| format!("{} cannot be created", path.display()))?;
        Ok(path)
    }

    /// Writes a file of the cluster and gives its path.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) -> anyhow::Result<PathBuf> {
        let path = self.root.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("{} cannot be created", parent.display()))?;
        }
        fs::write(&path, content).with_context(|| format!("{} cannot be written", path.display()))?;
        Ok(path)
    }

    /// The administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.join("kubeconfig")
    }

    /// The directory with kubectl and the other programs.
    #[must_use]
    pub fn programs(&self) -> PathBuf {
        self.join("bin")
    }

    /// A short name for what is known outside of the directory, the same every time: network namespace and cgroups.
    #[must_use]
    pub fn name(&self) -> String {
        let hash = Sha256::digest(self.root.as_os_str().as_encoded_bytes());
        format!("legion-{}", hex(&hash[..4]))
    }

    /// The state, if there is a cluster.
    ///
    /// # Errors
    /// When the file is there and cannot be understood.
    pub fn state(&self) -> anyhow::Result<Option<ClusterState>> {
        let path = self.join("state.json");
        match fs::read(&path) {
            Ok(content) => serde_json::from_slice(&content)
                .map(Some)
                .with_context(|| format!("{} is not a cluster's state: delete the directory", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("{} cannot be read", path.display())),
        }
    }

    /// Writes the state.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_state(&self, state: &ClusterState) -> anyhow::Result<()> {
        self.write("state.json", serde_json::to_vec_pretty(state)?).map(drop)
    }
}
