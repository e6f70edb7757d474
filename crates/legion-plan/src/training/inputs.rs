//! The inputs of a training's run. They are resolved once, when the first attempt is planned, and pinned for all later
//! attempts.

use legion_api::{
    ConnectionType, ModelTrainingSpec, Problem, Reason, ToolchainIntegration,
    training::{DataBinding, GitSource},
};
use legion_protocol::task::{DataTask, SourceTask};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::world::World;
use crate::{
    Settings,
    connection::Place,
    run::{
        inputs::{
            DataInput, OutputInput, OutputRequest, Resolver, SourceInput, StorageMount, ToolInput, joined, normal,
            secret_of, store,
        },
        lines,
        volumes::Slot,
    },
};

/// Version of this document.
const VERSION: u32 = 1;

/// Path template of an output without `spec.output`.
const DEFAULT_TEMPLATE: &str = "{namespace}/{training}/{runId}";

/// The inputs of a run. They are stored as JSON in an annotation of the pod, and as lines in `status.run.inputs`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Inputs {
    pub(super) version: u32,
    pub(super) toolchain: ToolInput,
    /// `spec.arguments` with the defaults of the toolchain's schema.
    pub(super) arguments: Map<String, Value>,
    pub(super) source: SourceInput,
    pub(super) data: Vec<DataInput>,
    pub(super) output: OutputInput,
}

impl Inputs {
    pub(super) fn to_json(&self) -> String {
        // Plain data with string keys: it always serializes.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads inputs that an operator of this version wrote. Any other text counts as absent.
    pub(super) fn from_json(text: &str) -> Option<Self> {
        Self::from_value(serde_json::from_str(text).ok()?)
    }

    /// Returns the lines for `status.run.inputs`.
    pub(super) fn to_lines(&self) -> Vec<String> {
        lines::to_lines(&serde_json::to_value(self).unwrap_or_default())
    }

    /// Reads the lines of [`Self::to_lines`]. Any other lines count as absent.
    pub(super) fn from_lines(lines: &[String]) -> Option<Self> {
        Self::from_value(lines::from_lines(lines)?)
    }

    fn from_value(value: Value) -> Option<Self> {
        serde_json::from_value::<Self>(value)
            .ok()
            .filter(|inputs| inputs.version == VERSION)
    }

    /// Pins the commit that `fetch` found.
    pub(super) fn pin_commit(&mut self, found: &str) {
        if let SourceTask::Git { commit, .. } = &mut self.source.task
            && commit.is_empty()
        {
            found.clone_into(commit);
        }
    }

    /// Returns the commit of a git source, once it is known.
    pub(super) fn commit(&self) -> Option<&str> {
        match &self.source.task {
            SourceTask::Git { commit, .. } if !commit.is_empty() => Some(commit),
            _ => None,
        }
    }

    /// Returns the fields of the training that name claims, and the claims.
    pub(super) fn claims(&self) -> Vec<(String, &str)> {
        let data = self.data.iter().enumerate();
        let data = data.map(|(index, data)| (format!("spec.data[{index}]"), data.mount.as_ref()));
        [
            ("spec.source.volume.claimName".to_owned(), self.source.mount.as_ref()),
            ("spec.output".to_owned(), self.output.mount.as_ref()),
        ]
        .into_iter()
        .chain(data)
        .filter_map(|(field, mount)| match mount {
            Some(StorageMount::Claim(claim)) => Some((field, claim.as_str())),
            _ => None,
        })
        .collect()
    }

    /// Returns the places that `fetch` reads source and data from.
    pub(super) fn sources(&self) -> Vec<Slot<'_>> {
        let source = Slot {
            name: "source",
            secret: self.source.secret(),
            storage: self.source.mount.as_ref(),
            writable: false,
        };
        let data = self.data.iter().map(|data| Slot {
            name: &data.task.slot,
            secret: secret_of(&data.task.store),
            storage: data.mount.as_ref(),
            writable: false,
        });
        std::iter::once(source).chain(data).collect()
    }

    pub(super) fn output_slot(&self) -> Slot<'_> {
        Slot {
            name: "output",
            secret: secret_of(&self.output.task.store),
            storage: self.output.mount.as_ref(),
            writable: true,
        }
    }
}

