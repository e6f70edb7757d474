//! `legion-agent` with real files, repositories, servers and locks.

#![allow(clippy::unwrap_used, reason = "a test ends by panicking")]
#![allow(clippy::print_stdout, reason = "figures and skipped tests are for people to read")]

mod data;
mod git;
mod harness;
mod hostile;
mod https;
mod publish;
mod s3;
mod source;
