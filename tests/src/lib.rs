//! End-to-end suites over the built binaries.
