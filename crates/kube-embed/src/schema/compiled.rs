//! Schemas that are compiled already.
//!
//! Compiling is a pure function and the most expensive thing that a CRD asks for: patterns become automata, rules are
//! parsed. The same schema comes again with every write of its CRD, with every other CRD that is created, at a restart, and,
//! in a test process, with every server. So what was compiled is shared by its text.

use std::{
    collections::HashMap,
    sync::{LazyLock, Mutex, PoisonError},
};

use serde_json::Value;

use super::{CrdSchema, FieldError};

/// Schemas that are kept. A server with more CRDs than that compiles some of them anew, and is right all the same.
const KEPT: usize = 256;

static COMPILED: LazyLock<Mutex<HashMap<String, CrdSchema>>> = LazyLock::new(Mutex::default);

/// The compiled form of a schema: an earlier one, or what `compile` makes of it. Schemas that are refused are not kept.
pub(super) fn shared(
    schema: &Value,
    compile: impl FnOnce() -> Result<CrdSchema, Vec<FieldError>>,
) -> Result<CrdSchema, Vec<FieldError>> {
    let text = schema.to_string();
    let lock = || COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = lock().get(&text) {
        return Ok(known.clone());
    }
    // Not under the lock: others need not wait for this one.
    let compiled = compile()?;
    let mut kept = lock();
    if kept.len() >= KEPT {
        kept.clear();
    }
    kept.insert(text, compiled.clone());
    Ok(compiled)
}
