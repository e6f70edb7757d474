//! The three kinds: where each finds what its decisions are made from.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::core::PartialObjectMeta;
use legion_api::{
    Connection, ConnectionStatus, ModelTraining, ModelTrainingStatus, ToolchainIntegration, ToolchainIntegrationStatus,
};
use legion_plan::{
    Need, Outcome, Plan, Settings, StatusPatch, StepResult, connection, toolchain,
    training::{self, ConfigMapContent, ConfigMapView, connection_names, is_default_output},
};
use legion_runtime::retry::Class;

use crate::{cache::Cache, calls::CallError, key::Key, kind::Kind, queue::Queue, shared::Shared};

/// ToolchainIntegration.
pub struct Toolchains;

impl Kind for Toolchains {
    type Object = ToolchainIntegration;
    type World = toolchain::World;
    type Status = ToolchainIntegrationStatus;

    const NAME: &'static str = "ToolchainIntegration";

    fn cache(shared: &Shared) -> &Cache<ToolchainIntegration> {
        &shared.toolchains
    }

    fn queue(shared: &Shared) -> &Queue {
        &shared.queues.toolchains
    }

    fn observe(_: &Shared, _: &Key, toolchain: Arc<ToolchainIntegration>) -> toolchain::World {
        toolchain::World { toolchain }
    }

    fn decide(world: &toolchain::World, settings: &Settings, now: Timestamp) -> Plan<ToolchainIntegrationStatus> {
        toolchain::decide(world, settings, now)
    }

    fn settle(
        world: &toolchain::World,
        plan: &Plan<ToolchainIntegrationStatus>,
        outcome: &Outcome,
        now: Timestamp,
    ) -> Option<StatusPatch> {
        toolchain::settle(world, plan, outcome, now)
    }

    fn requeue(plan: &Plan<ToolchainIntegrationStatus>, outcome: &Outcome, now: Timestamp) -> Option<Timestamp> {
        toolchain::requeue(plan, outcome, now)
    }
}

/// Connection.
pub struct Connections;

impl Kind for Connections {
    type Object = Connection;
    type World = connection::World;
    type Status = ConnectionStatus;

    const NAME: &'static str = "Connection";

    fn cache(shared: &Shared) -> &Cache<Connection> {
        &shared.connections
    }

    fn queue(shared: &Shared) -> &Queue {
        &shared.queues.connections
    }

    fn observe(_: &Shared, _: &Key, connection: Arc<Connection>) -> connection::World {
        connection::World { connection }
    }

    fn decide(world: &connection::World, settings: &Settings, now: Timestamp) -> Plan<ConnectionStatus> {
        connection::decide(world, settings, now)
    }

    fn settle(
        world: &connection::World,
        plan: &Plan<ConnectionStatus>,
        outcome: &Outcome,
        now: Timestamp,
    ) -> Option<StatusPatch> {
        connection::settle(world, plan, outcome, now)
    }

    fn requeue(plan: &Plan<ConnectionStatus>, outcome: &Outcome, now: Timestamp) -> Option<Timestamp> {
        connection::requeue(plan, outcome, now)
    }
}

/// ModelTraining.
pub struct Trainings;

impl Kind for Trainings {
    type Object = ModelTraining;
    type World = training::World;
    type Status = ModelTrainingStatus;

    const NAME: &'static str = "ModelTraining";
    const IS_RUN: bool = true;

    fn cache(shared: &Shared) -> &Cache<ModelTraining> {
        &shared.trainings
    }

    fn queue(shared: &Shared) -> &Queue {
        &shared.queues.trainings
    }

    fn observe(shared: &Shared, key: &Key, training: Arc<ModelTraining>) -> training::World {
        let toolchain = training.spec.toolchain.as_str();
        let platform = Key::new(&shared.settings.platform_namespace, toolchain);
        let connections: BTreeMap<_, _> = connection_names(&training)
            .filter_map(|name| Some((name.to_owned(), shared.connections.get(&key.sibling(name))?)))
            .collect();
        // Only a training without an output needs the search.
        let default_outputs = if training.spec.output.is_none() {
            shared.connections.select(&key.namespace, is_default_output)
        } else {
            Vec::new()
        };
        training::World {
            toolchain: shared.toolchains.get(&key.sibling(toolchain)),
            platform_toolchain: shared.toolchains.get(&platform),
            connections,
            default_outputs,
            config_map: config_map_view(shared, key, &training),
            pods: shared
                .pods_of
                .of(key)
                .iter()
                .filter_map(|pod| shared.pods.get(pod))
                .collect(),
            probed: BTreeMap::new(),
            mounts: BTreeMap::new(),
            training,
        }
    }

