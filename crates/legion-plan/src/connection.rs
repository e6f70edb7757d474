//! `Connection`: validation, and the parts of its URI.

use std::sync::Arc;

use jiff::Timestamp;
use legion_api::{Connection, ConnectionSpec, ConnectionStatus, ConnectionType, Problem, Reason};
use legion_protocol::git_address;

use crate::{
    Settings,
    conditions::{self, Explanation},
    plan::{Outcome, Plan, StatusPatch, status_patch},
};

/// The input of a decision about a connection.
#[derive(Debug, Clone)]
pub struct World {
    /// The connection, as the watch shows it.
    pub connection: Arc<Connection>,
}

/// The parts of a connection's URI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// A git repository.
    Git {
        /// In the form of git.
        uri: String,
    },
    /// A bucket of an S3-compatible store.
    S3 {
        /// The bucket.
        bucket: String,
        /// Without slashes at the start and end; empty for the whole bucket.
        prefix: String,
    },
    /// A web server.
    Http {
        /// Base address, without a slash at the end.
        uri: String,
    },
    /// A PersistentVolumeClaim.
    Pvc {
        /// The claim.
        claim: String,
        /// Directory below the volume's root, without slashes at the start and end.
        path: String,
    },
    /// A directory of the machine.
    Local {
        /// Absolute.
        directory: String,
    },
}

/// Parses a connection's URI.
///
/// # Errors
/// The URI does not have the form of the connection's type. The CRD has the same rule, but an older CRD may not.
pub(crate) fn place(spec: &ConnectionSpec) -> Result<Place, Problem> {
    let wrong = |form: &str| {
        Problem::new(
            Reason::InvalidSpec,
            "spec.uri",
            format!("{:?} does not have the form {form}", spec.uri),
        )
        .with_remedy(format!("write {form}"))
    };
    let uri = spec.uri.as_str();
    if uri.split('/').any(|part| part == "..") {
        return Err(Problem::new(
            Reason::InvalidSpec,
            "spec.uri",
            format!("{uri:?} contains \"..\""),
        ));
    }
    if uri.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(Problem::new(
            Reason::InvalidSpec,
            "spec.uri",
            format!("{uri:?} contains white space or a control character"),
        ));
    }
    match spec.type_ {
        ConnectionType::Git => {
            if git_address::parse(uri).is_ok() {
                Ok(Place::Git { uri: uri.to_owned() })
            } else {
                Err(wrong(git_address::FORM))
            }
        }
        ConnectionType::S3 => {
            let (bucket, prefix) = uri
                .strip_prefix("s3://")
                .map(|rest| rest.split_once('/').unwrap_or((rest, "")))
                .filter(|(bucket, _)| !bucket.is_empty())
                .ok_or_else(|| wrong("s3://BUCKET[/PREFIX]"))?;
            Ok(Place::S3 {
                bucket: bucket.to_owned(),
                prefix: prefix.trim_matches('/').to_owned(),
            })
        }
        ConnectionType::Http => uri
            .strip_prefix("https://")
            .or_else(|| uri.strip_prefix("http://"))
            .filter(|rest| host_and_path(rest).is_some_and(|(host, _)| !host.contains('@')))
            .map(|_| Place::Http {
                uri: uri.trim_end_matches('/').to_owned(),
            })
            .ok_or_else(|| wrong("https://HOST[/PATH]")),
        ConnectionType::Pvc => {
            let (claim, path) = uri
                .strip_prefix("pvc://")
                .map(|rest| rest.split_once('/').unwrap_or((rest, "")))
                .filter(|(claim, _)| claim.parse::<legion_api::names::ObjectName>().is_ok())
                .ok_or_else(|| wrong("pvc://CLAIM[/PATH]"))?;
            Ok(Place::Pvc {
                claim: claim.to_owned(),
                path: path.trim_matches('/').to_owned(),
            })
        }
        ConnectionType::Local => local_directory(uri)
            .map(|directory| Place::Local { directory })
            .ok_or_else(|| wrong("file:///ABSOLUTE/DIRECTORY, with %20 for a space")),
    }
}

/// Returns the directory of a `file:` URI, without a slash at its end. A percent sign begins an encoded byte, as RFC
/// 8089 says.
fn local_directory(uri: &str) -> Option<String> {
    let path = uri.strip_prefix("file://").filter(|path| path.starts_with('/'))?;
    let path = percent_encoding::percent_decode_str(path).decode_utf8().ok()?;
    let is_clean = !path.contains(char::is_control) && !path.split('/').any(|part| part == "..");
    let directory = path.trim_end_matches('/');
    (is_clean && !directory.is_empty()).then(|| directory.to_owned())
}

fn host_and_path(rest: &str) -> Option<(&str, &str)> {
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    (!host.is_empty() && !host.starts_with(['-', ':', '@'])).then_some((host, path))
}

/// Returns the problems of a connection. The list is empty when the connection is usable.
#[must_use]
pub(crate) fn problems(spec: &ConnectionSpec, settings: &Settings) -> Vec<Problem> {
    let mut problems: Vec<Problem> = place(spec).err().into_iter().collect();
    if spec.type_ == ConnectionType::Local && !settings.allow_local_connections {
        problems.push(Problem::new(
            Reason::LocalConnectionNotAllowed,
            "spec.type",
            "connections of type \"local\" work with `legionctl local` only",
        ));
    }
    problems
}

