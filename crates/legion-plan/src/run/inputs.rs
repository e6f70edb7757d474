//! The parts of a run's pinned inputs that all kinds share, and how they are resolved.

use std::{
    collections::BTreeMap,
    path::{Component, Path},
    sync::Arc,
};

use k8s_openapi::api::core::v1::EnvVar;
use legion_api::{
    Connection, ConnectionType, Problem, Reason, ToolchainIntegration, json::JsonObject, resources::Resources,
};
use legion_protocol::task::{DataTask, OutputTask, SourceTask, WireStore};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    Settings,
    connection::{self, Place},
    image,
    schema::Schema,
    toolchain,
};

/// What a run uses of its toolchain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ToolInput {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) generation: i64,
    /// `spec.image` of the run's object, or else the toolchain's.
    pub(crate) image: String,
    pub(crate) command: Vec<String>,
    pub(crate) format: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) env: Vec<EnvVar>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) resources: Option<Resources>,
    #[serde(default)]
    pub(crate) read_only_root_filesystem: bool,
}

/// The source of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SourceInput {
    pub(crate) task: SourceTask,
    /// Name of the ConfigMap, Connection or PersistentVolumeClaim; empty for a public repository.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) name: String,
    /// Address, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) uri: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mount: Option<StorageMount>,
}

/// A data binding of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct DataInput {
    pub(crate) task: DataTask,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mount: Option<StorageMount>,
}

/// The output of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct OutputInput {
    pub(crate) task: OutputTask,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mount: Option<StorageMount>,
}

/// What is mounted as the storage of a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum StorageMount {
    Claim(String),
    Directory(String),
}

/// Returns the Secret of a store.
pub(crate) fn secret_of(store: &WireStore) -> Option<&str> {
    let (WireStore::S3 { secret, .. } | WireStore::Http { secret, .. }) = store else {
        return None;
    };
    Some(secret.as_str()).filter(|secret| !secret.is_empty())
}

impl SourceInput {
    pub(crate) fn secret(&self) -> Option<&str> {
        match &self.task {
            SourceTask::Git { secret, .. } => Some(secret.as_str()).filter(|secret| !secret.is_empty()),
            SourceTask::ObjectStore { store, .. } => secret_of(store),
            SourceTask::ConfigMap { .. } | SourceTask::Volume { .. } => None,
        }
    }
}

/// The objects that a spec can refer to, as far as they exist.
#[derive(Clone, Copy)]
pub(crate) struct References<'a> {
    pub(crate) namespace: &'a str,
    /// The toolchain in the namespace of the run.
    pub(crate) toolchain: Option<&'a ToolchainIntegration>,
    /// The toolchain in the platform's namespace.
    pub(crate) platform_toolchain: Option<&'a ToolchainIntegration>,
    pub(crate) connections: &'a BTreeMap<String, Arc<Connection>>,
    pub(crate) default_outputs: &'a [Arc<Connection>],
}

/// A toolchain and its namespace.
#[derive(Clone, Copy)]
pub(crate) struct FoundToolchain<'a> {
    pub(crate) name: &'a str,
    namespace: &'a str,
    pub(crate) object: &'a ToolchainIntegration,
}

/// Where a run's output is to be stored.
pub(crate) struct OutputRequest<'a> {
    /// Connection and path template of the spec.
    pub(crate) given: Option<(&'a str, &'a str)>,
    /// Path template without `given`.
    pub(crate) default_template: &'a str,
    /// Placeholders of the template and their values.
    pub(crate) placeholders: &'a [(&'a str, &'a str)],
    pub(crate) uid: &'a str,
    pub(crate) run_id: &'a str,
}

/// Resolves the references of a spec and collects the problems.
pub(crate) struct Resolver<'a> {
    pub(crate) references: References<'a>,
    pub(crate) settings: &'a Settings,
    pub(crate) problems: Vec<Problem>,
}

impl<'a> Resolver<'a> {
    pub(crate) fn problem(&mut self, reason: Reason, field: impl Into<String>, message: impl Into<String>) {
        self.problems.push(Problem::new(reason, field, message));
    }

