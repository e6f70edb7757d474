//! `legionctl model`: serves, tries and checks trained models on this machine.

mod check;
mod convert;
mod environment;
mod info;
mod place;
mod predict;
mod serve;

use std::io::Write;

use crate::{
    args::{Global, Model},
    exit::{Code, Result},
};

/// Runs a subcommand.
pub(crate) async fn run(global: &Global, command: &Model, out: &mut dyn Write) -> Result<Code> {
    match command {
        Model::Serve(serve) => serve::run(global, serve, out).await,
        Model::Predict { model, request } => predict::predict(global, model, request, out).await,
        Model::Invoke { url, request } => predict::invoke(url, request, out).await,
        Model::Info { model, output } => info::run(global, model, *output, out).await,
        Model::Check {
            model,
            load,
            max_memory,
            timeout,
        } => {
            let limits = load.then_some(check::LoadLimits {
                memory: *max_memory,
                timeout: *timeout,
            });
            check::run(global, model, limits, out).await
        }
        Model::Convert {
            model,
            to,
            name,
            model_version,
        } => convert::run(global, model, to, name.as_deref(), model_version, out).await,
    }
}
