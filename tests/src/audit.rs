//! The API server's audit log: the requests in it, and what they say of the operator's permissions: what was asked for and is
//! not in the table, and what is in the table and was never asked for.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    fs::File,
    io::{BufRead as _, BufReader, Seek as _, SeekFrom},
    ops::Range,
    path::Path,
};

use anyhow::Context as _;
use jiff::Timestamp;
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

/// A request, as the audit log tells it.
#[derive(Clone, Debug)]
pub struct Request {
    /// The same for all that is told of one request.
    pub id: String,
    /// How far it was when this was told: `ResponseComplete` is its end.
    pub stage: String,
    /// Who asked.
    pub user: String,
    /// By which program.
    pub agent: String,
    /// What for.
    pub verb: String,
    /// Path and query.
    pub uri: String,
    /// API group of the resource; empty for the core group, and where it is about no resource.
    pub group: String,
    /// Plural of the resource, with its subresource behind a slash; empty where it is about no resource.
    pub resource: String,
    /// Namespace of the object, if it has one.
    pub namespace: String,
    /// Name of the object, if it is about one.
    pub name: String,
    /// HTTP status of the answer; 0 while there is none.
    pub code: u64,
    /// Authorization let it through not.
    pub forbidden: bool,
    /// When it came.
    pub received: Timestamp,
    /// When this was told.
    pub told: Timestamp,
}

impl Request {
    /// Whether it changes something.
    #[must_use]
    pub fn is_write(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch")
    }

    /// Whether it was answered to the end.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.stage == "ResponseComplete"
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.received, self.verb, self.uri)
    }
}

/// As much of an event of the audit log as counts (`audit.k8s.io/v1`).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    #[serde(rename = "auditID")]
    id: String,
    stage: String,
    verb: String,
    #[serde(rename = "requestURI")]
    uri: String,
    user: User,
    #[serde(default)]
    user_agent: String,
    #[serde(default)]
    object_ref: Option<ObjectRef>,
    #[serde(default)]
    response_status: ResponseStatus,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    request_received_timestamp: Timestamp,
    #[serde(default)]
    stage_timestamp: Timestamp,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Deserialize, Default)]
