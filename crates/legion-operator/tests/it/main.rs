//! The operator against a real API server and node in this process, in paused time.

mod disturbed;
mod explore;
mod faults;
mod happy;
mod heals;
mod lease;
mod malformed;
mod metrics;
mod outage;
mod pods;
mod quiet;
mod quota;
mod restore;
mod support;
mod throttled;
mod upgrade;
