//! What a run is pinned to: resolved once, when its first attempt is planned, and used by every later attempt.

use std::path::{Component, Path};

use k8s_openapi::api::core::v1::EnvVar;
use legion_api::{
    Connection, ConnectionType, ModelTrainingSpec, Problem, Reason, ToolchainIntegration,
    resources::Resources,
    training::{self as api, DataBinding},
};
use legion_protocol::task::{DataTask, OutputTask, SourceTask, Store};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::world::World;
use crate::{Settings, connection, connection::Place, schema::Schema, toolchain};

/// Version of this document.
const VERSION: u32 = 1;

/// The inputs of a run. Kept as JSON in an annotation of the pod and in `status.run.inputs`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Inputs {
    pub version: u32,
    pub toolchain: ToolInput,
    /// `spec.arguments` with the defaults of the toolchain's schema.
    pub arguments: Map<String, Value>,
    pub source: SourceInput,
    pub data: Vec<DataInput>,
    pub output: OutputInput,
}

/// What a run takes from its toolchain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ToolInput {
    pub namespace: String,
    pub name: String,
    pub generation: i64,
    /// The training's image, or else the toolchain's.
    pub image: String,
    pub command: Vec<String>,
    pub format: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    #[serde(default)]
    pub read_only_root_filesystem: bool,
}

/// The source of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SourceInput {
    pub task: SourceTask,
    /// Name of the ConfigMap, Connection or PersistentVolumeClaim; empty for a public repository.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Address for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uri: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount: Option<Mount>,
}

/// A data binding of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct DataInput {
    pub task: DataTask,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount: Option<Mount>,
}

/// The output of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct OutputInput {
    pub task: OutputTask,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount: Option<Mount>,
}

/// What is mounted as a slot's storage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Mount {
    Claim(String),
    Directory(String),
}

/// The Secret that a store needs, if it needs one.
pub(crate) fn secret_of(store: &Store) -> Option<&str> {
    let (Store::S3 { secret, .. } | Store::Http { secret, .. }) = store else {
        return None;
    };
    Some(secret.as_str()).filter(|secret| !secret.is_empty())
}

impl SourceInput {
    /// The Secret that the source needs, if it needs one.
    pub(crate) fn secret(&self) -> Option<&str> {
        match &self.task {
            SourceTask::Git { secret, .. } => Some(secret.as_str()).filter(|secret| !secret.is_empty()),
            SourceTask::ObjectStore { store, .. } => secret_of(store),
            SourceTask::ConfigMap { .. } | SourceTask::Volume { .. } => None,
        }
    }
}

impl Inputs {
    pub(crate) fn to_json(&self) -> String {
        // Plain data with string keys: it always serialises.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads what an operator of this version wrote. Anything else is treated as absent.
    pub(crate) fn from_json(text: &str) -> Option<Self> {
        serde_json::from_str::<Self>(text)
            .ok()
            .filter(|inputs| inputs.version == VERSION)
    }

    /// The same inputs with the commit that `fetch` found.
    pub(crate) fn pin_commit(&mut self, found: &str) {
        if let SourceTask::Git { commit, .. } = &mut self.source.task
            && commit.is_empty()
        {
            found.clone_into(commit);
        }
    }

    /// The field of the training that a claim comes from, if `text` speaks of that claim in quotes.
    pub(crate) fn field_of_claim_in(&self, text: &str) -> Option<String> {
        let mut claims = self.claims();
        claims.find_map(|(field, claim)| text.contains(&format!("{claim:?}")).then_some(field))
    }

    /// The fields of the training that claims come from, and the claims.
    pub(crate) fn claims(&self) -> impl Iterator<Item = (String, &str)> {
        let source = self.source.mount.as_ref();
        let output = self.output.mount.as_ref();
        let data = self.data.iter().enumerate();
        let data = data.map(|(index, data)| (format!("spec.data[{index}]"), data.mount.as_ref()));
        [
            ("spec.source.volume.claimName".to_owned(), source),
            ("spec.output".to_owned(), output),
        ]
        .into_iter()
        .chain(data)
        .filter_map(|(field, mount)| match mount {
            Some(Mount::Claim(claim)) => Some((field, claim.as_str())),
            _ => None,
        })
    }

    /// The commit of a git source, once it is known.
    pub(crate) fn commit(&self) -> Option<&str> {
        match &self.source.task {
            SourceTask::Git { commit, .. } if !commit.is_empty() => Some(commit),
            _ => None,
        }
    }
}

/// Resolves everything that a run refers to.
///
/// # Errors
/// All that is missing or wrong.
pub(crate) fn resolve(
    world: &World,
    settings: &Settings,
    run_id: &str,
    source_digest: Option<&str>,
) -> Result<Inputs, Vec<Problem>> {
    let spec = &world.training.spec;
    let mut resolver = Resolver {
        world,
        settings,
        problems: Vec::new(),
    };
    let toolchain = resolver.toolchain(spec);
    let source = resolver.source(spec, source_digest);
    let data = resolver.data(spec);
    let output = resolver.output(spec, run_id);
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

struct Resolver<'a> {
    world: &'a World,
    settings: &'a Settings,
    problems: Vec<Problem>,
}

impl<'a> Resolver<'a> {
    fn problem(&mut self, reason: Reason, field: impl Into<String>, message: impl Into<String>) {
        self.problems.push(Problem::new(reason, field, message));
    }

