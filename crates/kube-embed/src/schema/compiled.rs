//! A cache of compiled schemas.
//!
//! Compiling is a pure function and the most expensive part of a CRD write: it builds automata from patterns and
//! parses rules. The same schema is compiled often: with every write of its CRD, with every other CRD that is
//! created, after a restart, and, in a test process, with every server. Compiled schemas are therefore shared, keyed
//! by their text.

use std::{
    collections::HashMap,
    sync::{LazyLock, Mutex, PoisonError},
};

use serde_json::Value;

use super::{CrdSchema, FieldError};

/// Number of schemas in the cache. A server with more CRDs compiles some of them again, with the same result.
const KEPT: usize = 256;

static COMPILED: LazyLock<Mutex<HashMap<String, CrdSchema>>> = LazyLock::new(Mutex::default);

/// Returns the compiled form of a schema from the cache, or calls `compile`. Refused schemas are not cached.
pub(super) fn shared(
    schema: &Value,
    compile: impl FnOnce() -> Result<CrdSchema, Vec<FieldError>>,
) -> Result<CrdSchema, Vec<FieldError>> {
    let text = schema.to_string();
    let lock = || COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = lock().get(&text) {
        return Ok(known.clone());
    }
    // Compiles without the lock, so other callers do not wait.
    let compiled = compile()?;
    let mut kept = lock();
    if kept.len() >= KEPT {
        kept.clear();
    }
    kept.insert(text, compiled.clone());
    Ok(compiled)
}
