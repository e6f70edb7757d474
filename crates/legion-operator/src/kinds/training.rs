//! `ModelTraining`: what a decision about one is made from.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{ConfigMap, Pod},
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::core::PartialObjectMeta;
use legion_api::{
    Connection, ModelTraining, ModelTrainingSpec, ModelTrainingStatus, ToolchainIntegration, run::RunStatus,
    training::ConfigMapSource,
};
use legion_plan::{
    Need, Outcome, Plan, Settings, StatusPatch, StepResult,
    training::{
        self, ConfigMapContent, ConfigMapView, QuotaWait, World, config_map_name, connection_names, is_default_output,
        labels,
    },
};
use legion_runtime::retry::ErrorClass;

use crate::{
    context::Context,
    key::Key,
    kinds::connection::DEFAULT_OUTPUT,
    names::kind_of,
    reconcile::controller::{Controller, RunHooks, RunMetadata},
    requests::RequestError,
    watch::{cache::Cache, projection::without_managed_fields, references::Reference},
};

without_managed_fields!(ModelTraining, ModelTrainingSpec, ModelTrainingStatus);

pub(crate) struct Trainings {
    platform_namespace: String,
    toolchains: Arc<Cache<ToolchainIntegration>>,
    connections: Arc<Cache<Connection>>,
    /// What was read of ConfigMap sources, by training.
    contents: Mutex<HashMap<Key, (ConfigMapSource, ConfigMapContent)>>,
}

impl Trainings {
    pub(crate) fn new(
        settings: &Settings,
        toolchains: Arc<Cache<ToolchainIntegration>>,
        connections: Arc<Cache<Connection>>,
    ) -> Self {
        Self {
            platform_namespace: settings.platform_namespace.clone(),
            toolchains,
            connections,
            contents: Mutex::default(),
        }
    }

    fn contents(&self) -> std::sync::MutexGuard<'_, HashMap<Key, (ConfigMapSource, ConfigMapContent)>> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what was read of that version of a training's source, if it was read already.
    fn content(&self, training: &Key, source: &ConfigMapSource, version: &str) -> Option<ConfigMapContent> {
        let contents = self.contents();
        let (read, content) = contents.get(training)?;
        (read == source && content.resource_version == version).then(|| content.clone())
    }

    fn config_map_view(&self, context: &Context, key: &Key, training: &ModelTraining) -> ConfigMapView {
        let Some(source) = &training.spec.source.config_map else {
            return ConfigMapView::Absent;
        };
        let Some(seen) = context.config_maps.get(&key.sibling(source.name.as_str())) else {
            return ConfigMapView::Absent;
        };
        let resource_version = seen.metadata.resource_version.clone().unwrap_or_default();
        match self.content(key, source, &resource_version) {
            Some(content) => ConfigMapView::Read(content),
            None => ConfigMapView::Seen { resource_version },
        }
    }
}

impl Controller for Trainings {
    type Object = ModelTraining;
    type World = World;
    type Status = ModelTrainingStatus;

    fn references(&self, key: &Key, training: &ModelTraining) -> BTreeSet<Reference> {
        let toolchain = training.spec.toolchain.as_str();
        let mut all: BTreeSet<Reference> = connection_names(training)
            .map(|name| Reference::object::<Connection>(key.sibling(name)))
            .collect();
        let platform = Key::new(&self.platform_namespace, toolchain);
        all.insert(Reference::object::<ToolchainIntegration>(key.sibling(toolchain)));
        all.insert(Reference::object::<ToolchainIntegration>(platform));
        if let Some(name) = config_map_name(training) {
            all.insert(Reference::object::<ConfigMap>(key.sibling(name)));
        }
        if training.spec.output.is_none() {
            all.insert(Reference::namespace(DEFAULT_OUTPUT, key));
        }
        all
    }

    fn observe(&self, context: &Context, key: &Key, training: Arc<ModelTraining>) -> World {
        let toolchain = training.spec.toolchain.as_str();
        let platform = Key::new(&self.platform_namespace, toolchain);
        let connections: BTreeMap<_, _> = connection_names(&training)
            .filter_map(|name| Some((name.to_owned(), self.connections.get(&key.sibling(name))?)))
            .collect();
        // Only a training without an output needs the search.
        let default_outputs = if training.spec.output.is_none() {
            self.connections.select(&key.namespace, is_default_output)
        } else {
            Vec::new()
        };
        World {
            toolchain: self.toolchains.get(&key.sibling(toolchain)),
            platform_toolchain: self.toolchains.get(&platform),
            connections,
            default_outputs,
            config_map: self.config_map_view(context, key, &training),
            pods: context.pods.of(&Reference::object::<ModelTraining>(key.clone())),
            probed: BTreeMap::new(),
            mounts: BTreeMap::new(),
            confirmed: false,
            quota_turn: context.quotas.is_turn(kind_of::<ModelTraining>(), key),
            training,
        }
    }

