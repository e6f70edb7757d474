//! Validation without a cluster. It uses the same CRDs as the API server and gives the same results.
//!
//! The structure is checked with the CRD's schema ([`structure`]). CEL rules are checked with `kube`'s evaluator. A
//! table test compares the results with the embedded API server.

mod structure;

use std::{collections::BTreeMap, sync::LazyLock};

use kube_core::cel::{CompiledSchema, Validator, compile_schema};
use serde_json::Value;

use crate::{Problem, Reason, crd};

/// Returns an object with the defaults of its schema, as the API server does before validation.
#[must_use]
pub fn with_defaults(object: &Value) -> Value {
    match schema_of(object) {
        Ok(schema) => kube_core::cel::apply_defaults(&schema.plain, object),
        Err(_) => object.clone(),
    }
}

/// Returns the problems of an object of one of Legion's kinds. The list is empty when the API server would accept the
/// object with `fieldValidation=Strict`. `old` is the replaced object: rules about changes need it.
#[must_use]
pub fn object(object: &Value, old: Option<&Value>) -> Vec<Problem> {
    let schema = match schema_of(object) {
        Ok(schema) => schema,
        Err(problem) => return vec![problem],
    };
    let mut problems = Vec::new();
    if object
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .is_none_or(str::is_empty)
        && object.pointer("/metadata/generateName").is_none()
    {
        problems.push(Problem::new(
            Reason::InvalidObject,
            "metadata.name",
            "Required value: an object needs a name",
        ));
    }
    let object = kube_core::cel::apply_defaults(&schema.plain, object);
    structure::check(&schema.plain, &object, &mut problems);
    // Rules assume correct types. The API server does not evaluate them on a malformed object either.
    if problems.is_empty()
        && let Err(errors) = Validator::new().validate_compiled(&schema.compiled, &object, old)
    {
        problems.extend(errors.into_vec().into_iter().map(|error| {
            Problem::new(
                Reason::InvalidObject,
                error.field_path.trim_start_matches('.'),
                error.message,
            )
        }));
    }
    problems
}

/// A kind's schema and its compiled CEL rules.
struct KindSchema {
    plain: Value,
    compiled: CompiledSchema,
}

/// The schema of each kind. Deriving them takes milliseconds.
static SCHEMAS: LazyLock<BTreeMap<String, KindSchema>> = LazyLock::new(|| {
    crd::all()
        .into_iter()
        .filter_map(|crd| {
            let schema = crd.spec.versions.into_iter().next()?.schema?.open_api_v3_schema?;
            let plain = serde_json::to_value(schema).ok()?;
            let compiled = compile_schema(&plain);
            Some((crd.spec.names.kind, KindSchema { plain, compiled }))
        })
        .collect()
});

fn schema_of(object: &Value) -> Result<&'static KindSchema, Problem> {
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    let api_version = format!("{}/{}", crate::GROUP, crate::VERSION);
    if text("apiVersion") != api_version {
        return Err(Problem::new(
            Reason::InvalidObject,
            "apiVersion",
            format!("Unsupported value: {:?}", text("apiVersion")),
        )
        .with_remedy(format!("write {api_version:?}")));
    }
    SCHEMAS.get(text("kind")).ok_or_else(|| {
        let kinds = SCHEMAS.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        Problem::new(
            Reason::InvalidObject,
            "kind",
            format!("Unsupported value: {:?}", text("kind")),
        )
        .with_remedy(format!("write one of {kinds}"))
    })
}
