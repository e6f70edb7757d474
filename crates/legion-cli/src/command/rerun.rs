//! `legionctl rerun`: requests a new run of the same spec.

use std::io::Write;

use jiff::Timestamp;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use legion_api::ModelTraining;
use serde_json::json;

use crate::{
    args::Rerun,
    client::Session,
    exit::{Code, Result},
    kinds, output,
};

/// Sets `spec.trigger`.
pub(crate) async fn run(session: &Session, rerun: &Rerun, out: &mut dyn Write) -> Result<Code> {
    let api: Api<ModelTraining> = Api::namespaced(session.client.clone(), &session.namespace);
    let training = api
        .get_opt(&rerun.name)
        .await?
        .ok_or_else(|| kinds::no_training(&session.namespace, &rerun.name))?;
    let trigger = rerun.trigger.clone().unwrap_or_else(|| Timestamp::now().to_string());
    if training.spec.trigger.as_deref() == Some(&trigger) {
        output::line(
            out,
            format_args!(
                "modeltraining/{}: nothing was started, because the trigger is already {trigger:?}",
                rerun.name
            ),
        )?;
        return Ok(Code::Ok);
    }
    let patch = Patch::Merge(json!({"spec": {"trigger": trigger}}));
    let params = PatchParams {
        field_manager: Some("legionctl".to_owned()),
        ..PatchParams::default()
    };
    api.patch(&rerun.name, &params, &patch).await?;
    output::line(
        out,
        format_args!("modeltraining/{}: new run requested (trigger {trigger:?})", rerun.name),
    )?;
    Ok(Code::Ok)
}
