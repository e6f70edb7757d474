//! What is known about a training.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use legion_api::{
    Connection, ModelTraining, ModelTrainingStatus, Reason, ToolchainIntegration,
    condition::{SUCCEEDED, find},
    run::RunStatus,
    training::ConfigMapSource,
};
use legion_protocol::digest;

use super::kind::{TRAINING, policy};
use crate::run::{inputs::References, kind::RunObject, labels, refusal::quota_request};

/// The input of a decision about a training. It comes from watches, except for the answers to a [`crate::Need`].
/// Absence is data.
///
/// The training must not be older than any version that this process has seen or written: a decision on an outdated
/// status may repeat an action. (An older version causes no lasting damage, see [`crate::Action::CreatePod`].)
#[derive(Debug, Clone)]
pub struct World {
    /// The training.
    pub training: Arc<ModelTraining>,
    /// The ToolchainIntegration `spec.toolchain` in the training's namespace.
    pub toolchain: Option<Arc<ToolchainIntegration>>,
    /// The ToolchainIntegration `spec.toolchain` in the platform's namespace.
    pub platform_toolchain: Option<Arc<ToolchainIntegration>>,
    /// The connections that the spec names ([`connection_names`]), as far as they exist, by name.
    pub connections: BTreeMap<String, Arc<Connection>>,
    /// Every connection of the namespace that is annotated as default output ([`is_default_output`]).
    pub default_outputs: Vec<Arc<Connection>>,
    /// The ConfigMap of a `configMap` source.
    pub config_map: ConfigMapView,
    /// Every pod of the namespace that the training controls (by owner uid), in any phase. Pods with only its label, or
    /// one of its names, may be here too: they are never changed.
    pub pods: Vec<Arc<Pod>>,
    /// The answers to [`crate::Need::Pod`] in this pass: the pod, or `None` when there is none.
    pub probed: BTreeMap<String, Option<Arc<Pod>>>,
    /// The answers to [`crate::Need::Mounts`] in this pass, by the pod's uid: the last message about a volume that
    /// cannot be mounted, or `None` when there is none.
    pub mounts: BTreeMap<String, Option<String>>,
    /// Whether the training was read from the API server in this pass, as [`crate::Need::Object`] asks.
    pub confirmed: bool,
    /// Whether it is the training's turn to ask for room under the quotas of its namespace. It counts only while the
    /// status reports that a quota refuses the pod ([`quota_wait`]).
    pub quota_turn: bool,
}

/// A training whose pod a quota refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaWait {
    /// Since when. The oldest is first in line.
    pub since: Timestamp,
    /// What the pod needs, of which quota. While one pod is refused, others with the same text are refused too.
    pub request: String,
}

/// Returns since when a quota refuses the pod of a training, and what the pod needs. `None` for every other training.
#[must_use]
pub fn quota_wait(training: &ModelTraining) -> Option<QuotaWait> {
    let status = training.status.as_ref()?;
    let condition = find(&status.conditions, SUCCEEDED)?;
    let waiting = status.run.as_ref()?.waiting.as_ref()?;
    (condition.reason == Reason::QuotaExceeded.as_str()).then(|| QuotaWait {
        since: waiting.since.0,
        request: quota_request(&condition.message).unwrap_or_default().to_owned(),
    })
}

impl World {
    /// Returns a world with only the training.
    #[must_use]
    pub fn alone(training: Arc<ModelTraining>) -> Self {
        Self {
            training,
            toolchain: None,
            platform_toolchain: None,
            connections: BTreeMap::new(),
            default_outputs: Vec::new(),
            config_map: ConfigMapView::Absent,
            pods: Vec::new(),
            probed: BTreeMap::new(),
            mounts: BTreeMap::new(),
            confirmed: false,
            quota_turn: true,
        }
    }

    pub(super) fn uid(&self) -> &str {
        self.training.metadata.uid.as_deref().unwrap_or_default()
    }

    pub(super) fn name(&self) -> &str {
        self.training.metadata.name.as_deref().unwrap_or_default()
    }

    pub(super) fn namespace(&self) -> &str {
        self.training.metadata.namespace.as_deref().unwrap_or_default()
    }

    pub(super) fn generation(&self) -> i64 {
        self.training.metadata.generation.unwrap_or_default()
    }

    /// The training as an object that runs.
    pub(super) fn object(&self) -> RunObject<'_> {
        let status = self.training.status.as_ref();
        RunObject {
            kind: &TRAINING,
            namespace: self.namespace(),
            name: self.name(),
            uid: self.uid(),
            generation: self.generation(),
            resource_version: self.training.metadata.resource_version.as_deref(),
            policy: policy(&self.training.spec),
            observed_generation: status.and_then(|status| status.observed_generation),
            conditions: status.map_or(&[], |status| &status.conditions),
            run: self.run(),
            confirmed: self.confirmed,
            quota_turn: self.quota_turn,
        }
    }

    pub(super) fn references(&self) -> References<'_> {
        References {
            namespace: self.namespace(),
            toolchain: self.toolchain.as_deref(),
            platform_toolchain: self.platform_toolchain.as_deref(),
            connections: &self.connections,
            default_outputs: &self.default_outputs,
        }
    }

    pub(super) fn status(&self) -> Cow<'_, ModelTrainingStatus> {
        self.training.status.as_ref().map_or_else(Cow::default, Cow::Borrowed)
    }

    pub(super) fn run(&self) -> Option<&RunStatus> {
        self.training.status.as_ref()?.run.as_ref()
    }

    /// Returns the training's own pods, each once: those in the watch and those that a live GET has found.
    pub(super) fn own_pods(&self) -> impl Iterator<Item = &Arc<Pod>> {
        let found = self
            .probed
            .values()
            .flatten()
            .filter(|found| !self.pods.iter().any(|pod| pod.metadata.uid == found.metadata.uid));
        self.pods
            .iter()
            .chain(found)
            .filter(|pod| labels::is_owned(pod, self.uid()))
    }
}

