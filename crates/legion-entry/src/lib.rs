//! PID 1 of the trainer's container: run, forward signals, copy the log, lock, time out, record the end.