    fn toolchain(&mut self, spec: &ModelTrainingSpec) -> Option<(ToolInput, Map<String, Value>)> {
        let name = spec.toolchain.as_str();
        let world = self.world;
        let own = world.toolchain.as_ref().map(|found| (world.namespace(), found));
        let platform = || {
            world
                .platform_toolchain
                .as_ref()
                .map(|found| (self.settings.platform_namespace.as_str(), found))
        };
        let Some((namespace, found)) = own.or_else(platform) else {
            let message = format!(
                "ToolchainIntegration {name:?} is registered neither in namespace {:?} nor in {:?}",
                world.namespace(),
                self.settings.platform_namespace
            );
            self.problem(Reason::ToolchainNotFound, "spec.toolchain", message);
            return None;
        };
        // The toolchain's own verdict, by the same rules: its status may not be written yet.
        if let Some(problem) = toolchain::problems(&found.spec).first() {
            let message = format!("ToolchainIntegration {name:?} in namespace {namespace:?} cannot be used: {problem}");
            self.problem(Reason::ToolchainNotReady, "spec.toolchain", message);
            return None;
        }
        let arguments = self.settings_of_tool(spec, found);
        if let Some(image) = &spec.image
            && let Err(error) = crate::image::check(image)
        {
            self.problem(Reason::InvalidSpec, "spec.image", format!("{image:?} {error}"));
        }
        self.problems.extend(toolchain::reserved_env(&spec.env));
        let tool = &found.spec;
        let input = ToolInput {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            generation: found.metadata.generation.unwrap_or_default(),
            image: spec.image.clone().unwrap_or_else(|| tool.image.clone()),
            command: tool.command.clone(),
            format: tool.format.clone(),
            env: tool.env.clone(),
            resources: tool.resources.clone(),
            read_only_root_filesystem: tool
                .security_context
                .as_ref()
                .is_some_and(|context| context.read_only_root_filesystem),
        };
        Some((input, arguments))
    }

    /// Checks what the training asks of the tool; returns the arguments with their defaults.
    fn settings_of_tool(&mut self, spec: &ModelTrainingSpec, tool: &ToolchainIntegration) -> Map<String, Value> {
        let name = spec.toolchain.as_str();
        if !spec.args.is_empty() && !tool.spec.accepts_args {
            self.problems.push(
                Problem::new(Reason::InvalidSpec, "spec.args", format!("toolchain {name:?} takes no arguments on its command line"))
                    .with_remedy("remove spec.args; settings of the toolchain go into spec.arguments, of the code into spec.hyperParameters"),
            );
        }
        let given = spec.arguments.as_ref().map(|given| given.0.clone()).unwrap_or_default();
        let arguments = match &tool.spec.arguments {
            Some(schema) => self.check(Reason::InvalidArguments, "spec.arguments", &schema.to_value(), &given),
            None if given.is_empty() => given,
            None => {
                let names: Vec<&str> = given.keys().map(String::as_str).collect();
                let message = format!(
                    "toolchain {name:?} takes no arguments, but is given {}",
                    names.join(", ")
                );
                self.problem(Reason::InvalidArguments, "spec.arguments", message);
                given
            }
        };
        if let Some(schema) = &tool.spec.hyper_parameters_schema {
            let given = spec
                .hyper_parameters
                .iter()
                .map(|(name, text)| (name.clone(), Value::String(text.clone())))
                .collect();
            self.check(
                Reason::InvalidHyperParameters,
                "spec.hyperParameters",
                &schema.to_value(),
                &given,
            );
        }
        arguments
    }