struct ResponseStatus {
    #[serde(default)]
    code: u64,
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

impl From<Event> for Request {
    fn from(event: Event) -> Self {
        let object = event.object_ref.unwrap_or_default();
        let resource = if object.subresource.is_empty() {
            object.resource
        } else {
            format!("{}/{}", object.resource, object.subresource)
        };
        let decision = event.annotations.get("authorization.k8s.io/decision");
        Self {
            forbidden: decision.is_some_and(|decision| decision == "forbid"),
            id: event.id,
            stage: event.stage,
            user: event.user.username,
            agent: event.user_agent,
            verb: event.verb,
            uri: event.uri,
            group: object.api_group,
            resource,
            namespace: object.namespace,
            name: object.name,
            code: event.response_status.code,
            received: event.request_received_timestamp,
            told: event.stage_timestamp,
        }
    }
}

/// What the log, one JSON object a line, tells from this byte on, in lines that hold `text`: most lines are of others.
/// A last line that is still being written is left out.
///
/// # Errors
/// When the log cannot be read, or a line of it is no event.
pub fn requests(log: &Path, from: u64, text: &str) -> anyhow::Result<Vec<Request>> {
    let shown = || log.display().to_string();
    let mut file = File::open(log).with_context(shown)?;
    file.seek(SeekFrom::Start(from)).with_context(shown)?;
    let mut lines = BufReader::new(file);
    let mut requests = Vec::new();
    let mut line = String::new();
    for number in 1.. {
        line.clear();
        lines.read_line(&mut line).with_context(shown)?;
        if !line.ends_with('\n') {
            break;
        }
        if line.contains(text) {
            let event: Event =
                serde_json::from_str(&line).with_context(|| format!("{}: line {number} after byte {from}", shown()))?;
            requests.push(event.into());
        }
    }
    Ok(requests)
}

/// Compares the log for the operator's service account: its namespace is the platform's, its `lease` bears the Deployment's
/// name.
///
/// # Errors
/// When the log cannot be read, or a line of it is no event.
pub fn compare(log: &Path, namespace: &str, service_account: &str, lease: &str) -> anyhow::Result<Verdict> {
    let user = format!("system:serviceaccount:{namespace}:{service_account}");
    let mut verdict = Verdict::default();
    let mut used = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut requests = requests(log, 0, &user)?;
    // A watch is told of twice: when it is answered and when it ends.
    requests.retain(|request| request.user == user && seen.insert(request.id.clone()));
    let requests: Vec<_> = requests
        .into_iter()
        .map(|request| (allowed(&request, namespace, lease), request))
        .collect();
    let granted = granted(&requests);
    for (permission, request) in &requests {
        verdict.requests += 1;
        // A row is granted as a whole, by one rule of a role. What was granted before and was granted again was not lacking: a
        // replica that is stopped with its release may lose its permissions first, and an API server that has just been started
        // answers before it knows all roles.
        let in_between = permission
            .and_then(Permission::row)
            .and_then(|(row, _)| granted.get(&row))
            .is_some_and(|time| time.start < request.received && request.received < time.end);
        let refused = request.forbidden && !in_between;
        if refused || permission.is_none() {
            *verdict.missing.entry(words(request)).or_default() += 1;
        }
        if !request.forbidden {
            used.extend(permission.and_then(Permission::row));
        }
    }
    for (index, access) in TABLE.iter().enumerate() {
        for verb in access.verbs.iter().filter(|verb| !used.contains(&(index, **verb))) {
            verdict.unused.insert(permission(access, *verb));
        }
    }
    Ok(verdict)
}

/// For each row of the table, from when to when it was granted: the first and the last time.
fn granted(requests: &[(Option<Permission>, Request)]) -> BTreeMap<usize, Range<Timestamp>> {
    let mut granted = BTreeMap::new();
    for (permission, request) in requests.iter().filter(|(_, request)| !request.forbidden) {
        let Some((row, _)) = permission.and_then(Permission::row) else {
            continue;
        };
        let time: &mut Range<Timestamp> = granted.entry(row).or_insert(request.received..request.received);
        time.start = time.start.min(request.received);
        time.end = time.end.max(request.received);
    }
    granted
}

/// What lets a request through.
#[derive(Clone, Copy)]
enum Permission {
    /// A row of the table, and which of its verbs.
    Row(usize, Verb),
    /// Every client may ask that.
    Everybody,
}

impl Permission {
    fn row(self) -> Option<(usize, Verb)> {
        match self {
            Self::Row(row, verb) => Some((row, verb)),
            Self::Everybody => None,
        }
    }
}

/// What of the table lets a request through, if anything does.
fn allowed(request: &Request, platform: &str, lease: &str) -> Option<Permission> {
    if request.resource.is_empty() {
        let path = request.uri.split('?').next().unwrap_or_default();
        return DISCOVERY.contains(&path).then_some(Permission::Everybody);
    }
    for (index, access) in TABLE.iter().enumerate() {
        let here = match access.place {
            Place::Served | Place::Anywhere => true,
            Place::Platform => request.namespace == platform,
        };
        let fits = here
            && access.group == request.group
            && access.resource == request.resource
            && (!access.only_lease || request.name == lease);
        if let Some(verb) = access.verbs.iter().find(|verb| fits && verb.as_str() == request.verb) {
            return Some(Permission::Row(index, *verb));
        }
    }
    None
}

fn words(request: &Request) -> String {
    if request.resource.is_empty() {
        return format!("{} {}", request.verb, request.uri);
    }
    format!(
        "{} {} of \"{}\" in \"{}\"",
        request.verb, request.resource, request.group, request.namespace
    )
}

fn permission(access: &Access, verb: Verb) -> String {
    format!("{} {} of \"{}\"", verb.as_str(), access.resource, access.group)
}
