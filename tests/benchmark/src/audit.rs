//! Requests as the API server's audit log has them.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Seek as _, SeekFrom},
    path::PathBuf,
};

use anyhow::Context as _;
use jiff::Timestamp;
use serde::Deserialize;

/// A request that was answered.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    stage: String,
    pub verb: String,
    #[serde(default)]
    pub user_agent: String,
    #[serde(default)]
    pub object_ref: Option<Object>,
    pub request_received_timestamp: Timestamp,
    pub stage_timestamp: Timestamp,
}

/// What it was about.
#[derive(Debug, Default, Deserialize)]
pub struct Object {
    #[serde(default)]
    pub resource: String,
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub namespace: String,
    #[serde(default)]
    pub subresource: String,
}

impl Request {
    /// Whether it changes something.
    pub fn is_write(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch")
    }

    /// Whether it is about this resource, not a part of it.
    pub fn is_about(&self, resource: &str) -> bool {
        self.object_ref
            .as_ref()
            .is_some_and(|object| object.resource == resource && object.subresource.is_empty())
    }
}

/// The log, from a certain place on.
pub struct Log {
    path: PathBuf,
    from: u64,
}

impl Log {
    /// From now on.
    pub fn from_now(path: PathBuf) -> anyhow::Result<Self> {
        let from = path
            .metadata()
            .with_context(|| format!("{} cannot be read", path.display()))?
            .len();
        Ok(Self { path, from })
    }

    /// What was answered since, about objects of a namespace.
    pub fn requests(&self, namespace: &str) -> anyhow::Result<Vec<Request>> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.from))?;
        let mut requests = Vec::new();
        for line in BufReader::new(file).lines() {
            let line = line?;
            if !line.contains(namespace) {
                continue;
            }
            let request: Request = serde_json::from_str(&line)?;
            let of_namespace = request
                .object_ref
                .as_ref()
                .is_some_and(|object| object.namespace == namespace);
            if request.stage == "ResponseComplete" && of_namespace {
                requests.push(request);
            }
        }
        Ok(requests)
    }
}
