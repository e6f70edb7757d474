//! `legionctl local run`: starts the local mode if needed, applies the file, follows the trainings and prints the
//! results.

use std::io::Write;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use legion_api::ModelTraining;
use legion_plan::training::ConfigMapContent;
use legion_protocol::events::MetricPoint;
use legion_runtime::Shutdown;
use serde_json::json;

use super::{
    apply::{self, Applied, Change},
    server::Server,
    source,
};
use crate::{
    args::{Format, Global, Run},
    client::{self, Session},
    data_dir::DataDir,
    exit::{CliError, Code, Result},
    follow::{self, Followed, Overhead, Progress},
    manifest::{self, Document},
    output, report, stored,
    training::{self, TrainingState},
};

/// Runs the trainings of the file and prints their results.
pub(crate) async fn run(global: &Global, run: &Run, out: &mut dyn Write) -> Result<Code> {
    let mut documents = manifest::read(&run.file)?;
    let snapshot = match &run.source {
        Some(directory) => Some(source::snapshot(
            directory,
            &DataDir::choose(global.data_dir.as_deref())?,
        )?),
        None => None,
    };
    if let Some(snapshot) = &snapshot {
        source::replace(&mut documents, snapshot);
    }
    apply::check(&documents)?;
    if !documents
        .iter()
        .any(|document| document.value["kind"] == "ModelTraining")
    {
        return Err(
            CliError::new(Code::Invalid, format!("{}: no ModelTraining in it", run.file.display()))
                .remedy("add a ModelTraining, or apply the file with kubectl"),
        );
    }
    let progress = Progress::new(!run.quiet);
    for file in snapshot.iter().flat_map(|snapshot| &snapshot.left_out) {
        progress.step(&format!("not in the source: {file}"));
    }
    let shutdown = Shutdown::on_signals().map_err(|error| CliError::io("signal handlers", error))?;
    let (session, mut server) = start(global, &progress).await?;
    let stays = server.is_none();
    let work = async {
        let applied = apply::apply(&session.client, &session.namespace, &documents).await?;
        for object in &applied {
            progress.step(&format!(
                "{}/{} {}",
                object.kind.to_lowercase(),
                object.name,
                object.change.as_str()
            ));
        }
        follow_all(&session, &applied, &progress).await
    };
    let ended = tokio::select! {
        ended = follow::limited(run.timeout, "run", work) => ended.map_err(|error| match error.code {
            Code::Timeout => error.remedy(goes_on(stays, &documents, global)),
            _ => error,
        }),
        () = shutdown.requested() => {
            Err(CliError::new(Code::Interrupted, "interrupted").remedy(goes_on(stays, &documents, global)))
        }
        error = failed(&mut server) => Err(error),
    };
    drop(progress);
    if let Some(server) = server {
        server.stop().await;
    }
    let rerun = Rerun { stays, global };
    print(&ended?, run.output, &rerun, out)
}

/// Returns what happens to the trainings of an interrupted command, and the commands for it. `stays` is whether another
/// process serves the API, which goes on after this command.
fn goes_on(stays: bool, documents: &[Document], global: &Global) -> String {
    let options = options(global);
    if !stays {
        return format!(
            "the training continues with the next `legionctl local run` or `legionctl local up`{}",
            options.map_or_else(String::new, |options| format!(" with{options}"))
        );
    }
    let options = options.unwrap_or_default();
    let names: Vec<&str> = documents
        .iter()
        .filter(|document| document.value["kind"] == "ModelTraining")
        .filter_map(|document| document.value.pointer("/metadata/name")?.as_str())
        .collect();
    format!(
        "the training goes on, because the local mode is up: `legionctl wait {}{options}` waits for it, and `legionctl \
         local down{options}` stops the local mode",
        names.join(" ")
    )
}

/// Returns the options that select the API and the namespace of this command, if there are any.
fn options(global: &Global) -> Option<String> {
    let data_dir = global
        .data_dir
        .iter()
        .map(|path| format!(" --data-dir {}", path.display()));
    let namespace = global
        .namespace
        .iter()
        .map(|namespace| format!(" --namespace {namespace}"));
    let options: String = data_dir.chain(namespace).collect();
    (!options.is_empty()).then_some(options)
}

/// How a training of this command can be run again.
struct Rerun<'a> {
    /// Whether another process serves the API, which goes on after this command.
    stays: bool,
    global: &'a Global,
}

impl Rerun<'_> {
    fn commands(&self, name: &str) -> String {
        let options = options(self.global).unwrap_or_default();
        let up = match (self.stays, &self.global.data_dir) {
            (true, _) => String::new(),
            (false, None) => "legionctl local up --detach && ".to_owned(),
            (false, Some(path)) => format!("legionctl local up --detach --data-dir {} && ", path.display()),
        };
        format!("`{up}legionctl rerun {name}{options}`")
    }
}