    fn decide(&self, world: &World, settings: &Settings, now: Timestamp) -> Plan<ModelTrainingStatus> {
        training::decide(world, settings, now)
    }

    fn settle(
        &self,
        world: &World,
        plan: &Plan<ModelTrainingStatus>,
        outcome: &Outcome,
        now: Timestamp,
    ) -> Option<StatusPatch> {
        training::settle(world, plan, outcome, now)
    }

    fn requeue(&self, plan: &Plan<ModelTrainingStatus>, outcome: &Outcome, now: Timestamp) -> Option<Timestamp> {
        training::requeue(plan, outcome, now)
    }
}

impl RunHooks for Trainings {
    const RUN: Option<RunMetadata> = Some(RunMetadata {
        owner_label: labels::TRAINING,
        gauge: ("trainings", "Trainings, by the reason of the condition Succeeded."),
    });

    fn conditions(training: &ModelTraining) -> &[Condition] {
        training.status.as_ref().map_or(&[][..], |status| &status.conditions)
    }

    fn run_status(training: &ModelTraining) -> Option<&RunStatus> {
        training.status.as_ref()?.run.as_ref()
    }

    fn quota_wait(training: &ModelTraining) -> Option<QuotaWait> {
        training::quota_wait(training)
    }

    async fn read(&self, context: &Context, key: &Key, world: &mut World, need: &Need) -> Result<(), RequestError> {
        match need {
            Need::ConfigMap { name } => {
                let config_map_key = key.sibling(name);
                let found = context.requests.get::<ConfigMap>(&config_map_key).await?;
                let source = world.training.spec.source.config_map.clone();
                world.config_map = match (found, source) {
                    (Some(found), Some(source)) => {
                        let content = ConfigMapContent::of(&found, &source);
                        // The watch may lag behind this read. What was read is what the API server holds.
                        context.config_maps.apply_response(PartialObjectMeta {
                            types: None,
                            metadata: found.metadata,
                            _phantom: std::marker::PhantomData,
                        });
                        self.contents().insert(key.clone(), (source, content.clone()));
                        ConfigMapView::Read(content)
                    }
                    _ => ConfigMapView::Absent,
                };
            }
            Need::Mounts { pod, uid } => {
                let message = context.requests.mount_failure(&key.sibling(pod), uid).await?;
                world.mounts.insert(uid.clone(), message);
            }
            Need::Pod { name } => {
                let found = context.requests.get::<Pod>(&key.sibling(name)).await?;
                world.probed.insert(name.clone(), found.map(Arc::new));
            }
            // The driver reads the object itself.
            Need::Object => {}
        }
        Ok(())
    }

    fn confirm(&self, world: &mut World) {
        world.confirmed = true;
    }

    fn unreadable(&self, world: &mut World, need: &Need, error: &RequestError) -> bool {
        match need {
            Need::ConfigMap { .. } => {
                world.config_map = ConfigMapView::Unreadable {
                    forbidden: error.class == ErrorClass::Forbidden,
                    message: error.message.clone(),
                };
                true
            }
            // The status can report that volumes are not mounted without the cause.
            Need::Mounts { uid, .. } => {
                world.mounts.insert(uid.clone(), None);
                true
            }
            // Everything depends on whether that pod still runs. Nothing can be decided until it is known.
            Need::Pod { .. } | Need::Object => false,
        }
    }

    fn classify_existing(&self, world: &World, wanted: &Pod, found: &Pod) -> StepResult {
        training::classify_existing(world, wanted, found)
    }

    fn add_unwatched(&self, world: &mut World, pod: Box<Pod>) {
        if let Some(name) = pod.metadata.name.clone() {
            world.probed.insert(name, Some(Arc::from(pod)));
        }
    }

    fn has_unwatched(&self, world: &World) -> bool {
        world.probed.values().any(Option::is_some)
    }

    fn deleted(&self, key: &Key) {
        self.contents().remove(key);
    }
}