/// Resolves everything that a training refers to.
///
/// # Errors
/// All missing or wrong references.
pub(super) fn resolve(
    world: &World,
    settings: &Settings,
    run_id: &str,
    source_digest: Option<&str>,
) -> Result<Inputs, Vec<Problem>> {
    let spec = &world.training.spec;
    let mut resolver = Resolver {
        references: world.references(),
        settings,
        problems: Vec::new(),
    };
    let toolchain = resolver.toolchain(spec.toolchain.as_str()).map(|tool| {
        let arguments = resolver.arguments(tool, &spec.args, spec.arguments.as_ref());
        check_hyper_parameters(&mut resolver, spec, tool.object);
        (resolver.tool_input(tool, spec.image.as_deref(), &spec.env), arguments)
    });
    let source = resolve_source(&mut resolver, spec, source_digest);
    let data = resolve_data(&mut resolver, spec);
    let output = resolve_output(&mut resolver, world, run_id);
    match (toolchain, source, output) {
        (Some((toolchain, arguments)), Some(source), Some(output)) if resolver.problems.is_empty() => Ok(Inputs {
            version: VERSION,
            toolchain,
            arguments,
            source,
            data,
            output,
        }),
        _ => Err(resolver.problems),
    }
}

fn check_hyper_parameters(resolver: &mut Resolver<'_>, spec: &ModelTrainingSpec, tool: &ToolchainIntegration) {
    let Some(schema) = &tool.spec.hyper_parameters_schema else {
        return;
    };
    let given = spec
        .hyper_parameters
        .iter()
        .map(|(name, text)| (name.clone(), Value::String(text.clone())))
        .collect();
    resolver.check(
        Reason::InvalidHyperParameters,
        "spec.hyperParameters",
        &schema.to_value(),
        &given,
    );
}

fn resolve_source(resolver: &mut Resolver<'_>, spec: &ModelTrainingSpec, digest: Option<&str>) -> Option<SourceInput> {
    let source = &spec.source;
    let given = [
        source.git.is_some(),
        source.config_map.is_some(),
        source.object_store.is_some(),
        source.volume.is_some(),
    ];
    if given.iter().filter(|given| **given).count() != 1 {
        resolver.problem(
            Reason::InvalidSpec,
            "spec.source",
            "exactly one of git, configMap, objectStore and volume must be given",
        );
        return None;
    }
    if let Some(git) = &source.git {
        return resolve_git(resolver, git);
    }
    if let Some(config_map) = &source.config_map {
        let task = SourceTask::ConfigMap {
            name: config_map.name.to_string(),
            digest: digest.unwrap_or_default().to_owned(),
        };
        return Some(SourceInput {
            task,
            name: config_map.name.to_string(),
            uri: String::new(),
            mount: None,
        });
    }
    if let Some(wanted) = &source.object_store {
        let name = wanted.connection.as_str();
        let (found, place) = resolver.connection("spec.source.objectStore.connection", name, &[ConnectionType::S3])?;
        let (store, mount) = store(found, place);
        let path = wanted.path.clone().unwrap_or_default();
        return Some(SourceInput {
            uri: joined(&found.spec.uri, &path),
            task: SourceTask::ObjectStore { store, path },
            name: name.to_owned(),
            mount,
        });
    }
    let volume = source.volume.as_ref()?;
    Some(SourceInput {
        task: SourceTask::Volume {
            path: volume.path.clone().unwrap_or_default(),
        },
        name: volume.claim_name.to_string(),
        uri: String::new(),
        mount: Some(StorageMount::Claim(volume.claim_name.to_string())),
    })
}

