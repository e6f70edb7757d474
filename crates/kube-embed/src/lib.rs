//! An embedded, single-node Kubernetes API for tests and for one machine.
//!
//! The API is a plain [`tower::Service`] over [`http::Request`]: hand it to `kube::Client::new` and everything runs in
//! this process, deterministically under tokio's paused time; or let it [listen](Embedded::listen) on a loopback address
//! and use `kubectl`. Resources are data: a table of built-in kinds plus whatever CustomResourceDefinitions are created.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let embedded = kube_embed::Embedded::builder().build().await?;
//! let client = embedded.client("default");
//! # drop(client);
//! embedded.shutdown().await;
//! # Ok(()) }
//! ```

mod api;
mod apply;
mod clock;
mod embedded;
pub mod gc;
mod ids;
mod listener;
mod logs;
pub mod node;
mod openapi;
mod patch;
mod resource;
mod schema;
mod status;
mod store;

pub use api::body::ResponseBody;
pub use api::service::ApiService;
pub use clock::{Clock, SystemClock, TokioClock};
pub use embedded::{BuildError, Builder, Embedded, Storage};
pub use listener::Endpoint;
pub use logs::{LogOptions, LogRequest, LogStream, PodLogs};
pub use schema::CrdSchema;
pub use status::{ApiError, Cause, Details};
pub use store::OpenError;
