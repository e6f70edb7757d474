//! `ModelTraining`: runs and their attempts.
//!
//! A *run* is one execution of what the spec asks for; its id is a hash over the fields that mean work ([`run_id`],
//! [`field_effects`]). A run has *attempts*, one pod each. How an attempt's end is judged, what it waits for, when the
//! next one starts and what the status says all follow from what is observed: nothing is kept in memory.

mod current;
mod decide;
mod facts;
pub(crate) mod fields;
pub(crate) mod inputs;
pub(crate) mod tasks;
mod world;

pub use decide::decide;
pub use fields::{Effect, FieldEffect, field_effects};
pub use world::{
    ConfigMapContent, ConfigMapView, MissingKey, World, config_map_name, connection_names, is_default_output,
};

pub use crate::run::{
    id::run_id,
    labels,
    settle::{judge_existing, requeue, settle},
};
