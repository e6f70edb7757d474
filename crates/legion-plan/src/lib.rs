//! World to plan: every decision of the operator, and the builder of every child object.
//!
//! This crate is pure: no client, no clock, no environment, no file system, no randomness. The driver of
//! `legion-operator` reconciles a resource in five steps. The three steps `decide`, `settle` and `requeue` are in this
//! crate:
//!
//! ```text
//! observe -> World                            what the watches show; absence is data, never an error
//! decide(&World, &Settings, now) -> Plan      total: a bad spec is a plan with problems
//!   (while plan.needs is not empty: read what it names, put it into the World, decide again)
//! act(&Plan) -> Outcome                       the actions in their order, until one has no success
//! settle(&World, &Plan, &Outcome, now) -> Option<StatusPatch>      None when equal ignoring time
//! requeue(&Plan, &Outcome, now) -> Option<Timestamp>               the next reconciliation without any event
//! ```
//!
//! Each kind has a module with these functions: [`training`], [`connection`], [`toolchain`].

pub mod conditions;
pub mod connection;
mod hash;
mod image;
mod plan;
mod run;
pub mod schema;
mod settings;
pub mod toolchain;
pub mod training;

pub use plan::{Action, ApiError, EventNote, Need, Note, Outcome, Plan, StatusPatch, StepResult, Write};
pub use settings::{Identity, Settings};
