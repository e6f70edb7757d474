//! Termination messages: a container reports to the operator without a network and without credentials.
//!
//! The kubelet gives each container a share of 12 KiB and cuts the rest silently. So a message has two parts:
//!
//! - The *head* is one line of JSON with at most [`HEAD_LIMIT`] bytes. It can be parsed alone, and contains everything
//!   that
//!   correctness depends on.
//! - The *tail* follows after a line feed. It contains everything else, and is compressed if necessary.
//!
//! The head states the length and the checksum of the tail. So a reader detects a tail that was cut or altered.

mod columns;
mod fetch;
mod frame;
mod publish;

pub use columns::MetricColumns;
pub use fetch::{FetchHead, FetchMessage, FetchOutcome, FetchTail, FetchedData, FetchedSource};
pub(crate) use frame::Framed;
pub use frame::{Decoded, HEAD_LIMIT, MAX_TAIL, MessageError, Tail};
pub use publish::{
    Counts, HeadError, PublishHead, PublishMessage, PublishOutcome, PublishTail, WireArtifact, WireStoredFile,
};
