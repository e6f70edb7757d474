//! What all controllers of one process share.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::core::PartialObjectMeta;
use legion_runtime::SharedClock;

use crate::{
    metrics::Metrics,
    pods::Pods,
    quota::QuotaLines,
    requests::ApiRequests,
    store::Dependents,
    watch::{
        cache::{Cache, Change},
        references::Reference,
    },
};

/// What all controllers share.
pub(crate) struct Context {
    pub(crate) requests: ApiRequests,
    /// What decisions depend on besides the objects.
    pub(crate) settings: legion_plan::Settings,
    /// Wall time.
    pub(crate) clock: SharedClock,
    pub(crate) metrics: Metrics,
    pub(crate) pods: Pods,
    /// Who waits for room under the quotas of a namespace.
    pub(crate) quotas: Arc<QuotaLines>,
    /// The metadata of all ConfigMaps. Its resourceVersion shows that a source has changed.
    pub(crate) config_maps: Arc<Cache<PartialObjectMeta<ConfigMap>>>,
}

/// Returns an empty cache of ConfigMaps. A change of one requeues what refers to it.
pub(crate) fn config_maps(dependents: Arc<Dependents>) -> Arc<Cache<PartialObjectMeta<ConfigMap>>> {
    Arc::new(Cache::new(Box::new(
        move |change: &Change<PartialObjectMeta<ConfigMap>>| {
            dependents.requeue(&Reference::object::<ConfigMap>(change.key.clone()));
        },
    )))
}
