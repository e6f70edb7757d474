//! Faults at exactly one request of the process under test.
//!
//! [`Chaos`] is a proxy between the process and the API server. It identifies each request by verb, resource and
//! ordinal: `create pods#1`, `patch modeltrainings/status#2`. A [`Plan`] names one such request and its fault. A
//! failing test prints the text form of its plan, and that text replays the failure.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    fmt,
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::{FutureExt as _, future::BoxFuture};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use kube::client::Body;
use kube_embed::{ApiService, ResponseBody};
pub use legion_runtime::requests::Verb;
use serde_json::json;
use tokio::{sync::watch, time::Instant};
use tower::Service;

use crate::{
    disturbance::{Disturbance, Disturber},
    watchfault::{Stream, WatchFault},
};

/// A fault of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The process crashes before the request reaches the server.
    CrashBefore,
    /// The process crashes after the server has executed the request and before it reads the answer.
    CrashAfter,
    /// 409 Conflict. The server has not executed the request.
    Conflict,
    /// 429 with Retry-After. The server has not executed the request.
    Throttled,
    /// 500. The server has not executed the request.
    Internal,
    /// 504. The server has executed the request.
    TimeoutAfter,
    /// The request never reaches the server and has no answer.
    SilentBefore,
    /// The server executes the request, and the answer never arrives.
    SilentAfter,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Self; 8] = [
        Self::CrashBefore,
        Self::CrashAfter,
        Self::Conflict,
        Self::Throttled,
        Self::Internal,
        Self::TimeoutAfter,
        Self::SilentBefore,
        Self::SilentAfter,
    ];

    /// Returns the name in the text form of a plan.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CrashBefore => "crash-before",
            Self::CrashAfter => "crash-after",
            Self::Conflict => "409",
            Self::Throttled => "429",
            Self::Internal => "500",
            Self::TimeoutAfter => "504-after",
            Self::SilentBefore => "silent-before",
            Self::SilentAfter => "silent-after",
        }
    }
}

/// A reproducible point in a run of the process under test.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// During this request, named as in [`Chaos::targets`]: the server has executed it and not answered yet.
    Request(String),
    /// Just before the nth event of the watches of a kind, counted from 1.
    Event(String, usize),
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(request) => f.write_str(request),
            Self::Event(kind, n) => write!(f, "event {kind}#{n}"),
        }
    }
}

/// One fault of a request or an event, or one disturbance.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Plan {
    /// A request, named as in [`Chaos::targets`].
    Request(Fault, String),
    /// The nth event of the watches of a kind, counted from 1.
    Event(WatchFault, String, usize),
    /// The process crashes after this request. Its successor first gets the lists that the first process got, as from
    /// an API server with a stale cache.
    StaleRestart(String),
    /// A disturbance of the training or its pod.
    Disturb(Disturbance, Moment),
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(fault, request) => write!(f, "{}:{request}", fault.as_str()),
            Self::Event(fault, kind, n) => write!(f, "{}:event {kind}#{n}", fault.as_str()),
            Self::StaleRestart(request) => write!(f, "stale-restart:{request}"),
            Self::Disturb(disturbance, moment) => write!(f, "{}:{moment}", disturbance.as_str()),
        }
    }
}

/// A text that is not a valid plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a plan: write FAULT:REQUEST as in \"crash-after:create pods#1\", FAULT:event KIND#N, or a disturbance \
     such as delete-pod in place of the fault"
)]
pub struct UnknownPlan(String);

impl FromStr for Plan {
    type Err = UnknownPlan;

    fn from_str(text: &str) -> Result<Self, UnknownPlan> {
        let unknown = || UnknownPlan(text.to_owned());
        let (name, target) = text.split_once(':').ok_or_else(unknown)?;
        let moment = match target.strip_prefix("event ") {
            Some(event) => {
                let (kind, n) = event.split_once('#').ok_or_else(unknown)?;
                Moment::Event(kind.to_owned(), n.parse().map_err(|_| unknown())?)
            }
            None => Moment::Request(target.to_owned()),
        };
        if let Some(disturbance) = Disturbance::ALL.into_iter().find(|known| known.as_str() == name) {
            return Ok(Self::Disturb(disturbance, moment));
        }
        match moment {
            Moment::Event(kind, n) => {
                let fault = WatchFault::ALL.into_iter().find(|fault| fault.as_str() == name);
                Ok(Self::Event(fault.ok_or_else(unknown)?, kind, n))
            }
            Moment::Request(request) if name == "stale-restart" => Ok(Self::StaleRestart(request)),
            Moment::Request(request) => {
                let fault = Fault::ALL.into_iter().find(|fault| fault.as_str() == name);
                Ok(Self::Request(fault.ok_or_else(unknown)?, request))
            }
        }
    }
}

