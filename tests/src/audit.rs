//! Reads the API server's audit log and compares it with the operator's permissions. Finds requests that the table does
//! not allow, and permissions that no request used.

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

/// The differences between an audit log and the table of the operator's permissions.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct AccessReport {
    /// Requests that no row of the table allows, or that the server refused. The value is the number of such requests.
    pub missing: BTreeMap<String, usize>,
    /// Permissions that no request needed: verb, resource and API group.
    pub unused: BTreeSet<String>,
    /// The number of requests that were compared.
    pub requests: usize,
}

/// One event of the audit log: a request at one stage.
#[derive(Clone, Debug)]
pub struct Request {
    /// `auditID`: the same in all events of one request.
    pub id: String,
    /// The stage of this event. The last one is `ResponseComplete`.
    pub stage: String,
    /// The name of the authenticated user.
    pub user: String,
    /// The `User-Agent` header.
    pub agent: String,
    /// The API verb, such as `list`.
    pub verb: String,
    /// Path and query.
    pub uri: String,
    /// API group of the resource. Empty for the core group and for requests without a resource.
    pub group: String,
    /// Plural of the resource, with its subresource behind a slash. Empty for requests without a resource.
    pub resource: String,
    /// Namespace of the object. Empty for cluster-scoped objects.
    pub namespace: String,
    /// Name of the object. Empty for requests for a collection.
    pub name: String,
    /// HTTP status of the answer, or 0 before the answer.
    pub code: u64,
    /// Whether authorization denied it.
    pub forbidden: bool,
    /// When the API server received the request.
    pub received: Timestamp,
    /// When the request reached this stage.
    pub reported_at: Timestamp,
}

impl Request {
    /// Returns whether it changes something.
    #[must_use]
    pub fn is_write(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch")
    }

    /// Returns whether the answer is complete.
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

/// The fields of an `audit.k8s.io/v1` `Event` that this module reads.
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

/// A request that was not authenticated has no name.
#[derive(Deserialize)]
struct User {
    #[serde(default)]
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
            reported_at: event.stage_timestamp,
        }
    }
}

/// Returns the events of a log from a byte offset. The log has one JSON object per line. Only lines that contain `text`
/// are parsed, because most lines are about other users. An incomplete last line is left out.
///
/// # Errors
/// The log cannot be read, or a line is not an event.
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

/// Compares the requests of the operator's service account with the table. `namespace` is the namespace of the
/// platform. `lease` has the name of the Deployment.
///
/// # Errors
/// The log cannot be read, or a line is not an event.
pub fn compare(log: &Path, namespace: &str, service_account: &str, lease: &str) -> anyhow::Result<AccessReport> {
    let user = format!("system:serviceaccount:{namespace}:{service_account}");
    let mut report = AccessReport::default();
    let mut used = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut requests = requests(log, 0, &user)?;
    // The log has a watch twice: when it is answered and when it ends.
    requests.retain(|request| request.user == user && seen.insert(request.id.clone()));
    let requests: Vec<_> = requests
        .into_iter()
        .map(|request| (allowed(&request, namespace, lease), request))
        .collect();
    let granted = granted(&requests);
    for (permission, request) in &requests {
        report.requests += 1;
        // One rule of a role grants a whole row. A row that was granted before and after a refusal is not missing. A
        // replica that is stopped with its release may lose its permissions first. An API server that has just started
        // answers before it knows all roles.
        let in_between = permission
            .and_then(Permission::row)
            .and_then(|(row, _)| granted.get(&row))
            .is_some_and(|time| time.start < request.received && request.received < time.end);
        let refused = request.forbidden && !in_between;
        if refused || permission.is_none() {
            *report.missing.entry(words(request)).or_default() += 1;
        }
        if !request.forbidden {
            used.extend(permission.and_then(Permission::row));
        }
    }
    for (index, access) in TABLE.iter().enumerate() {
        for verb in access.verbs.iter().filter(|verb| !used.contains(&(index, **verb))) {
            report.unused.insert(permission(access, *verb));
        }
    }
    Ok(report)
}

/// Returns the first and the last time that each row of the table was granted.
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

/// The reason why a request is allowed.
#[derive(Clone, Copy)]
enum Permission {
    /// The index of a row of the table, and one of its verbs.
    Row(usize, Verb),
    /// Discovery, which every client may request.
    Discovery,
}

impl Permission {
    fn row(self) -> Option<(usize, Verb)> {
        match self {
            Self::Row(row, verb) => Some((row, verb)),
            Self::Discovery => None,
        }
    }
}

/// Returns what allows a request, if anything does.
fn allowed(request: &Request, platform: &str, lease: &str) -> Option<Permission> {
    if request.resource.is_empty() {
        let path = request.uri.split('?').next().unwrap_or_default();
        return DISCOVERY.contains(&path).then_some(Permission::Discovery);
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
