//! World to plan: every decision of the operator and every child object's builder.
//!
//! Pure: no client, no clock, no environment, no file system, no randomness. The driver of `legion-operator` turns a
//! resource through five steps, and the three in the middle of each line below live here:
//!
//! ```text
//! observe -> World                            what the watches show; absence is data, never an error
//! decide(&World, &Settings, now) -> Plan      total: a bad spec is a plan with problems
//!   (while plan.needs is not empty: read what it names, put it into the World, decide again)
//! act(&Plan) -> Outcome                       the actions in their order, stopping at the first that does not go through
//! settle(&World, &Plan, &Outcome, now) -> Option<StatusPatch>      None when equal ignoring time
//! requeue(&Plan, &Outcome, now) -> Option<Timestamp>               when to look again although nothing happens
//! ```
//!
//! Each kind has a module with these functions: [`training`], [`connection`], [`toolchain`]. What they share is in
//! [`plan`] and [`settings`].

pub mod conditions;
pub mod connection;
pub mod hash;
pub mod image;
pub mod plan;
pub mod run;
pub mod schema;
pub mod settings;
pub mod toolchain;
pub mod training;

pub use plan::{Action, ApiError, EventNote, Need, Note, Outcome, Plan, StatusPatch, StepResult, Write};
pub use settings::Settings;