    /// Checks `given` by a toolchain's schema; returns it with defaults.
    fn check(&mut self, reason: Reason, field: &str, schema: &Value, given: &Map<String, Value>) -> Map<String, Value> {
        let compiled = match Schema::compile(schema) {
            Ok(compiled) => compiled,
            Err(error) => {
                self.problem(Reason::ToolchainNotReady, "spec.toolchain", error);
                return given.clone();
            }
        };
        let filled = compiled.with_defaults(given);
        for violation in compiled.violations(&Value::Object(filled.clone())) {
            let path = match violation.path.as_str() {
                "" => field.to_owned(),
                below => format!("{field}.{below}"),
            };
            self.problem(reason, path, violation.message);
        }
        filled
    }

    /// A connection that the spec names, if it is there, usable and of one of the types.
    fn connection(&mut self, field: &str, name: &str, types: &[ConnectionType]) -> Option<(&'a Connection, Place)> {
        let Some(found) = self.world.connections.get(name) else {
            let message = format!(
                "there is no Connection {name:?} in namespace {:?}",
                self.world.namespace()
            );
            self.problem(Reason::ConnectionNotFound, field, message);
            return None;
        };
        self.usable(field, name, found, types)
    }

    fn usable(
        &mut self,
        field: &str,
        name: &str,
        found: &'a Connection,
        types: &[ConnectionType],
    ) -> Option<(&'a Connection, Place)> {
        let type_ = found.spec.type_;
        if !types.contains(&type_) {
            let allowed: Vec<&str> = types.iter().map(|type_| type_.as_str()).collect();
            let message = format!(
                "Connection {name:?} is of type {:?}, which cannot serve here: {} can",
                type_.as_str(),
                allowed.join(", ")
            );
            self.problem(Reason::ConnectionTypeMismatch, field, message);
            return None;
        }
        if let Some(problem) = connection::problems(&found.spec, self.settings).into_iter().next() {
            let reason = match problem.reason {
                Reason::LocalConnectionNotAllowed => problem.reason,
                _ => Reason::ConnectionNotReady,
            };
            self.problem(
                reason,
                field,
                format!("Connection {name:?} cannot be used: {}", problem.message),
            );
            return None;
        }
        connection::place(&found.spec).ok().map(|place| (found, place))
    }

    fn source(&mut self, spec: &ModelTrainingSpec, digest: Option<&str>) -> Option<SourceInput> {
        let source = &spec.source;
        let given = [
            source.git.is_some(),
            source.config_map.is_some(),
            source.object_store.is_some(),
            source.volume.is_some(),
        ];
        if given.iter().filter(|given| **given).count() != 1 {
            self.problem(
                Reason::InvalidSpec,
                "spec.source",
                "exactly one of git, configMap, objectStore and volume must be given",
            );
            return None;
        }
        if let Some(git) = &source.git {
            return self.git(git);
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
            let (found, place) = self.connection("spec.source.objectStore.connection", name, &[ConnectionType::S3])?;
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
            mount: Some(Mount::Claim(volume.claim_name.to_string())),
        })
    }

