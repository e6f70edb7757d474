//! Compute resources of a container.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Compute resources of a container, as in a pod: GPUs are resources like any other (`nvidia.com/gpu`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Resources {
    /// What the container is promised.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, Quantity>,
    /// What the container may use at most.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, Quantity>,
}

impl Resources {
    /// `self` with every name that `over` gives replaced by what `over` says.
    #[must_use]
    pub fn merged(&self, over: &Self) -> Self {
        let merge = |base: &BTreeMap<String, Quantity>, over: &BTreeMap<String, Quantity>| {
            base.iter()
                .chain(over)
                .map(|(name, quantity)| (name.clone(), quantity.clone()))
                .collect()
        };
        Self {
            requests: merge(&self.requests, &over.requests),
            limits: merge(&self.limits, &over.limits),
        }
    }
}
