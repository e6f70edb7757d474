//! What every run has: attempts, one pod each, how they end, what they wait for, and what follows.

pub(crate) mod attempt;
pub(crate) mod backoff;
pub(crate) mod containers;
pub(crate) mod ending;
pub(crate) mod id;
pub mod labels;
pub(crate) mod parts;
pub(crate) mod pod;
pub(crate) mod refusal;
pub(crate) mod settle;
pub(crate) mod volumes;
pub(crate) mod waiting;
