//! What all kinds of runs share.
//!
//! A run has attempts, one pod each. This module decides how an attempt's end is classified, what an attempt waits for,
//! when the next one starts and what the status reports. What differs between kinds is data ([`kind::RunKind`]) or an
//! argument: the main container, the tasks of the agent's containers and the volumes.

pub(crate) mod attempt;
pub(crate) mod attempt_end;
mod backoff;
pub(crate) mod containers;
pub(crate) mod decide;
pub(crate) mod ending;
pub(crate) mod id;
pub(crate) mod inputs;
pub(crate) mod kind;
pub(crate) mod labels;
pub(crate) mod lines;
pub(crate) mod parts;
pub(crate) mod pod;
pub(crate) mod recover;
pub(crate) mod refusal;
pub(crate) mod settle;
pub(crate) mod volumes;
pub(crate) mod waiting;
