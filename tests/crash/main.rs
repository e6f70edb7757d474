//! `kill -9` of the local process and of the processes that it runs: one result per training, no process left, nothing
//! lost.

mod moments;
mod processes;
mod training;
