//! From due objects to requests: the queue, the driver and its steps.

pub(crate) mod act;
pub(crate) mod controller;
pub(crate) mod driver;
pub(crate) mod events;
pub(crate) mod invalid;
pub(crate) mod queue;