/// Connects to the local API if it is up, or else starts one for this command.
async fn start(global: &Global, progress: &Progress) -> Result<(Session, Option<Server>)> {
    let data_dir = DataDir::choose(global.data_dir.as_deref())?;
    let lock = loop {
        match data_dir.lock(false)? {
            Ok(lock) => break lock,
            Err(Some(holder)) if !holder.stays => {
                progress.step(&format!(
                    "waiting until another `legionctl local run` ends (pid {})",
                    holder.pid
                ));
                let waiting = data_dir.clone();
                tokio::task::spawn_blocking(move || waiting.wait_until_down())
                    .await
                    .map_err(|error| CliError::io("waiting", error))??;
            }
            Err(_) => {
                let own = Global {
                    // The data directory selects the API, not KUBECONFIG.
                    kubeconfig: Some(data_dir.kubeconfig()),
                    ..global.clone()
                };
                let session = client::reach(&own).await?;
                return Ok((session, None));
            }
        }
    };
    let mut say = |text: &str| progress.step(text);
    let server = Server::start(data_dir, lock, None, &mut say).await?;
    let namespace = global.namespace.clone().unwrap_or_else(|| "default".to_owned());
    let session = Session {
        client: server.client(&namespace),
        namespace,
        data_dir: Some(server.data_dir().clone()),
    };
    progress.step(&format!("local API at {}", server.url()));
    Ok((session, Some(server)))
}

/// Resolves when the operator of this process has ended. Never resolves if another process runs the operator.
async fn failed(server: &mut Option<Server>) -> CliError {
    match server {
        Some(server) => server.failed().await,
        None => std::future::pending().await,
    }
}

/// A training of the file after its end.
struct EndedTraining {
    followed: Followed,
    /// Points for the plots.
    series: Result<Vec<MetricPoint>>,
    /// Whether nothing was started, because the current run had ended before.
    unchanged: bool,
}

async fn follow_all(session: &Session, applied: &[Applied], progress: &Progress) -> Result<Vec<EndedTraining>> {
    let mut all = Vec::new();
    for object in applied.iter().filter(|object| object.kind == "ModelTraining") {
        let session = session.in_namespace(object.namespace.as_deref());
        let api: Api<ModelTraining> = Api::namespaced(session.client.clone(), &session.namespace);
        let current = api.get(&object.name).await?;
        let digest = source_digest(&session, &current).await?;
        // The operator sees a changed ConfigMap a moment later than a changed spec. A status for the old content does
        // not count.
        let accept = |training: &ModelTraining| {
            digest.is_none()
                || training
                    .status
                    .as_ref()
                    .and_then(|status| status.run.as_ref())
                    .is_none_or(|run| run.source_digest == digest)
        };
        let unchanged =
            object.change == Change::Unchanged && training::state(&current) != TrainingState::Open && accept(&current);
        let followed = if unchanged {
            Followed {
                training: current,
                overhead: Overhead::default(),
            }
        } else {
            follow::follow(&session, &current, progress, accept).await?
        };
        // Read while the API is up, because it has the address of the store.
        let series = stored::series(&session, &followed.training).await;
        all.push(EndedTraining {
            followed,
            series,
            unchanged,
        });
    }
    Ok(all)
}

/// Returns the digest of a ConfigMap source, as in the status of a run.
async fn source_digest(session: &Session, training: &ModelTraining) -> Result<Option<String>> {
    let Some(source) = &training.spec.source.config_map else {
        return Ok(None);
    };
    let api: Api<ConfigMap> = Api::namespaced(session.client.clone(), &session.namespace);
    let config_map = api.get_opt(source.name.as_ref()).await?;
    Ok(config_map.and_then(|config_map| ConfigMapContent::of(&config_map, source).digest.ok()))
}

fn print(ended: &[EndedTraining], format: Format, rerun: &Rerun<'_>, out: &mut dyn Write) -> Result<Code> {
    let mut code = Code::Ok;
    for one in ended {
        if training::state(&one.followed.training).code() != Code::Ok {
            code = Code::Failed;
        }
    }
    match (format, ended) {
        (Format::Json | Format::Yaml, [one]) => output::structured(out, format, &one.followed.training)?,
        (Format::Json | Format::Yaml, _) => {
            let items: Vec<&ModelTraining> = ended.iter().map(|one| &one.followed.training).collect();
            output::structured(
                out,
                format,
                &json!({"apiVersion": "v1", "kind": "List", "items": items}),
            )?;
        }
        (Format::Table, _) => {
            for one in ended {
                output::line(out, format_args!("{}", report::outcome(&one.followed.training)))?;
            }
        }
        (Format::Report, _) => {
            for one in ended {
                let training = &one.followed.training;
                output::bytes(out, report::render(training, &one.series, report::width()).as_bytes())?;
                if let Some(line) = overhead(&one.followed.overhead) {
                    output::line(out, format_args!("\n{line}"))?;
                }
                if one.unchanged {
                    let run = training::run_id(training).unwrap_or_default();
                    output::line(
                        out,
                        format_args!(
                            "\nnothing was started: the manifest is unchanged since run {run}; {} trains again",
                            rerun.commands(training.metadata.name.as_deref().unwrap_or_default())
                        ),
                    )?;
                }
            }
        }
    }
    Ok(code)
}

fn overhead(overhead: &Overhead) -> Option<String> {
    let (start, finish) = (overhead.start?, overhead.finish?);
    Some(format!(
        "overhead: pod created -> trainer's exec {} ms (without fetch {} ms, environment {} ms); trainer's exit -> end {} ms",
        start.as_millis(),
        overhead.fetch.as_millis(),
        overhead.environment.as_millis(),
        finish.as_millis()
    ))
}
