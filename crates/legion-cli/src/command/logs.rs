//! `legionctl logs`: reads the log from the pod, or from the store after the pod was deleted.

use std::io::Write;

use futures::{AsyncReadExt as _, StreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::LogParams,
    runtime::{WatchStreamExt as _, watcher},
};
use legion_api::ModelTraining;

use crate::{
    args::Logs,
    client::Session,
    exit::{CliError, Code, Result},
    kinds, output, stored,
    training::{self, TrainingState},
};

/// Prints the log. With `--follow`, it does so until the training has ended.
pub(crate) async fn run(session: &Session, logs: &Logs, out: &mut dyn Write) -> Result<Code> {
    let api: Api<ModelTraining> = Api::namespaced(session.client.clone(), &session.namespace);
    let training = api
        .get_opt(&logs.name)
        .await?
        .ok_or_else(|| kinds::no_training(&session.namespace, &logs.name))?;
    if !logs.follow {
        let pods: Api<Pod> = Api::namespaced(session.client.clone(), &session.namespace);
        let pod = match training::pod(&training) {
            Some(name) => pods.get_opt(name).await?,
            None => None,
        };
        return match pod {
            Some(pod) if has_started(&pod, &logs.container) => copy(session, &pod, logs, out).await,
            _ => from_store(session, &training, logs, out).await,
        };
    }
    follow(session, logs, out).await
}

/// Prints the logs of all attempts of the current run until it has ended.
async fn follow(session: &Session, logs: &Logs, out: &mut dyn Write) -> Result<Code> {
    let trainings: Api<ModelTraining> = Api::namespaced(session.client.clone(), &session.namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={}", logs.name));
    let mut events = watcher(trainings, config).default_backoff().boxed();
    let mut shown = None;
    let mut reported = None;
    while let Some(event) = events.next().await {
        let training = match event {
            Ok(watcher::Event::Apply(training) | watcher::Event::InitApply(training)) => training,
            Ok(watcher::Event::Delete(_)) => return Ok(Code::Ok),
            Ok(watcher::Event::Init | watcher::Event::InitDone) => continue,
            Err(error) => {
                tracing::debug!(%error, "watch interrupted");
                continue;
            }
        };
        // The status is that of the run before the change. Its pod and its log are not those of this run.
        if !training::is_observed(&training) {
            continue;
        }
        let pod = training::pod(&training).map(ToOwned::to_owned);
        // Without a pod there is no log yet, so the condition reports what the training waits for.
        if let Some(condition) = training::succeeded(&training)
            && pod.is_none()
            && reported.as_ref() != Some(&condition.message)
        {
            output::note(format_args!("{}: {}", condition.reason, condition.message));
            reported = Some(condition.message.clone());
        }
        if let Some(name) = &pod
            && shown != pod
            && let Some(pod) = started(session, name, &logs.container).await?
        {
            copy(session, &pod, logs, out).await?;
            shown = Some(name.clone());
        }
        if training::state(&training) != TrainingState::Open {
            if shown.is_none() || shown != pod {
                from_store(session, &training, logs, out).await?;
            }
            return Ok(Code::Ok);
        }
    }
    Err(CliError::new(Code::Other, "the watch ended"))
}

/// Returns the pod after this container has started. Returns `None` if the pod no longer exists or will never start it.
pub(crate) async fn started(session: &Session, name: &str, container: &str) -> Result<Option<Pod>> {
    let pods: Api<Pod> = Api::namespaced(session.client.clone(), &session.namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = watcher(pods, config).default_backoff().boxed();
    let mut listed = false;
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) => {
                listed = true;
                if has_started(&pod, container) {
                    return Ok(Some(pod));
                }
                if has_ended(&pod) {
                    return Ok(None);
                }
            }
            Ok(watcher::Event::Delete(_)) => return Ok(None),
            Ok(watcher::Event::Init) => listed = false,
            Ok(watcher::Event::InitDone) if !listed => return Ok(None),
            Ok(watcher::Event::InitDone) => {}
            Err(error) => tracing::debug!(%error, "watch interrupted"),
        }
    }
    Ok(None)
}

fn has_started(pod: &Pod, container: &str) -> bool {
    let Some(status) = &pod.status else { return false };
    status
        .init_container_statuses
        .iter()
        .chain(&status.container_statuses)
        .flatten()
        .filter(|state| state.name == container)
        .filter_map(|state| state.state.as_ref())
        .any(|state| state.running.is_some() || state.terminated.is_some())
}

fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed")) || pod.metadata.deletion_timestamp.is_some()
}

async fn copy(session: &Session, pod: &Pod, logs: &Logs, out: &mut dyn Write) -> Result<Code> {
    let pods: Api<Pod> = Api::namespaced(session.client.clone(), &session.namespace);
    let params = LogParams {
        container: Some(logs.container.clone()),
        follow: logs.follow,
        tail_lines: logs.tail,
        ..LogParams::default()
    };
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let mut stream = Box::pin(pods.log_stream(name, &params).await?);
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = stream
            .read(&mut buffer)
            .await
            .map_err(|error| CliError::io(format!("log of pod {name}"), error))?;
        if count == 0 {
            return Ok(Code::Ok);
        }
        output::bytes(out, &buffer[..count])?;
    }
}

async fn from_store(session: &Session, training: &ModelTraining, logs: &Logs, out: &mut dyn Write) -> Result<Code> {
    let log = training.status.as_ref().and_then(|status| status.log.as_ref());
    if logs.container != "trainer" {
        return Err(CliError::new(
            Code::NotFound,
            format!("modeltraining/{}: no pod has a log of {}", logs.name, logs.container),
        )
        .remedy(
            "the logs of fetch and publish exist as long as the pod exists; only the log of the trainer is stored",
        ));
    }
    let Some(log) = log else {
        let why = training::succeeded(training).map_or_else(
            || "the operator has not reconciled it yet".to_owned(),
            |condition| format!("{}: {}", condition.reason, condition.message),
        );
        return Err(
            CliError::new(Code::NotFound, format!("modeltraining/{} has no log: {why}", logs.name))
                .remedy("the log starts with the training code; `legionctl logs --follow` waits for it"),
        );
    };
    let text = stored::log(session, training, &log.uri).await?;
    output::bytes(out, tail(&text, logs.tail))?;
    Ok(Code::Ok)
}

/// Returns the last lines of a text, or the whole text for `None`.
fn tail(text: &[u8], lines: Option<i64>) -> &[u8] {
    let Some(lines) = lines.and_then(|lines| usize::try_from(lines).ok()) else {
        return text;
    };
    if lines == 0 {
        return &[];
    }
    let body = text.strip_suffix(b"\n").unwrap_or(text);
    body.iter()
        .enumerate()
        .rev()
        .filter(|(_, byte)| **byte == b'\n')
        .nth(lines - 1)
        .map_or(text, |(index, _)| &text[index + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_counts_lines_with_and_without_a_last_line_feed() {
        for (text, lines, expected) in [
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\nb\nc", 2, "b\nc"),
            ("a\nb\n", 5, "a\nb\n"),
            ("a\nb\n", 0, ""),
            ("", 1, ""),
        ] {
            assert_eq!(
                tail(text.as_bytes(), Some(lines)),
                expected.as_bytes(),
                "{text:?} {lines}"
            );
        }
        assert_eq!(tail(b"a\nb", None), b"a\nb");
    }
}
