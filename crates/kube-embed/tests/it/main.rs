//! The embedded API as its clients see it.

mod crds;
mod deletion;
mod objects;
mod reads;
mod storage;
mod support;
mod watches;
