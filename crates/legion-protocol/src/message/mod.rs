//! Termination messages: how facts leave a container without a network and without credentials.
//!
//! The kubelet keeps at most a share of 12 KiB per container and cuts the rest without a word. So a message has two
//! parts: a *head*, one line of JSON of at most [`HEAD_LIMIT`] bytes that parses alone and holds what correctness
//! needs, and after a line feed a *tail* with everything else, compressed when that is needed. The head states the
//! length and checksum of the tail, so a tail that was cut or altered is noticed instead of believed.

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
