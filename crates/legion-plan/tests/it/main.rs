//! The planner as its driver sees it: Worlds in, Plans out.

mod factory;
mod golden;
mod pod;
mod properties;
mod rules;
mod universe;
