//! The documents that travel between Legion's processes.
//!
//! The operator hands a [`task`] to each of its own containers, the trainer's PID 1 leaves an [`exit`] record, the
//! agent answers through a termination [`message`] and leaves a [`success`] record in the output store, and a toolchain
//! speaks the Legion toolchain protocol ([`training`], [`events`], [`result`]). This crate holds those documents, their
//! limits and their JSON Schemas, and nothing that touches a file, a clock or the network, so that the pure planner and
//! the static entry binary may both depend on it.

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

/// Version of the Legion toolchain protocol (`LEGION_PROTOCOL`).
pub const PROTOCOL_VERSION: u32 = 1;

/// Version of the documents exchanged between Legion's own processes.
pub const WIRE_VERSION: u32 = 1;

/// The JSON Schema of every document, with the file name (without extension) it is published under.
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
