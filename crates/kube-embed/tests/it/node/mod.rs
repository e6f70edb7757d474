//! The node and the garbage collector, against the real API in the same process.

mod cluster;
mod gc;
mod images;
mod life;
mod process;
mod restart;
mod scheduling;