/// A recorded request.
#[derive(Clone, Debug)]
pub struct Call {
    /// Verb of the request.
    pub verb: Verb,
    /// Resource with subresource, such as `modeltrainings/status`, or the path if there is no resource.
    pub resource: String,
    /// Name of the object, if any.
    pub name: Option<String>,
    /// Verb, resource and ordinal, as in a [`Plan`].
    pub id: String,
    /// Time of the request on tokio's clock.
    pub at: Instant,
    /// Number of the process that sent it, counted from 0.
    pub process: usize,
    /// HTTP status of the answer. `None` while there is no answer.
    pub status: Option<u16>,
}

pub(crate) struct ChaosState {
    calls: Vec<Call>,
    counts: BTreeMap<String, usize>,
    pub(crate) events: BTreeMap<String, usize>,
    pub(crate) plan: Option<Plan>,
    /// Whether the planned fault has happened.
    pub(crate) struck: bool,
    process: usize,
    /// The answers to the lists of the first process, by path.
    lists: BTreeMap<String, Bytes>,
    serve_old_lists: bool,
    cut_off: bool,
}

/// A proxy between the process and the API server. Clones share the same state.
#[derive(Clone)]
pub struct Chaos {
    server: ApiService,
    disturber: Option<Disturber>,
    state: Arc<Mutex<ChaosState>>,
    crash: watch::Sender<usize>,
}

impl Chaos {
    /// Creates a proxy in front of this server, without a plan. Without a disturber there are no disturbances.
    #[must_use]
    pub fn new(server: ApiService, disturber: Option<Disturber>) -> Self {
        let state = ChaosState {
            calls: Vec::new(),
            counts: BTreeMap::new(),
            events: BTreeMap::new(),
            plan: None,
            struck: false,
            process: 0,
            lists: BTreeMap::new(),
            serve_old_lists: false,
            cut_off: false,
        };
        Self {
            server,
            disturber,
            state: Arc::new(Mutex::new(state)),
            crash: watch::channel(0).0,
        }
    }

    fn state(&self) -> MutexGuard<'_, ChaosState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the plan.
    pub fn set_plan(&self, plan: Option<Plan>) {
        let mut state = self.state();
        state.plan = plan;
        state.struck = false;
    }

    /// Disconnects the process: no further request reaches the server.
    pub fn cut_off(&self) {
        self.state().cut_off = true;
    }

    /// Returns whether the planned fault has happened.
    #[must_use]
    pub fn has_struck(&self) -> bool {
        self.state().struck
    }

    /// Returns every request so far.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    /// Returns the possible targets of plans: every request so far, and the number of events of each kind.
    #[must_use]
    pub fn targets(&self) -> (Vec<String>, Vec<(String, usize)>) {
        let state = self.state();
        let requests = state.calls.iter().map(|call| call.id.clone()).collect();
        let events = state
            .events
            .iter()
            .map(|(kind, count)| (kind.clone(), *count))
            .collect();
        (requests, events)
    }

    /// Completes when a plan kills the nth process, counted from 0.
    pub async fn crashed(&self, n: usize) {
        let mut crash = self.crash.subscribe();
        // The sender lives in self.
        let _ = crash.wait_for(|crashes| *crashes > n).await;
    }

    /// Returns a client for the next process.
    #[must_use]
    pub fn client(&self, namespace: &str) -> kube::Client {
        kube::Client::new(ChaosService(self.clone()), namespace)
    }

    /// Records the start of the next process.
    pub fn next_process(&self) {
        self.state().process += 1;
    }

    fn strike_crash(&self) {
        self.state().struck = true;
        self.kill();
    }

    /// Kills the running process.
    pub fn kill(&self) {
        self.crash.send_modify(|crashes| *crashes += 1);
    }

