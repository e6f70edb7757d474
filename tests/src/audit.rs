//! Compares the operator's permissions with an audit log: what was asked for and is not in the table, and what is in the
//! table and was never asked for.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
};

use anyhow::Context as _;
use legion_operator::access::{Access, DISCOVERY, Place, TABLE, Verb};
use serde::Deserialize;

/// What an audit log says of the operator's permissions.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Requests that no row of the table allows, or that the server refused, with how often they were made.
    pub missing: BTreeMap<String, usize>,
    /// Permissions that no request needed: verb, resource and where.
    pub unused: BTreeSet<String>,
    /// How many requests were compared.
    pub requests: usize,
}

/// As much of an event of the audit log as counts.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    #[serde(rename = "auditID")]
    id: String,
    verb: String,
    #[serde(rename = "requestURI")]
    uri: String,
    user: User,
    object_ref: Option<ObjectRef>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ObjectRef {
    api_group: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

/// Compares the log, one JSON object a line, for the operator's service account: its namespace is the platform's, its
/// `lease` bears the Deployment's name.
///
/// # Errors
/// When the log cannot be read, or a line of it is no event.
pub fn compare(log: &Path, namespace: &str, service_account: &str, lease: &str) -> anyhow::Result<Verdict> {
    let user = format!("system:serviceaccount:{namespace}:{service_account}");
    let file = fs::File::open(log).with_context(|| log.display().to_string())?;
    let mut verdict = Verdict::default();
    let mut used = BTreeSet::new();
    let mut seen = BTreeSet::new();
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let line = line?;
        // Most lines are of others.
        if !line.contains(&user) {
            continue;
        }
        let event: Event =
            serde_json::from_str(&line).with_context(|| format!("{}: line {}", log.display(), number + 1))?;
        // A watch is told of twice: when it is answered and when it ends.
        if event.user.username != user || !seen.insert(event.id.clone()) {
            continue;
        }
        verdict.requests += 1;
        let refused = event
            .annotations
            .get("authorization.k8s.io/decision")
            .map(String::as_str)
            == Some("forbid");
        let row = allowed(&event, namespace, lease);
        used.extend(row.flatten());
        if refused || row.is_none() {
            *verdict.missing.entry(words(&event)).or_default() += 1;
        }
    }
    for (index, access) in TABLE.iter().enumerate() {
        for verb in access.verbs.iter().filter(|verb| !used.contains(&(index, **verb))) {
            verdict.unused.insert(permission(access, *verb));
        }
    }
    Ok(verdict)
}

/// The row and verb that let a request through; `Some(None)` for what every client may ask.
fn allowed(event: &Event, platform: &str, lease: &str) -> Option<Option<(usize, Verb)>> {
    let Some(object) = &event.object_ref else {
        let path = event.uri.split('?').next().unwrap_or_default();
        return DISCOVERY.contains(&path).then_some(None);
    };
    let resource = if object.subresource.is_empty() {
        object.resource.clone()
    } else {
        format!("{}/{}", object.resource, object.subresource)
    };
    for (index, access) in TABLE.iter().enumerate() {
        let here = match access.place {
            Place::Served | Place::Anywhere => true,
            Place::Platform => object.namespace == platform,
        };
        let fits = here
            && access.group == object.api_group
            && access.resource == resource
            && (!access.only_lease || object.name == lease);
        if let Some(verb) = access.verbs.iter().find(|verb| fits && verb.as_str() == event.verb) {
            return Some(Some((index, *verb)));
        }
    }
    None
}

fn words(event: &Event) -> String {
    match &event.object_ref {
        None => format!("{} {}", event.verb, event.uri),
        Some(object) => {
            let slash = if object.subresource.is_empty() { "" } else { "/" };
            format!(
                "{} {}{slash}{} of \"{}\" in \"{}\"",
                event.verb, object.resource, object.subresource, object.api_group, object.namespace
            )
        }
    }
}

fn permission(access: &Access, verb: Verb) -> String {
    format!("{} {} of \"{}\"", verb.as_str(), access.resource, access.group)
}