/// What is known about the ConfigMap of a source. Its metadata is watched. Its content is read when it is needed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ConfigMapView {
    /// There is no ConfigMap of that name, or the source is of another kind.
    #[default]
    Absent,
    /// It exists, and its content was not read.
    Seen {
        /// `metadata.resourceVersion`
        resource_version: String,
    },
    /// Its content was read.
    Read(ConfigMapContent),
    /// Its content cannot be read: the operator is not allowed to, or the API server has failed repeatedly.
    Unreadable {
        /// Whether the operator lacks the permission. That does not pass on its own.
        forbidden: bool,
        /// The message of the API server.
        message: String,
    },
}

/// What a decision needs of a ConfigMap's content. It is small: the driver may cache it by resourceVersion and items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigMapContent {
    /// `metadata.resourceVersion` that was read.
    pub resource_version: String,
    /// [`digest::of_files`] over the paths and contents that `fetch` will see, or the first missing key.
    pub digest: Result<String, MissingKey>,
}

/// A key that `source.configMap.items` names and the ConfigMap lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingKey(pub String);

impl ConfigMapContent {
    /// Reads the content of a ConfigMap.
    #[must_use]
    pub fn of(config_map: &ConfigMap, source: &ConfigMapSource) -> Self {
        let content = |key: &str| {
            let text = config_map
                .data
                .as_ref()
                .and_then(|data| data.get(key))
                .map(String::as_bytes);
            text.or_else(|| {
                config_map
                    .binary_data
                    .as_ref()?
                    .get(key)
                    .map(|bytes| bytes.0.as_slice())
            })
        };
        let digest = if source.items.is_empty() {
            let keys = config_map.data.iter().flat_map(BTreeMap::keys);
            let keys = keys.chain(config_map.binary_data.iter().flat_map(BTreeMap::keys));
            Ok(digest::of_files(
                keys.filter_map(|key| Some((key.as_str(), content(key)?))),
            ))
        } else {
            source
                .items
                .iter()
                .map(|item| {
                    content(&item.key)
                        .map(|bytes| (item.path.as_str(), bytes))
                        .ok_or_else(|| MissingKey(item.key.clone()))
                })
                .collect::<Result<Vec<_>, _>>()
                .map(digest::of_files)
        };
        Self {
            resource_version: config_map.metadata.resource_version.clone().unwrap_or_default(),
            digest,
        }
    }
}

/// Returns the names of the connections in a training's spec.
pub fn connection_names(training: &ModelTraining) -> impl Iterator<Item = &str> {
    let spec = &training.spec;
    let git = spec.source.git.as_ref().and_then(|git| git.connection.as_ref());
    let store = spec.source.object_store.as_ref().map(|store| &store.connection);
    let output = spec.output.as_ref().map(|output| &output.connection);
    git.into_iter()
        .chain(store)
        .chain(spec.data.iter().map(|data| &data.connection))
        .chain(output)
        .map(AsRef::as_ref)
}

/// Returns the name of the ConfigMap with a training's source.
#[must_use]
pub fn config_map_name(training: &ModelTraining) -> Option<&str> {
    training
        .spec
        .source
        .config_map
        .as_ref()
        .map(|source| source.name.as_str())
}

/// Returns whether a connection is annotated as default output of its namespace.
#[must_use]
pub fn is_default_output(connection: &Connection) -> bool {
    let annotations = connection.metadata.annotations.as_ref();
    annotations
        .and_then(|annotations| annotations.get(legion_api::connection::DEFAULT_OUTPUT_ANNOTATION))
        .is_some_and(|value| value == "true")
}

#[cfg(test)]
mod tests {
    use legion_api::training::ConfigMapItem;

    use super::*;

    fn config_map(data: &[(&str, &str)]) -> ConfigMap {
        ConfigMap {
            data: Some(
                data.iter()
                    .map(|(key, text)| ((*key).to_owned(), (*text).to_owned()))
                    .collect(),
            ),
            ..ConfigMap::default()
        }
    }

    #[test]
    fn the_digest_covers_paths_and_contents() {
        let items = |items: &[(&str, &str)]| ConfigMapSource {
            name: "source".parse().unwrap(),
            items: items
                .iter()
                .map(|(key, path)| ConfigMapItem {
                    key: (*key).to_owned(),
                    path: (*path).to_owned(),
                })
                .collect(),
        };
        let map = config_map(&[("a", "1"), ("b", "2")]);
        let all = ConfigMapContent::of(&map, &items(&[])).digest.unwrap();
        assert_eq!(
            all,
            ConfigMapContent::of(&map, &items(&[("b", "b"), ("a", "a")]))
                .digest
                .unwrap()
        );
        assert_ne!(
            all,
            ConfigMapContent::of(&map, &items(&[("a", "a"), ("b", "src/b")]))
                .digest
                .unwrap()
        );
        assert_ne!(
            all,
            ConfigMapContent::of(&config_map(&[("a", "1"), ("b", "3")]), &items(&[]))
                .digest
                .unwrap()
        );
        assert_eq!(
            ConfigMapContent::of(&map, &items(&[("c", "c")])).digest,
            Err(MissingKey("c".into()))
        );
    }
}
