//! An embedded, single-node Kubernetes API for tests and for one machine.
//!
//! The API is a plain [`tower::Service`] over [`http::Request`]. With `kube::Client::new` everything runs in this
//! process, and deterministically under tokio's paused time. For `kubectl`, let it [listen](Embedded::listen) on a
//! loopback address. Resources are data: a table of built-in kinds, and the CustomResourceDefinitions that clients
//! create.
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
