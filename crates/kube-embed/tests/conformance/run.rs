//! Runs cases on a server and returns the responses.

use std::collections::HashMap;
use std::time::Duration;

use futures::StreamExt;
use http::{Request, Response, header};
use http_body_util::BodyExt;
use kube::client::Body;
use regex::Regex;
use serde_json::{Value, json};

use crate::backend::IMAGE;
use crate::kubectl::Kubectl;
use crate::normal::Normal;
use crate::request::{Projection, Target, select};
use crate::transcript::Case;

/// The timeout of a wait. On an idle machine, every wait is much shorter.
const PATIENCE: Duration = Duration::from_secs(240);
const PATIENCE_WITH_EMBED: Duration = Duration::from_secs(10);
/// The number of cases that run at the same time.
const WIDTH: usize = 24;

/// Runs all cases. Returns the response lines by case and step.
pub(crate) async fn all(client: &kube::Client, cases: &[&Case], kubectl: Option<&Kubectl>) -> Vec<Vec<Vec<String>>> {
    let mut answers: Vec<(usize, Vec<Vec<String>>)> = futures::stream::iter(cases.iter().enumerate())
        .map(|(i, case)| async move {
            let mut run = Run::begin(client.clone(), kubectl, case).await;
            let mut answers = Vec::new();
            for step in &case.steps {
                let answer = tokio::time::timeout(2 * PATIENCE, run.step(&step.text)).await;
                let lines = answer.unwrap_or_else(|_| vec!["(no answer)".into()]);
                answers.push(lines.iter().map(|line| line.replace('\n', "\\n")).collect());
            }
            run.end().await;
            (i, answers)
        })
        .buffer_unordered(WIDTH)
        .collect()
        .await;
    answers.sort_by_key(|(i, _)| *i);
    answers.into_iter().map(|(_, answers)| answers).collect()
}

struct Run<'a> {
    client: kube::Client,
    kubectl: Option<&'a Kubectl>,
    namespace: String,
    normal: Normal,
    last: Value,
    saved: HashMap<String, Value>,
    watches: HashMap<String, Stream>,
    patience: Duration,
    variable: Regex,
}

/// The response of an open watch.
struct Stream {
    body: http_body_util::BodyDataStream<Body>,
    buffer: Vec<u8>,
}

impl Stream {
    /// Returns the next event, or `None` after the end of the stream.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            self.buffer.extend(self.body.next().await?.ok()?);
        }
    }
}

impl<'a> Run<'a> {
    async fn begin(client: kube::Client, kubectl: Option<&'a Kubectl>, case: &Case) -> Self {
        let namespace = format!("c-{}", &uuid::Uuid::new_v4().simple().to_string()[..12]);
        let mut run = Self {
            client,
            kubectl,
            normal: Normal::new(&namespace),
            namespace,
            last: Value::Null,
            saved: HashMap::new(),
            watches: HashMap::new(),
            patience: PATIENCE,
            variable: Regex::new(r"\$([a-z]\w*)((?:\.[A-Za-z0-9_]+)*)").unwrap(),
        };
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": run.namespace}});
        let created = run.send("POST", "/api/v1/namespaces", object.to_string(), &[]).await;
        assert_eq!(created.status(), 201, "{}", case.title);
        // A real server admits pods only if their service account exists.
        let real = run
            .get("/api/v1/namespaces/kube-system/serviceaccounts/default")
            .await
            .0
            == 200;
        if !real {
            run.patience = PATIENCE_WITH_EMBED;
        }
        if real
            && case
                .steps
                .iter()
                .any(|step| step.text.contains("pods") || step.text.contains("serviceaccounts"))
        {
            run.until(
                &Target::new("serviceaccounts/default", &run.namespace).path,
                |code, _| code == 200,
            )
            .await;
        }
        run
    }

    async fn end(self) {
        let path = format!("/api/v1/namespaces/{}", self.namespace);
        self.send("DELETE", &path, String::new(), &[]).await;
    }

