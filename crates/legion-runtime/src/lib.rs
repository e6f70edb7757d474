//! Process kit of Legion's binaries: logs, clock, shutdown, leader lease, retry classes.