    async fn handle(self, request: Request<Body>) -> Response<ResponseBody> {
        let (index, id, verb, resource, fault) = self.note(&request);
        let path = request.uri().to_string();
        if self.state().cut_off {
            return std::future::pending().await;
        }
        match fault {
            Some(Fault::CrashBefore) => {
                self.strike_crash();
                return std::future::pending().await;
            }
            Some(Fault::SilentBefore) => return std::future::pending().await,
            Some(Fault::Conflict) => return self.answered(index, refusal(409, "Conflict", "injected conflict", None)),
            Some(Fault::Throttled) => {
                return self.answered(index, refusal(429, "TooManyRequests", "injected throttling", Some(7)));
            }
            Some(Fault::Internal) => {
                return self.answered(index, refusal(500, "InternalError", "injected error", None));
            }
            None | Some(Fault::CrashAfter | Fault::TimeoutAfter | Fault::SilentAfter) => {}
        }
        if verb == Verb::List
            && let Some(old) = self.old_list(&path)
        {
            return self.answered(index, whole(200, old));
        }
        let mut server = self.server.clone();
        let response = match server.call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        let stale_restart = self
            .state()
            .plan
            .as_ref()
            .is_some_and(|plan| matches!(plan, Plan::StaleRestart(target) if *target == id));
        self.disturb_at(|moment| matches!(moment, Moment::Request(target) if *target == id))
            .await;
        if stale_restart && !self.has_struck() {
            self.state().serve_old_lists = true;
            self.strike_crash();
            return std::future::pending().await;
        }
        match fault {
            Some(Fault::CrashAfter) => {
                self.strike_crash();
                return std::future::pending().await;
            }
            Some(Fault::SilentAfter) => return std::future::pending().await,
            Some(Fault::TimeoutAfter) => {
                return self.answered(index, refusal(504, "Timeout", "injected timeout", None));
            }
            _ => {}
        }
        let response = match verb {
            Verb::Watch => {
                let chaos = self.clone();
                Stream::wrap(
                    response,
                    Box::new(move || {
                        let (chaos, resource) = (chaos.clone(), resource.clone());
                        async move { chaos.note_event(&resource).await }.boxed()
                    }),
                )
            }
            Verb::List => self.remember_list(path, response).await,
            _ => response,
        };
        self.answered(index, response)
    }

    fn answered(&self, index: usize, response: Response<ResponseBody>) -> Response<ResponseBody> {
        self.state().calls[index].status = Some(response.status().as_u16());
        response
    }

    /// Records the request and returns its fault, if any.
    fn note(&self, request: &Request<Body>) -> (usize, String, Verb, String, Option<Fault>) {
        let (verb, resource, name) = describe(request);
        let what = format!("{} {resource}", verb.as_str());
        let mut state = self.state();
        let count = state.counts.entry(what.clone()).or_default();
        *count += 1;
        let id = format!("{what}#{count}");
        let fault = match &state.plan {
            Some(Plan::Request(fault, target)) if *target == id && !state.struck => Some(*fault),
            _ => None,
        };
        if fault.is_some_and(|fault| !matches!(fault, Fault::CrashBefore | Fault::CrashAfter)) {
            state.struck = true;
        }
        let process = state.process;
        state.calls.push(Call {
            verb,
            resource: resource.clone(),
            name,
            id: id.clone(),
            at: Instant::now(),
            process,
            status: None,
        });
        (state.calls.len() - 1, id, verb, resource, fault)
    }

    fn old_list(&self, path: &str) -> Option<Bytes> {
        let state = self.state();
        if !state.serve_old_lists || state.process != 1 {
            return None;
        }
        state.lists.get(path).cloned()
    }

    /// Keeps the answer to a list of the first process.
    async fn remember_list(&self, path: String, response: Response<ResponseBody>) -> Response<ResponseBody> {
        if self.state().process > 0 || response.status() != 200 {
            return response;
        }
        let (parts, body) = response.into_parts();
        let bytes = body
            .collect()
            .await
            .map(http_body_util::Collected::to_bytes)
            .unwrap_or_default();
        self.state().lists.entry(path).or_insert_with(|| bytes.clone());
        Response::from_parts(parts, boxed(bytes))
    }

    /// Executes the planned disturbance, if this is its moment.
    async fn disturb_at(&self, is_now: impl Fn(&Moment) -> bool) {
        let disturbance = {
            let mut state = self.state();
            match &state.plan {
                Some(Plan::Disturb(disturbance, moment)) if !state.struck && is_now(moment) => {
                    let disturbance = *disturbance;
                    state.struck = true;
                    disturbance
                }
                _ => return,
            }
        };
        if let Some(disturber) = &self.disturber {
            disturber.disturb(disturbance).await;
        }
    }

    /// Counts an event of a kind, executes a disturbance planned before it, and returns its fault, if any.
    async fn note_event(&self, resource: &str) -> Option<WatchFault> {
        let (n, fault) = self.count_event(resource);
        self.disturb_at(|moment| matches!(moment, Moment::Event(kind, target) if kind == resource && *target == n))
            .await;
        fault
    }

    fn count_event(&self, resource: &str) -> (usize, Option<WatchFault>) {
        let mut state = self.state();
        let count = state.events.entry(resource.to_owned()).or_default();
        *count += 1;
        let n = *count;
        let fault = match &state.plan {
            Some(Plan::Event(fault, kind, target)) if !state.struck && kind == resource && *target == n => Some(*fault),
            _ => None,
        };
        state.struck |= fault.is_some();
        (n, fault)
    }
}