    /// Replaces `$ns`, `$image` and the names of saved values. Other dollar signs stay.
    fn fill(&self, text: &str) -> String {
        self.variable
            .replace_all(text, |found: &regex::Captures<'_>| match &found[1] {
                "ns" => format!("{}{}", self.namespace, &found[2]),
                "image" => format!("{IMAGE}{}", &found[2]),
                name => match self.saved.get(name) {
                    Some(value) => match select(value, &found[2]) {
                        Value::String(text) => text,
                        other => other.to_string(),
                    },
                    None => found[0].to_owned(),
                },
            })
            .into_owned()
    }

    async fn step(&mut self, text: &str) -> Vec<String> {
        if let Some(script) = text.strip_prefix("$ ") {
            let kubectl = self.kubectl.expect("kubectl for a case with commands");
            let lines = kubectl.run(script, &self.namespace).await;
            return lines.iter().map(|line| self.normal.text(line)).collect();
        }
        let text = self.fill(text);
        let (text, projection) = match text.rsplit_once(" | ") {
            Some((text, projection)) => (text, Some(projection)),
            None => (text.as_str(), None),
        };
        let projection = Projection::parse(projection);
        let (verb, rest) = text.split_once(' ').expect("a verb and its object");
        let (first, second) = rest.split_once(' ').unwrap_or((rest, ""));
        match verb {
            "SAVE" => {
                self.saved.insert(rest.to_owned(), self.last.clone());
                Vec::new()
            }
            "OPEN" => self.open(first, second).await,
            "READ" => self.read(first, second.parse().expect("a number"), &projection).await,
            "TIMES" => {
                for _ in 0..first.parse().expect("a number") {
                    Box::pin(self.step(second)).await;
                }
                Vec::new()
            }
            "DRAIN" => self.drain(first, second).await,
            "WATCH" => {
                let mut lines = self.open("one", second).await;
                lines.extend(self.read("one", first.parse().expect("a number"), &projection).await);
                lines
            }
            "UNTIL" => self.wait(first, second, &projection).await,
            _ => self.request(verb, first, second, &projection).await,
        }
    }

    async fn request(&mut self, verb: &str, path: &str, rest: &str, projection: &Projection) -> Vec<String> {
        let (method, options) = match verb.split_once('[') {
            Some((method, options)) => (method, options.strip_suffix(']').expect("a closing bracket")),
            None => (verb, ""),
        };
        // The value of `accept` can contain commas, so it must be the last option.
        let accept = options.find("accept=").unwrap_or(options.len());
        let (options, accept) = options.split_at(accept);
        let options = options.split(',').chain([accept]).filter(|option| !option.is_empty());
        let target = Target::new(path, &self.namespace);
        let (content_type, body) = match (method, rest.split_once(' ').unwrap_or((rest, ""))) {
            ("PATCH", (kind, body)) => (
                match kind {
                    "json" => "application/json-patch+json",
                    "merge" => "application/merge-patch+json",
                    "strategic" => "application/strategic-merge-patch+json",
                    "apply" => "application/apply-patch+yaml",
                    other => other,
                },
                body,
            ),
            _ => ("application/json", rest),
        };
        let mut headers = vec![("content-type", content_type.to_owned())];
        let mut raw = false;
        for option in options {
            match option.split_once('=').unwrap_or((option, "")) {
                ("raw", _) => raw = true,
                ("type", value) => headers[0].1 = value.to_owned(),
                ("agent", value) => headers.push(("user-agent", value.to_owned())),
                ("accept", value) => headers.push(("accept", value.to_owned())),
                ("table", _) => headers.push(("accept", "application/json;as=Table;v=v1;g=meta.k8s.io".into())),
                ("partial", _) => headers.push((
                    "accept",
                    "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io".into(),
                )),
                ("partiallist", _) => headers.push((
                    "accept",
                    "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io".into(),
                )),
                (other, _) => panic!("{other}: no such option"),
            }
        }
        let body = if raw || body.is_empty() {
            body.to_owned()
        } else {
            let mut value = self.body(body);
            if matches!(method, "POST" | "PUT") || content_type == "application/apply-patch+yaml" {
                target.complete(&mut value);
            }
            if let Some(prefix) = value["metadata"]["generateName"].as_str() {
                self.saved.insert("prefix".into(), json!(prefix));
            }
            value.to_string()
        };
        let response = self.send(method, &target.path, body, &headers).await;
        if let Some(prefix) = self.saved.remove("prefix") {
            let (lines, value) = self.answer_with(response, projection, prefix.as_str()).await;
            self.last = value;
            return lines;
        }
        let (lines, value) = self.answer_with(response, projection, None).await;
        self.last = value;
        lines
    }

    /// Returns a body from YAML. `@name {...}` merges changes into a saved value.
    fn body(&self, text: &str) -> Value {
        let Some(rest) = text.strip_prefix('@') else {
            return yaml(text);
        };
        let (name, patch) = rest.split_once(' ').unwrap_or((rest, ""));
        let mut value = self.saved[name].clone();
        if !patch.is_empty() {
            json_patch::merge(&mut value, &yaml(patch));
        }
        value
    }

    async fn answer_with(
        &mut self,
        response: Response<Body>,
        projection: &Projection,
        prefix: Option<&str>,
    ) -> (Vec<String>, Value) {
        let code = response.status().as_u16();
        let warnings: Vec<String> = response
            .headers()
            .get_all(header::WARNING)
            .iter()
            .map(|w| String::from_utf8_lossy(w.as_bytes()).into_owned())
            .collect();
        let bytes = response.into_body().collect_bytes().await.unwrap();
        let mut lines = Vec::new();
        let parsed = serde_json::from_slice::<Value>(&bytes).ok().filter(Value::is_object);
        let raw = match parsed {
            Some(value) => {
                if let (Some(prefix), Some(name)) = (prefix, value["metadata"]["name"].as_str()) {
                    self.normal.generated(prefix, name);
                }
                lines.extend(self.show(code, &value, projection));
                value
            }
            None => {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                lines.push(format!("{code} (text)"));
                let shown: Vec<String> = text.lines().map(|line| self.normal.text(line)).collect();
                if projection.show(&json!("")) == "\"\"" {
                    lines.extend(shown);
                }
                json!(text)
            }
        };
        for warning in warnings {
            lines.push(format!("warning: {}", self.normal.text(&warning)));
        }
        (lines, raw)
    }

    fn show(&mut self, code: u16, value: &Value, projection: &Projection) -> Vec<String> {
        let normal = self.normal.value(value);
        if value["kind"] != "Status" {
            return vec![format!("{code} {}", projection.show(&normal)).trim_end().to_owned()];
        }
        self.status(code, &normal)
    }

    fn status(&self, code: u16, status: &Value) -> Vec<String> {
        let text = |field: &str| status[field].as_str().unwrap_or_default();
        let mut lines = vec![
            format!("{code} {} {} {}", text("status"), text("reason"), text("message"))
                .trim_end()
                .to_owned(),
        ];
        if status["code"].as_u64().is_some_and(|c| c != u64::from(code)) {
            lines.push(format!("code in the body: {}", status["code"]));
        }
        if let Some(details) = status.get("details") {
            let mut details = details.clone();
            // The order of several managers is undefined.
            if status["reason"] == "Conflict"
                && let Some(causes) = details["causes"].as_array_mut()
            {
                causes.sort_by_key(|cause| cause["field"].to_string());
            }
            for cause in details["causes"].as_array_mut().into_iter().flatten() {
                // Do not repeat the text of the message.
                if cause["field"] == "patch" || cause["message"].as_str().is_some_and(|m| text("message").contains(m)) {
                    *cause = json!([cause["reason"], cause["field"]]);
                }
            }
            if details["causes"].is_null() {
                details.as_object_mut().map(|fields| fields.remove("causes"));
            }
            lines.push(format!("details {details}"));
        }
        if status["metadata"] != json!({}) {
            lines.push(format!("metadata {}", status["metadata"]));
        }
        lines
    }

    async fn open(&mut self, name: &str, path: &str) -> Vec<String> {
        let target = Target::new(path, &self.namespace);
        let response = self.send("GET", &target.path, String::new(), &[]).await;
        if response.status() != 200 {
            return self.answer_with(response, &Projection::default(), None).await.0;
        }
        let stream = Stream {
            body: response.into_body().into_data_stream(),
            buffer: Vec::new(),
        };
        self.watches.insert(name.to_owned(), stream);
        Vec::new()
    }

    async fn read(&mut self, name: &str, count: usize, projection: &Projection) -> Vec<String> {
        let Some(mut stream) = self.watches.remove(name) else {
            return Vec::new();
        };
        let mut lines = Vec::new();
        for _ in 0..count {
            match tokio::time::timeout(Duration::from_secs(6), stream.next()).await {
                Err(_) => {
                    lines.push("(nothing for 6 s)".into());
                    break;
                }
                Ok(None) => {
                    lines.push("(end)".into());
                    break;
                }
                Ok(Some(event)) => {
                    let object = self.normal.value(&event["object"]);
                    let type_ = event["type"].as_str().unwrap_or_default();
                    self.last = event["object"].clone();
                    if type_ == "ERROR" {
                        let code = object["code"].as_u64().unwrap_or_default();
                        lines.push(format!("ERROR {}", self.status(code as u16, &object).join(" ")));
                    } else {
                        lines.push(format!("{type_} {}", projection.show(&object)).trim_end().to_owned());
                    }
                }
            }
        }
        self.watches.insert(name.to_owned(), stream);
        lines
    }

    /// Reads events of a watch up to an object with this name.
    async fn drain(&mut self, name: &str, last: &str) -> Vec<String> {
        let mut lines = Vec::new();
        self.last = Value::Null;
        while self.last["metadata"]["name"] != last {
            let read = self.read(name, 1, &Projection::default()).await;
            let ended = read.is_empty() || read.iter().any(|line| line.starts_with('('));
            lines.extend(read);
            if ended {
                break;
            }
        }
        lines
    }

    /// Runs `UNTIL path gone`, `UNTIL path there` or `UNTIL path .a.b=value`.
    async fn wait(&mut self, path: &str, condition: &str, projection: &Projection) -> Vec<String> {
        let path = Target::new(path, &self.namespace).path;
        let holds = |code: u16, value: &Value| match condition {
            "gone" => code == 404,
            "there" => code == 200,
            other => {
                let (path, wanted) = other.split_once('=').expect("PATH=VALUE");
                code == 200 && as_text(&select(value, path)) == wanted
            }
        };
        let (code, value, held) = self.until(&path, holds).await;
        self.last = value.clone();
        let mut lines = self.show(code, &value, projection);
        if !held {
            lines.push(format!("(never {condition})"));
        }
        lines
    }

    async fn until(&self, path: &str, holds: impl Fn(u16, &Value) -> bool) -> (u16, Value, bool) {
        let began = tokio::time::Instant::now();
        loop {
            let (code, value) = self.get(path).await;
            let held = holds(code, &value);
            if held || began.elapsed() > self.patience {
                return (code, value, held);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let response = self.send("GET", path, String::new(), &[]).await;
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let value = serde_json::from_slice(&bytes).unwrap_or_else(|_| json!(String::from_utf8_lossy(&bytes)));
        (code, value)
    }

    async fn send(&self, method: &str, path: &str, body: String, headers: &[(&str, String)]) -> Response<Body> {
        send(&self.client, method, path, body, headers).await
    }
}

/// Sends a request with default headers.
pub(crate) async fn send(
    client: &kube::Client,
    method: &str,
    path: &str,
    body: String,
    headers: &[(&str, String)],
) -> Response<Body> {
    let mut request = Request::builder().method(method).uri(path);
    let given = |name: &str| headers.iter().any(|(given, _)| *given == name);
    if !given("user-agent") {
        request = request.header("user-agent", "conformance/1.0 (tests)");
    }
    if !given("accept") {
        request = request.header("accept", "application/json");
    }
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let request = request.body(Body::from(body.into_bytes())).unwrap();
    client
        .send(request)
        .await
        .unwrap_or_else(|error| panic!("{method} {path}: {error}"))
}

fn as_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

pub(crate) fn yaml(text: &str) -> Value {
    // `y` and `n` are strings, as in YAML 1.2.
    let options = serde_saphyr::options! { strict_booleans: true };
    serde_saphyr::from_str_with_options(text, options).unwrap_or_else(|error| panic!("{text}: {error}"))
}
