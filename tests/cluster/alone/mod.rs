//! Tests that stop shared parts of the cluster, change shared objects, or measure. Each one has the cluster to itself.

mod budget;
mod control_plane;
mod node;
mod release;
