//! Documents that travel between Legion's processes: agent tasks, exit records, termination messages, the toolchain protocol.