/// Decides about a connection.
#[must_use]
pub fn decide(world: &World, settings: &Settings, now: Timestamp) -> Plan<ConnectionStatus> {
    let metadata = &world.connection.metadata;
    if metadata.deletion_timestamp.is_some() {
        return Plan::default();
    }
    let problems = problems(&world.connection.spec, settings);
    let generation = metadata.generation.unwrap_or_default();
    let state = Explanation::of_problems(&problems)
        .unwrap_or_else(|| Explanation::new(Reason::Valid, "the connection can be used"));
    let previous = world
        .connection
        .status
        .as_ref()
        .map_or(&[][..], |status| &status.conditions);
    Plan {
        status: Some(ConnectionStatus {
            observed_generation: Some(generation),
            conditions: conditions::for_ready(previous, &state, generation, now),
        }),
        problems,
        ..Plan::default()
    }
}

/// Returns the status write that follows from a plan.
#[must_use]
pub fn settle(world: &World, plan: &Plan<ConnectionStatus>, _: &Outcome, _: Timestamp) -> Option<StatusPatch> {
    let connection = &world.connection;
    status_patch(
        connection.metadata.resource_version.as_deref(),
        connection.status.as_ref(),
        plan.status.as_ref()?,
    )
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::plan::Outcome;

    fn connection(type_: &str, uri: &str) -> Connection {
        serde_json::from_value(json!({
            "apiVersion": "legion-platform.org/v1alpha1", "kind": "Connection",
            "metadata": {"name": "a", "generation": 1, "resourceVersion": "7"},
            "spec": {"type": type_, "uri": uri},
        }))
        .unwrap()
    }

    fn text(place: Place) -> String {
        match place {
            Place::S3 { bucket, prefix } => format!("{bucket} {prefix}"),
            Place::Http { uri } | Place::Git { uri } => uri,
            Place::Pvc { claim, path } => format!("{claim} {path}"),
            Place::Local { directory } => directory,
        }
    }

    #[rstest]
    #[case("s3", "s3://models", "models ")]
    #[case("s3", "s3://models/a/b/", "models a/b")]
    #[case("http", "https://example.com", "https://example.com")]
    #[case("http", "http://example.com/a/", "http://example.com/a")]
    #[case("pvc", "pvc://claim", "claim ")]
    #[case("pvc", "pvc://claim/a/", "claim a")]
    #[case("local", "file:///d", "/d")]
    #[case("local", "file:///data/models/", "/data/models")]
    #[case("local", "file:///home/my%20models/m%C3%A4rz", "/home/my models/märz")]
    #[case("local", "file:///a%25b", "/a%b")]
    #[case("git", "https://example.com/a.git", "https://example.com/a.git")]
    fn places(#[case] type_: &str, #[case] uri: &str, #[case] expected: &str) {
        assert_eq!(text(place(&connection(type_, uri).spec).unwrap()), expected);
    }

    #[rstest]
    #[case("s3", "s3://")]
    #[case("s3", "s3:///a")]
    #[case("s3", "https://models")]
    #[case("http", "https://")]
    #[case("http", "https:///a")]
    #[case("http", "https://-example.com")]
    #[case("http", "https://:80/a")]
    #[case("http", "https://@example.com")]
    #[case("http", "https://user@example.com/a")]
    #[case("http", "ftp://example.com")]
    #[case("pvc", "pvc://")]
    #[case("pvc", "pvc://Claim")]
    #[case("local", "file://")]
    #[case("local", "file:///")]
    #[case("local", "file://data")]
    #[case("local", "/data")]
    #[case("local", "file:///data/%2e%2e/etc")]
    #[case("local", "file:///data/%00")]
    #[case("local", "file:///data/%ff")]
    #[case("local", "file:///my data")]
    #[case("git", "https://")]
    #[case("s3", "s3://models/../a")]
    #[case("s3", "s3://models/a b")]
    #[case("s3", "s3://models/a\u{7}")]
    fn no_places(#[case] type_: &str, #[case] uri: &str) {
        let problem = place(&connection(type_, uri).spec).unwrap_err();
        assert_eq!(
            (problem.reason, problem.field.as_str()),
            (Reason::InvalidSpec, "spec.uri")
        );
    }

    #[test]
    fn the_status_is_written_once() {
        let settings = Settings::new("legion-system", "agent");
        let now = Timestamp::UNIX_EPOCH;
        let mut world = World {
            connection: Arc::new(connection("pvc", "pvc://models")),
        };
        let plan = decide(&world, &settings, now);
        let patch = settle(&world, &plan, &Outcome::default(), now).unwrap();
        assert_eq!(patch.body["status"]["conditions"][0]["reason"], "Valid");
        Arc::make_mut(&mut world.connection).status = plan.status;
        let plan = decide(&world, &settings, now);
        assert_eq!(settle(&world, &plan, &Outcome::default(), now), None);
    }

    #[test]
    fn the_problems_are_in_the_plan_and_in_the_status() {
        let world = World {
            connection: Arc::new(connection("pvc", "s3://models")),
        };
        let plan = decide(&world, &Settings::new("legion-system", "agent"), Timestamp::UNIX_EPOCH);
        let fields: Vec<_> = plan.problems.iter().map(|problem| problem.field.as_str()).collect();
        assert_eq!(fields, ["spec.uri"]);
        assert_eq!(plan.status.unwrap().conditions[0].reason, "InvalidSpec");
    }
}
