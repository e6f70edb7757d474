//! Objects that are not of their kind's type: written before the schema forbade what they hold, or past it.
//!
//! They must not stall the others, and their users must be told.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{Resource as _, core::error_boundary::InvalidObject};
use legion_api::{Problem, Reason};
use legion_plan::conditions::{self, Explanation};
use serde_json::json;

use crate::{context::Context, key::Key, reconcile::controller::Controller, requests::RequestError};

/// Says in the object's status why it cannot be read. Costs one read, and one write unless it is said already.
///
/// # Errors
/// When the status cannot be read or written.
pub(crate) async fn report<K: Controller>(
    context: &Context,
    key: &Key,
    invalid: &InvalidObject,
) -> Result<(), RequestError> {
    if invalid.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    let Some(live) = context.requests.get_untyped::<K::Object>(key).await? else {
        return Ok(());
    };
    // It may be whole again; the watch will bring it.
    let Err(error) = serde_json::to_value(&live).and_then(serde_json::from_value::<K::Object>) else {
        return Ok(());
    };
    let generation = live.metadata.generation.unwrap_or_default();
    let problem = Problem::new(
        Reason::InvalidObject,
        "",
        format!("cannot be read as {}: {error}", K::Object::kind(&())),
    );
    // Conditions that cannot be read either count as not there.
    let previous: Vec<Condition> =
        serde_json::from_value(live.data["status"]["conditions"].clone()).unwrap_or_default();
    let state = Explanation::new(Reason::InvalidObject, problem.to_string());
    let conditions_of = if K::IS_RUN {
        conditions::for_run
    } else {
        conditions::for_ready
    };
    let conditions = conditions_of(&previous, &state, generation, context.clock.now());
    if conditions == previous {
        return Ok(());
    }
    tracing::warn!(%problem, "the object is not of its type");
    let patch = json!({
        "metadata": { "resourceVersion": live.metadata.resource_version },
        "status": { "observedGeneration": generation, "conditions": conditions },
    });
    context.requests.patch_status_untyped::<K::Object>(key, &patch).await
}