    pub(crate) fn toolchain(&mut self, name: &'a str) -> Option<FoundToolchain<'a>> {
        let References {
            namespace,
            toolchain: own,
            platform_toolchain: platform,
            ..
        } = self.references;
        let settings = self.settings;
        let own = own.map(|found| (namespace, found));
        let platform = || platform.map(|found| (settings.platform_namespace.as_str(), found));
        let Some((namespace, object)) = own.or_else(platform) else {
            let message = format!(
                "ToolchainIntegration {name:?} is registered neither in namespace {namespace:?} nor in {:?}",
                settings.platform_namespace
            );
            self.problem(Reason::ToolchainNotFound, "spec.toolchain", message);
            return None;
        };
        // The toolchain is checked here too: its own status may not be written yet.
        if let Some(problem) = toolchain::problems(&object.spec).first() {
            let message = format!("ToolchainIntegration {name:?} in namespace {namespace:?} cannot be used: {problem}");
            self.problem(Reason::ToolchainNotReady, "spec.toolchain", message);
            return None;
        }
        Some(FoundToolchain {
            name,
            namespace,
            object,
        })
    }

    /// Checks `spec.args` and `spec.arguments`. Returns the arguments with their defaults.
    pub(crate) fn arguments(
        &mut self,
        tool: FoundToolchain<'_>,
        args: &[String],
        arguments: Option<&JsonObject>,
    ) -> Map<String, Value> {
        let name = tool.name;
        if !args.is_empty() && !tool.object.spec.accepts_args {
            let message = format!("toolchain {name:?} takes no arguments on its command line");
            self.problems
                .push(Problem::new(Reason::InvalidSpec, "spec.args", message).with_remedy(
                    "remove spec.args: settings of the toolchain belong in spec.arguments, settings of the code in \
                     spec.hyperParameters",
                ));
        }
        let given = arguments.map(|given| given.0.clone()).unwrap_or_default();
        match &tool.object.spec.arguments {
            Some(schema) => self.check(Reason::InvalidArguments, "spec.arguments", &schema.to_value(), &given),
            None if given.is_empty() => given,
            None => {
                let names: Vec<&str> = given.keys().map(String::as_str).collect();
                let message = format!("toolchain {name:?} takes no arguments, but got {}", names.join(", "));
                self.problem(Reason::InvalidArguments, "spec.arguments", message);
                given
            }
        }
    }

    /// Checks `spec.image` and `spec.env`. Returns what the run uses of its toolchain.
    pub(crate) fn tool_input(&mut self, tool: FoundToolchain<'_>, image: Option<&str>, env: &[EnvVar]) -> ToolInput {
        if let Some(image) = image
            && let Err(error) = image::check(image)
        {
            self.problem(Reason::InvalidSpec, "spec.image", format!("{image:?} {error}"));
        }
        self.problems.extend(toolchain::reserved_env(env));
        let spec = &tool.object.spec;
        ToolInput {
            namespace: tool.namespace.to_owned(),
            name: tool.name.to_owned(),
            generation: tool.object.metadata.generation.unwrap_or_default(),
            image: image.unwrap_or(&spec.image).to_owned(),
            command: spec.command.clone(),
            format: spec.format.clone(),
            env: spec.env.clone(),
            resources: spec.resources.clone(),
            read_only_root_filesystem: spec
                .security_context
                .as_ref()
                .is_some_and(|context| context.read_only_root_filesystem),
        }
    }

    /// Checks `given` against a schema of the toolchain. Returns it with defaults.
    pub(crate) fn check(
        &mut self,
        reason: Reason,
        field: &str,
        schema: &Value,
        given: &Map<String, Value>,
    ) -> Map<String, Value> {
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

    /// Returns the named connection, if it exists, is usable and has one of the types.
    pub(crate) fn connection(
        &mut self,
        field: &str,
        name: &str,
        types: &[ConnectionType],
    ) -> Option<(&'a Connection, Place)> {
        let References {
            namespace, connections, ..
        } = self.references;
        let Some(found) = connections.get(name) else {
            let message = format!("there is no Connection {name:?} in namespace {namespace:?}");
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
                "Connection {name:?} has type {:?}, but this field needs one of {}",
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

    pub(crate) fn output(&mut self, request: &OutputRequest<'_>) -> Option<OutputInput> {
        const TYPES: [ConnectionType; 3] = [ConnectionType::S3, ConnectionType::Pvc, ConnectionType::Local];
        let (template, (found, place)) = match request.given {
            Some((name, template)) => (template, self.connection("spec.output.connection", name, &TYPES)?),
            None => {
                let found = self.default_output()?;
                let name = found.metadata.name.as_deref().unwrap_or_default();
                let usable = self.usable("spec.output", name, found, &TYPES)?;
                (request.default_template, usable)
            }
        };
        let name = match request.given {
            Some((name, _)) => name,
            None => found.metadata.name.as_deref().unwrap_or_default(),
        };
        let path = self.output_path(template, request)?;
        let (store, mount) = store(found, place);
        let task = OutputTask {
            connection: name.to_owned(),
            store,
            path,
            record: format!(".legion/{}/{}.json", request.uid, request.run_id),
            uri: found.spec.uri.trim_end_matches('/').to_owned(),
        };
        Some(OutputInput { task, mount })
    }

    fn default_output(&mut self) -> Option<&'a Connection> {
        let References {
            namespace,
            default_outputs,
            ..
        } = self.references;
        match default_outputs {
            [one] => Some(one),
            [] => {
                let message = format!("not given, and namespace {namespace:?} has no default output");
                self.problem(Reason::DefaultOutputMissing, "spec.output", message);
                None
            }
            several => {
                let mut names: Vec<&str> = several.iter().filter_map(|c| c.metadata.name.as_deref()).collect();
                names.sort_unstable();
                let message = format!(
                    "not given, and namespace {namespace:?} has several default outputs: {}",
                    names.join(", ")
                );
                self.problem(Reason::DefaultOutputAmbiguous, "spec.output", message);
                None
            }
        }
    }

    fn output_path(&mut self, template: &str, request: &OutputRequest<'_>) -> Option<String> {
        let path = request
            .placeholders
            .iter()
            .fold(template.to_owned(), |path, (placeholder, value)| {
                path.replace(placeholder, value)
            });
        let bad_part = |part: &str| {
            matches!(part, "" | "." | "..") || part.contains(['{', '}']) || part.contains(char::is_control)
        };
        if !template.contains("{runId}") || path.split('/').any(bad_part) || path.starts_with(".legion/") {
            let message =
                format!("{template:?} must be a relative path outside .legion/ that is different for each run");
            self.problem(Reason::InvalidSpec, "spec.output.pathTemplate", message);
            return None;
        }
        Some(path)
    }
}

/// Returns the store of a connection, and what must be mounted for it.
pub(crate) fn store(connection: &Connection, place: Place) -> (WireStore, Option<StorageMount>) {
    let spec = &connection.spec;
    let secret = spec
        .secret_ref
        .as_ref()
        .map(|secret| secret.name.to_string())
        .unwrap_or_default();
    match place {
        Place::S3 { bucket, prefix } => {
            let store = WireStore::S3 {
                bucket,
                prefix,
                endpoint: spec.endpoint.clone().unwrap_or_default(),
                region: spec.region.clone().unwrap_or_default(),
                secret,
            };
            (store, None)
        }
        Place::Http { uri } | Place::Git { uri } => (WireStore::Http { uri, secret }, None),
        Place::Pvc { claim, path } => (WireStore::Volume { path }, Some(StorageMount::Claim(claim))),
        Place::Local { directory } => (
            WireStore::Volume { path: String::new() },
            Some(StorageMount::Directory(directory)),
        ),
    }
}

pub(crate) fn joined(root: &str, path: &str) -> String {
    let root = root.trim_end_matches('/');
    if path.is_empty() {
        root.to_owned()
    } else {
        format!("{root}/{path}")
    }
}

/// Returns a relative path without `.` and doubled slashes. Parts that lead upwards are refused elsewhere and dropped
/// here.
pub(crate) fn normal(path: &str) -> String {
    let parts = Path::new(path).components().filter_map(|part| match part {
        Component::Normal(part) => part.to_str(),
        _ => None,
    });
    parts.collect::<Vec<_>>().join("/")
}