fn boxed(bytes: Bytes) -> ResponseBody {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

fn whole(status: u16, bytes: Bytes) -> Response<ResponseBody> {
    let mut response = Response::new(boxed(bytes));
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or_default();
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, json);
    response
}

fn refusal(code: u16, reason: &str, message: &str, retry_after: Option<u32>) -> Response<ResponseBody> {
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message,
        "details": { "retryAfterSeconds": retry_after.unwrap_or(0) },
    });
    whole(code, Bytes::from(status.to_string()))
}

/// Returns the verb, the resource with subresource, and the name of the object from the method and path of a request.
fn describe(request: &Request<Body>) -> (Verb, String, Option<String>) {
    let path = request.uri().path();
    let query = request.uri().query().unwrap_or_default();
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    let rest = match segments.as_slice() {
        ["api", _, rest @ ..] | ["apis", _, _, rest @ ..] => rest,
        _ => &[],
    };
    let rest = match rest {
        ["namespaces", _, rest @ ..] if !rest.is_empty() => rest,
        rest => rest,
    };
    let (resource, name) = match rest {
        [] => (path.to_owned(), None),
        [resource] => ((*resource).to_owned(), None),
        [resource, name] => ((*resource).to_owned(), Some((*name).to_owned())),
        [resource, name, sub, ..] => (format!("{resource}/{sub}"), Some((*name).to_owned())),
    };
    let verb = match request.method().as_str() {
        "POST" => Verb::Create,
        "PUT" => Verb::Update,
        "PATCH" => Verb::Patch,
        "DELETE" => Verb::Delete,
        _ if query.split('&').any(|part| part == "watch=true" || part == "watch=1") => Verb::Watch,
        _ if name.is_none() && !rest.is_empty() => Verb::List,
        _ => Verb::Get,
    };
    (verb, resource, name)
}

#[derive(Clone)]
struct ChaosService(Chaos);

impl Service<Request<Body>> for ChaosService {
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let chaos = self.0.clone();
        Box::pin(async move { Ok(chaos.handle(request).await) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(method: &str, uri: &str) -> (Verb, String, Option<String>) {
        describe(&Request::builder().method(method).uri(uri).body(Body::empty()).unwrap())
    }

    #[test]
    fn a_request_is_described_by_verb_resource_and_name() {
        for (method, uri, verb, resource, name) in [
            ("GET", "/api/v1/namespaces/a/pods/p", Verb::Get, "pods", Some("p")),
            ("GET", "/api/v1/pods?limit=500", Verb::List, "pods", None),
            (
                "GET",
                "/api/v1/pods?watch=true&resourceVersion=1",
                Verb::Watch,
                "pods",
                None,
            ),
            ("GET", "/api/v1/namespaces/a", Verb::Get, "namespaces", Some("a")),
            ("POST", "/api/v1/namespaces/a/pods", Verb::Create, "pods", None),
            (
                "PATCH",
                "/apis/legion-platform.org/v1alpha1/namespaces/a/modeltrainings/t/status",
                Verb::Patch,
                "modeltrainings/status",
                Some("t"),
            ),
            (
                "GET",
                "/apis/legion-platform.org/v1alpha1",
                Verb::Get,
                "/apis/legion-platform.org/v1alpha1",
                None,
            ),
        ] {
            assert_eq!(
                described(method, uri),
                (verb, resource.to_owned(), name.map(str::to_owned)),
                "{method} {uri}"
            );
        }
    }

    #[test]
    fn the_text_form_of_a_plan_parses_to_the_same_plan() {
        let request = "patch modeltrainings/status#2".to_owned();
        let plans = Fault::ALL
            .map(|fault| Plan::Request(fault, request.clone()))
            .into_iter();
        let plans = plans.chain(WatchFault::ALL.map(|fault| Plan::Event(fault, "pods".to_owned(), 3)));
        let moments = [Moment::Request(request.clone()), Moment::Event("pods".to_owned(), 3)];
        let disturbances = moments
            .into_iter()
            .flat_map(|moment| Disturbance::ALL.map(|disturbance| Plan::Disturb(disturbance, moment.clone())));
        for plan in plans.chain([Plan::StaleRestart(request.clone())]).chain(disturbances) {
            assert_eq!(plan.to_string().parse(), Ok(plan));
        }
        assert!("nonsense".parse::<Plan>().is_err());
        assert!("nonsense:create pods#1".parse::<Plan>().is_err());
    }
}
