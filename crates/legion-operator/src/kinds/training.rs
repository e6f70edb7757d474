//! ModelTraining: where its decisions find what they are made from.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::core::PartialObjectMeta;
use legion_api::{ModelTraining, ModelTrainingStatus};
use legion_plan::{
    Need, Outcome, Plan, Settings, StatusPatch, StepResult,
    training::{self, ConfigMapContent, ConfigMapView, connection_names, is_default_output},
};
use legion_runtime::retry::ErrorClass;

use crate::{
    context::Context,
    key::Key,
    reconcile::{controller::Controller, queue::Queue},
    requests::RequestError,
    watch::cache::Cache,
};

/// ModelTraining.
pub(crate) struct Trainings;

impl Controller for Trainings {
    type Object = ModelTraining;
    type World = training::World;
    type Status = ModelTrainingStatus;

    const NAME: &'static str = "ModelTraining";
    const IS_RUN: bool = true;

    fn cache(context: &Context) -> &Cache<ModelTraining> {
        &context.trainings
    }

    fn queue(context: &Context) -> &Queue {
        &context.queues.trainings
    }

    fn observe(context: &Context, key: &Key, training: Arc<ModelTraining>) -> training::World {
        let toolchain = training.spec.toolchain.as_str();
        let platform = Key::new(&context.settings.platform_namespace, toolchain);
        let connections: BTreeMap<_, _> = connection_names(&training)
            .filter_map(|name| Some((name.to_owned(), context.connections.get(&key.sibling(name))?)))
            .collect();
        // Only a training without an output needs the search.
        let default_outputs = if training.spec.output.is_none() {
            context.connections.select(&key.namespace, is_default_output)
        } else {
            Vec::new()
        };
        training::World {
            toolchain: context.toolchains.get(&key.sibling(toolchain)),
            platform_toolchain: context.toolchains.get(&platform),
            connections,
            default_outputs,
            config_map: config_map_view(context, key, &training),
            pods: context
                .pods_of
                .dependents(key)
                .iter()
                .filter_map(|pod| context.pods.get(pod))
                .collect(),
            probed: BTreeMap::new(),
            mounts: BTreeMap::new(),
            training,
        }
    }

    async fn read(context: &Context, key: &Key, world: &mut training::World, need: &Need) -> Result<(), RequestError> {
        match need {
            Need::ConfigMap { name } => {
                let config_map_key = key.sibling(name);
                let found = context.requests.get::<ConfigMap>(&config_map_key).await?;
                let source = world.training.spec.source.config_map.clone();
                world.config_map = match (found, source) {
                    (Some(found), Some(source)) => {
                        let content = ConfigMapContent::of(&found, &source);
                        // The watch may lag behind this read; what was read is what is there.
                        context.config_maps.apply_response(PartialObjectMeta {
                            types: None,
                            metadata: found.metadata,
                            _phantom: std::marker::PhantomData,
                        });
                        context.keep_content(key.clone(), source, content.clone());
                        ConfigMapView::Read(content)
                    }
                    _ => ConfigMapView::Absent,
                };
            }
            Need::Mounts { pod, uid } => {
                let word = context.requests.mount_failure(&key.sibling(pod), uid).await?;
                world.mounts.insert(uid.clone(), word);
            }
            Need::Pod { name } => {
                let found = context.requests.get::<Pod>(&key.sibling(name)).await?;
                world.probed.insert(name.clone(), found.map(Arc::new));
            }
        }
        Ok(())
    }

    fn unreadable(world: &mut training::World, need: &Need, error: &RequestError) -> bool {
        match need {
            Need::ConfigMap { .. } => {
                world.config_map = ConfigMapView::Unreadable {
                    forbidden: error.class == ErrorClass::Forbidden,
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
        training::classify_existing(world, wanted, found)
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

    fn written(context: &Context, before: &ModelTraining, after: &ModelTraining) {
        context.metrics.status_written(before, after);
    }

    fn requeue(plan: &Plan<ModelTrainingStatus>, outcome: &Outcome, now: Timestamp) -> Option<Timestamp> {
        training::requeue(plan, outcome, now)
    }

    fn gone(context: &Context, key: &Key) {
        context.drop_content(key);
    }
}

fn config_map_view(context: &Context, key: &Key, training: &ModelTraining) -> ConfigMapView {
    let Some(source) = &training.spec.source.config_map else {
        return ConfigMapView::Absent;
    };
    let Some(seen) = context.config_maps.get(&key.sibling(source.name.as_str())) else {
        return ConfigMapView::Absent;
    };
    let resource_version = seen.metadata.resource_version.clone().unwrap_or_default();
    match context.content(key, source, &resource_version) {
        Some(content) => ConfigMapView::Read(content),
        None => ConfigMapView::Seen { resource_version },
    }
}
