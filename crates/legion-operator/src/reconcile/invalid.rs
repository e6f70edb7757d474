//! Objects that are not of their kind's type: they were written before the schema forbade what they hold, or bypassed
//! it.
//!
//! They must not stall other objects, and their users must learn why they are ignored.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{Resource as _, core::error_boundary::InvalidObject};
use legion_api::{Problem, Reason};
use legion_plan::conditions::{self, Explanation};
use serde_json::json;

use crate::{context::Context, key::Key, reconcile::controller::RunHooks, requests::RequestError};

/// Reports in the object's status why it cannot be read. Costs one read, and one write unless the status has it
/// already.
pub(crate) async fn report<C: RunHooks>(
    context: &Context,
    key: &Key,
    invalid: &InvalidObject,
) -> Result<(), RequestError> {
    if invalid.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    let Some(live) = context.requests.get_untyped::<C::Object>(key).await? else {
        return Ok(());
    };
    // It may be valid by now. The watch will bring it.
    let Err(error) = serde_json::to_value(&live).and_then(serde_json::from_value::<C::Object>) else {
        return Ok(());
    };
    let generation = live.metadata.generation.unwrap_or_default();
    let problem = Problem::new(
        Reason::InvalidObject,
        "",
        format!("cannot be read as {}: {error}", C::Object::kind(&())),
    );
    // Conditions that cannot be read either count as absent.
    let previous: Vec<Condition> =
        serde_json::from_value(live.data["status"]["conditions"].clone()).unwrap_or_default();
    let state = Explanation::new(Reason::InvalidObject, problem.to_string());
    let conditions_of = if C::RUN.is_some() {
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
    context.requests.patch_status_untyped::<C::Object>(key, &patch).await
}
