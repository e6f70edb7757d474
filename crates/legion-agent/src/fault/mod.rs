//! Decides for every error whether another attempt can help.
//!
//! There is one table for git, HTTP, object stores, archives and the file system. Each origin in [`origins`] says which
//! [`Fault`] its errors are. [`Fault::reason`] gives the fault a reason of the protocol, and the class of that reason
//! decides: a permanent fault ends the run at its first attempt, and a passing one is tried again.

mod kind;
mod origins;

pub(crate) use self::kind::{Fault, Side};
pub(crate) use self::origins::{of_bucket, of_connection, of_git, of_io, of_refusal, of_status, of_volume};
