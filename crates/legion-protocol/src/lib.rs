//! The documents that Legion's processes exchange.
//!
//! - The operator gives a [`task`] to each container of the agent.
//! - The PID 1 of the trainer writes an [`exit`] record.
//! - The agent answers with a termination [`message`], and writes a [`success`] record to the output store.
//! - A toolchain uses the Legion toolchain protocol: [`training`], [`events`] and [`result`].
//!
//! This crate contains those documents, their limits and their JSON Schemas. It uses no file, no clock and no network,
//! so that the pure planner and the static entry binary can both depend on it.

pub mod digest;
pub mod env;
pub mod events;
pub mod exit;
pub mod git_address;
pub mod log;
pub mod message;
pub mod reason;
pub mod result;
pub mod success;
pub mod summary;
pub mod task;
pub mod text;
pub mod time;
pub mod training;

use serde_json::Value;

/// Version of the Legion toolchain protocol: the value of `LEGION_PROTOCOL`.
pub const PROTOCOL_VERSION: u32 = 1;

/// Version of the documents that only Legion's own processes exchange.
pub const WIRE_VERSION: u32 = 1;

/// Returns the JSON Schema of every document, with the name of its published file without the extension.
pub fn schemas() -> Vec<(&'static str, Value)> {
    vec![
        ("training", schema::<training::TrainingDocument>()),
        ("event", schema::<events::ToolEvent>()),
        ("result", schema::<result::ResultDocument>()),
        ("exit-record", schema::<exit::ExitRecord>()),
        ("fetch-task", schema::<task::FetchTask>()),
        ("publish-task", schema::<task::PublishTask>()),
        ("fetch-message-head", schema::<message::Framed<message::FetchHead>>()),
        ("fetch-message-tail", schema::<message::FetchTail>()),
        (
            "publish-message-head",
            schema::<message::Framed<message::PublishHead>>(),
        ),
        ("publish-message-tail", schema::<message::PublishTail>()),
        ("success-record", schema::<success::SuccessRecord>()),
    ]
}

fn schema<T: schemars::JsonSchema>() -> Value {
    schemars::schema_for!(T).to_value()
}
