//! kill -9 of the local process, and of what it runs: one result of a training, no process left, nothing lost.

mod moments;
mod processes;
mod training;
