//! The command line of Legion, with a local mode that needs no cluster.
