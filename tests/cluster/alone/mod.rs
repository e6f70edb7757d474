//! Tests that stop parts which all others need, change what all others would see, or measure: each has the cluster to itself.

mod budget;
mod control_plane;
mod node;
mod release;
