//! Tests only: worlds, factories, fault injection and invariant checks.
