//! `legionctl wait`: waits until trainings have ended.

use std::io::Write;

use futures::{StreamExt as _, future::try_join_all};
use kube::{
    Api,
    runtime::{WatchStreamExt as _, watcher},
};
use legion_api::ModelTraining;

use crate::{
    args::{Format, Wait},
    client::Session,
    exit::{CliError, Code, Result},
    follow, kinds, output, report, stored,
    training::{self, TrainingState},
};

/// Waits for all trainings and prints how each ended. Returns [`Code::Failed`] if one of them failed.
pub(crate) async fn run(session: &Session, wait: &Wait, out: &mut dyn Write) -> Result<Code> {
    let all = try_join_all(wait.names.iter().map(|name| ended(session, name, |_| true)));
    let trainings = follow::limited(wait.timeout, "wait", all).await?;
    let mut code = Code::Ok;
    for training in &trainings {
        if training::state(training).code() != Code::Ok {
            code = Code::Failed;
        }
        match wait.output {
            Format::Json | Format::Yaml => output::structured(out, wait.output, training)?,
            Format::Report => {
                let series = stored::series(session, training).await;
                let text = report::render(training, &series, report::width());
                output::bytes(out, text.as_bytes())?;
            }
            Format::Table => output::line(out, format_args!("{}", report::outcome(training)))?,
        }
    }
    Ok(code)
}

/// Returns the training after it has ended in a state that `accept` accepts.
pub(crate) async fn ended(
    session: &Session,
    name: &str,
    accept: impl Fn(&ModelTraining) -> bool,
) -> Result<ModelTraining> {
    let api: Api<ModelTraining> = Api::namespaced(session.client.clone(), &session.namespace);
    let missing = || kinds::no_training(&session.namespace, name);
    // A watch of a name that does not exist would never end.
    api.get_opt(name).await?.ok_or_else(missing)?;
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = watcher(api, config).default_backoff().boxed();
    let mut listed = false;
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Apply(training) | watcher::Event::InitApply(training)) => {
                listed = true;
                if training::state(&training) != TrainingState::Open && accept(&training) {
                    return Ok(training);
                }
            }
            Ok(watcher::Event::Delete(_)) => return Err(missing().context("while waiting")),
            Ok(watcher::Event::Init) => listed = false,
            Ok(watcher::Event::InitDone) if !listed => return Err(missing().context("while waiting")),
            Ok(watcher::Event::InitDone) => {}
            // The watcher reconnects with back-off, so a restart of the API only delays it.
            Err(error) => tracing::debug!(%error, "watch interrupted"),
        }
    }
    Err(CliError::new(Code::Other, "the watch ended"))
}