    async fn read(shared: &Shared, key: &Key, world: &mut training::World, need: &Need) -> Result<(), CallError> {
        match need {
            Need::ConfigMap { name } => {
                let config_map_key = key.sibling(name);
                let found = shared.calls.get::<ConfigMap>(&config_map_key).await?;
                let source = world.training.spec.source.config_map.clone();
                world.config_map = match (found, source) {
                    (Some(found), Some(source)) => {
                        let content = ConfigMapContent::of(&found, &source);
                        // The watch may lag behind this read; what was read is what is there.
                        shared.config_maps.learn(PartialObjectMeta {
                            types: None,
                            metadata: found.metadata,
                            _phantom: std::marker::PhantomData,
                        });
                        shared.keep_content(key.clone(), source, content.clone());
                        ConfigMapView::Read(content)
                    }
                    _ => ConfigMapView::Absent,
                };
            }
            Need::Mounts { pod, uid } => {
                let word = shared.calls.mount_failure(&key.sibling(pod), uid).await?;
                world.mounts.insert(uid.clone(), word);
            }
            Need::Pod { name } => {
                let found = shared.calls.get::<Pod>(&key.sibling(name)).await?;
                world.probed.insert(name.clone(), found.map(Arc::new));
            }
        }
        Ok(())
    }

    fn unreadable(world: &mut training::World, need: &Need, error: &CallError) -> bool {
        match need {
            Need::ConfigMap { .. } => {
                world.config_map = ConfigMapView::Unreadable {
                    forbidden: error.class == Class::Forbidden,
                    message: error.message.clone(),
                };
                true
            }
            // It can be said without the cause.
            Need::Mounts { uid, .. } => {
                world.mounts.insert(uid.clone(), None);
                true
            }
            // Whether that pod still runs decides everything: nothing can be said until it is known.
            Need::Pod { .. } => false,
        }
    }

    fn decide(world: &training::World, settings: &Settings, now: Timestamp) -> Plan<ModelTrainingStatus> {
        training::decide(world, settings, now)
    }

    fn judge(world: &training::World, wanted: &Pod, found: &Pod) -> StepResult {
        training::judge_existing(world, wanted, found)
    }

    fn is_unwatched(world: &training::World) -> bool {
        world.probed.values().any(Option::is_some)
    }

    fn found(world: &mut training::World, pod: Box<Pod>) {
        if let Some(name) = pod.metadata.name.clone() {
            world.probed.insert(name, Some(Arc::from(pod)));
        }
    }

    fn settle(
        world: &training::World,
        plan: &Plan<ModelTrainingStatus>,
        outcome: &Outcome,
        now: Timestamp,
    ) -> Option<StatusPatch> {
        training::settle(world, plan, outcome, now)
    }

    fn written(shared: &Shared, before: &ModelTraining, after: &ModelTraining) {
        shared.metrics.status_written(before, after);
    }

    fn requeue(plan: &Plan<ModelTrainingStatus>, outcome: &Outcome, now: Timestamp) -> Option<Timestamp> {
        training::requeue(plan, outcome, now)
    }

    fn gone(shared: &Shared, key: &Key) {
        shared.drop_content(key);
    }
}

fn config_map_view(shared: &Shared, key: &Key, training: &ModelTraining) -> ConfigMapView {
    let Some(source) = &training.spec.source.config_map else {
        return ConfigMapView::Absent;
    };
    let Some(seen) = shared.config_maps.get(&key.sibling(source.name.as_str())) else {
        return ConfigMapView::Absent;
    };
    let resource_version = seen.metadata.resource_version.clone().unwrap_or_default();
    match shared.content(key, source, &resource_version) {
        Some(content) => ConfigMapView::Read(content),
        None => ConfigMapView::Seen { resource_version },
    }
}
