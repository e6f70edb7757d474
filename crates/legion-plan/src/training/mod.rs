//! `ModelTraining`: runs and their attempts.
//!
//! A *run* is one execution of a spec. Its id is a hash over the fields that mean work ([`fields`]). A run has
//! *attempts*, one pod each. Everything follows from what is observed, and nothing is kept in memory: how an attempt's
//! end is classified, what it waits for, when the next one starts and what the status reports.

mod container;
mod current;
mod decide;
mod facts;
mod fields;
mod inputs;
mod kind;
pub mod labels;
mod settle;
mod tasks;
mod world;

pub use decide::decide;
pub use fields::{Field, FieldEffect, fields};
pub use settle::{classify_existing, requeue, settle};
pub use world::{
    ConfigMapContent, ConfigMapView, MissingKey, QuotaWait, World, config_map_name, connection_names,
    is_default_output, quota_wait,
};
