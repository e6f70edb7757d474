//! The embedded API as its clients see it.

mod controller;
mod crds;
mod deletion;
mod kubectl;
mod listener;
mod objects;
mod reads;
mod storage;
mod support;
mod watches;
