//! Compute resources of a container.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Compute resources of a container, as in a pod. GPUs are resources too (`nvidia.com/gpu`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Resources {
    /// Guaranteed amounts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, Quantity>,
    /// Maximum amounts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, Quantity>,
}

impl Resources {
    /// Returns the resources of `self`, with those of `over` in place of resources with the same name.
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