fn resolve_git(resolver: &mut Resolver<'_>, git: &GitSource) -> Option<SourceInput> {
    let (uri, name, default_reference, secret, known_hosts) = match (&git.uri, &git.connection) {
        (_, Some(name)) => {
            let (found, place) =
                resolver.connection("spec.source.git.connection", name.as_str(), &[ConnectionType::Git])?;
            let Place::Git { uri } = place else { return None };
            let spec = &found.spec;
            let secret = spec.secret_ref.as_ref().map(|secret| secret.name.to_string());
            (
                uri,
                name.to_string(),
                spec.reference.clone(),
                secret,
                spec.known_hosts.clone(),
            )
        }
        (Some(uri), None) => (uri.clone(), String::new(), None, None, None),
        (None, None) => {
            resolver.problem(
                Reason::InvalidSpec,
                "spec.source.git",
                "exactly one of uri and connection must be given",
            );
            return None;
        }
    };
    let task = SourceTask::Git {
        uri: uri.clone(),
        reference: git.reference.clone().or(default_reference).unwrap_or_default(),
        commit: String::new(),
        submodules: git.submodules,
        secret: secret.unwrap_or_default(),
        known_hosts: known_hosts.unwrap_or_default(),
    };
    Some(SourceInput {
        task,
        name,
        uri,
        mount: None,
    })
}

fn resolve_data(resolver: &mut Resolver<'_>, spec: &ModelTrainingSpec) -> Vec<DataInput> {
    const TYPES: [ConnectionType; 4] = [
        ConnectionType::S3,
        ConnectionType::Http,
        ConnectionType::Pvc,
        ConnectionType::Local,
    ];
    check_local_paths(resolver, &spec.data);
    let mut inputs = Vec::with_capacity(spec.data.len());
    for (index, binding) in spec.data.iter().enumerate() {
        let field = format!("spec.data[{index}].connection");
        let Some((found, place)) = resolver.connection(&field, binding.connection.as_str(), &TYPES) else {
            continue;
        };
        let (store, mount) = store(found, place);
        let remote_path = binding.remote_path.clone().unwrap_or_default();
        inputs.push(DataInput {
            task: DataTask {
                name: binding.name.to_string(),
                slot: format!("data-{index}"),
                store,
                uri: joined(&found.spec.uri, &remote_path),
                remote_path,
                local_path: binding.local_path.as_deref().map(local_path).unwrap_or_default(),
                digest: binding.digest.clone().unwrap_or_default(),
            },
            mount,
        });
    }
    inputs
}

/// Returns a path below the project. A slash at its end stays: it puts a file into that directory.
fn local_path(given: &str) -> String {
    let path = normal(given);
    if given.ends_with('/') && !path.is_empty() {
        path + "/"
    } else {
        path
    }
}

/// Refuses two bindings at, above or below the same path.
fn check_local_paths(resolver: &mut Resolver<'_>, data: &[DataBinding]) {
    let mut taken: Vec<(String, &str)> = Vec::new();
    for (index, binding) in data.iter().enumerate() {
        let Some(given) = binding.local_path.as_deref() else {
            continue;
        };
        let field = format!("spec.data[{index}].localPath");
        let path = normal(given);
        let escapes = given.starts_with('/') || given.split('/').any(|part| part == "..");
        if escapes || path.is_empty() || given.contains(char::is_control) {
            let problem = Problem::new(
                Reason::InvalidSpec,
                field,
                format!("{given:?} is not a path below the project's directory"),
            );
            resolver
                .problems
                .push(problem.with_remedy("write a relative path without \"..\", such as data/train.csv"));
            continue;
        }
        let below = |a: &str, b: &str| a == b || a.strip_prefix(b).is_some_and(|rest| rest.starts_with('/'));
        if let Some((other, name)) = taken
            .iter()
            .find(|(other, _)| below(&path, other) || below(other, &path))
        {
            let message = format!(
                "{given:?} of binding {:?} is at, above or below {other:?} of binding {name:?}",
                binding.name.as_str()
            );
            resolver
                .problems
                .push(Problem::new(Reason::InvalidSpec, field, message).with_remedy("give each binding its own path"));
        }
        taken.push((path, binding.name.as_str()));
    }
}

fn resolve_output(resolver: &mut Resolver<'_>, world: &World, run_id: &str) -> Option<OutputInput> {
    let spec = &world.training.spec;
    resolver.output(&OutputRequest {
        given: spec
            .output
            .as_ref()
            .map(|output| (output.connection.as_str(), output.path_template.as_str())),
        default_template: DEFAULT_TEMPLATE,
        placeholders: &[
            ("{namespace}", world.namespace()),
            ("{training}", world.name()),
            ("{model}", spec.model.name.as_str()),
            ("{version}", &spec.model.version),
            ("{runId}", run_id),
        ],
        uid: world.uid(),
        run_id,
    })
}