    fn git(&mut self, git: &api::GitSource) -> Option<SourceInput> {
        let (uri, name, default_reference, secret, known_hosts) = match (&git.uri, &git.connection) {
            (_, Some(name)) => {
                let (found, place) =
                    self.connection("spec.source.git.connection", name.as_str(), &[ConnectionType::Git])?;
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
                self.problem(
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

    fn data(&mut self, spec: &ModelTrainingSpec) -> Vec<DataInput> {
        const TYPES: [ConnectionType; 4] = [
            ConnectionType::S3,
            ConnectionType::Http,
            ConnectionType::Pvc,
            ConnectionType::Local,
        ];
        self.local_paths(&spec.data);
        let mut inputs = Vec::with_capacity(spec.data.len());
        for (index, binding) in spec.data.iter().enumerate() {
            let field = format!("spec.data[{index}].connection");
            let Some((found, place)) = self.connection(&field, binding.connection.as_str(), &TYPES) else {
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
                    local_path: binding.local_path.as_deref().map(normal).unwrap_or_default(),
                    digest: binding.digest.clone().unwrap_or_default(),
                },
                mount,
            });
        }
        inputs
    }

    /// Two bindings must not lie at, or below, the same place.
    fn local_paths(&mut self, data: &[DataBinding]) {
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
                    format!("{given:?} is not a place below the project's directory"),
                );
                self.problems
                    .push(problem.with_remedy("write a relative path without \"..\", such as data/train.csv"));
                continue;
            }
            let below = |a: &str, b: &str| a == b || a.strip_prefix(b).is_some_and(|rest| rest.starts_with('/'));
            if let Some((other, name)) = taken
                .iter()
                .find(|(other, _)| below(&path, other) || below(other, &path))
            {
                let message = format!(
                    "{given:?} of binding {:?} lies at, above or below {other:?} of binding {name:?}",
                    binding.name.as_str()
                );
                self.problems.push(
                    Problem::new(Reason::InvalidSpec, field, message)
                        .with_remedy("give each binding a place of its own"),
                );
            }
            taken.push((path, binding.name.as_str()));
        }
    }

    fn output(&mut self, spec: &ModelTrainingSpec, run_id: &str) -> Option<OutputInput> {
        const TYPES: [ConnectionType; 3] = [ConnectionType::S3, ConnectionType::Pvc, ConnectionType::Local];
        let world = self.world;
        let (name, template, (found, place)) = match &spec.output {
            Some(output) => {
                let name = output.connection.as_str();
                (
                    name,
                    output.path_template.as_str(),
                    self.connection("spec.output.connection", name, &TYPES)?,
                )
            }
            None => {
                let found = match world.default_outputs.as_slice() {
                    [one] => one,
                    [] => {
                        let message = format!("not given, and namespace {:?} has no default output", world.namespace());
                        self.problem(Reason::DefaultOutputMissing, "spec.output", message);
                        return None;
                    }
                    several => {
                        let mut names: Vec<&str> = several.iter().filter_map(|c| c.metadata.name.as_deref()).collect();
                        names.sort_unstable();
                        let message = format!(
                            "not given, and namespace {:?} has several default outputs: {}",
                            world.namespace(),
                            names.join(", ")
                        );
                        self.problem(Reason::DefaultOutputAmbiguous, "spec.output", message);
                        return None;
                    }
                };
                let name = found.metadata.name.as_deref().unwrap_or_default();
                (name, DEFAULT_TEMPLATE, self.usable("spec.output", name, found, &TYPES)?)
            }
        };
        let path = template
            .replace("{namespace}", world.namespace())
            .replace("{training}", world.name())
            .replace("{model}", spec.model.name.as_str())
            .replace("{version}", &spec.model.version)
            .replace("{runId}", run_id);
        let bad_part = |part: &str| {
            matches!(part, "" | "." | "..") || part.contains(['{', '}']) || part.contains(char::is_control)
        };
        if !template.contains("{runId}") || path.split('/').any(bad_part) || path.starts_with(".legion/") {
            let message =
                format!("{template:?} does not give a relative path of its own for each run, outside .legion/");
            self.problem(Reason::InvalidSpec, "spec.output.pathTemplate", message);
            return None;
        }
        let (store, mount) = store(found, place);
        let task = OutputTask {
            connection: name.to_owned(),
            store,
            path,
            record: format!(".legion/{}/{run_id}.json", world.uid()),
            uri: found.spec.uri.trim_end_matches('/').to_owned(),
        };
        Some(OutputInput { task, mount })
    }
}

const DEFAULT_TEMPLATE: &str = "{namespace}/{training}/{runId}";

/// The store that a connection leads to, and what must be mounted for it.
fn store(connection: &Connection, place: Place) -> (Store, Option<Mount>) {
    let spec = &connection.spec;
    let secret = spec
        .secret_ref
        .as_ref()
        .map(|secret| secret.name.to_string())
        .unwrap_or_default();
    match place {
        Place::S3 { bucket, prefix } => {
            let endpoint = spec.endpoint.clone().unwrap_or_default();
            let region = spec.region.clone().unwrap_or_default();
            (
                Store::S3 {
                    bucket,
                    prefix,
                    endpoint,
                    region,
                    secret,
                },
                None,
            )
        }
        Place::Http { uri } | Place::Git { uri } => (Store::Http { uri, secret }, None),
        Place::Pvc { claim, path } => (Store::Volume { path }, Some(Mount::Claim(claim))),
        Place::Local { directory } => (Store::Volume { path: String::new() }, Some(Mount::Directory(directory))),
    }
}

fn joined(root: &str, path: &str) -> String {
    let root = root.trim_end_matches('/');
    if path.is_empty() {
        root.to_owned()
    } else {
        format!("{root}/{path}")
    }
}

/// A relative path without `.` and doubled slashes. Parts that lead upwards are refused elsewhere and dropped here.
pub(crate) fn normal(path: &str) -> String {
    let parts = Path::new(path).components().filter_map(|part| match part {
        Component::Normal(part) => part.to_str(),
        _ => None,
    });
    parts.collect::<Vec<_>>().join("/")
}
