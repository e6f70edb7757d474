//! The kinds that the operator reconciles, one file each.

mod connection;
mod standalone;
mod toolchain;
mod training;

use crate::{metrics::Metrics, registry::Registry};

/// Returns every kind: one line each, after those that it refers to.
pub(crate) fn registry(settings: &legion_plan::Settings, metrics: &Metrics) -> Registry {
    let mut registry = Registry::new(metrics);
    let toolchains = registry.add(toolchain::controller());
    let connections = registry.add(connection::controller());
    registry.add(training::Trainings::new(settings, toolchains, connections));
    registry
}
