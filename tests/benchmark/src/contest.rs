//! The contests. They run one after the other, each in its own namespace.

use std::{
    future::Future,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use http::Request;
use jiff::Timestamp;
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::ListMeta};
use kube::{
    Api, Client, Resource as _,
    api::{ListParams, PartialObjectMeta},
};
use legion_tests::{
    audit::Request as Asked,
    fake_kubelet::{self as kubelet, FakeKubelet},
};
use serde_json::{Value, json};

use crate::{
    Options,
    log::Log,
    process::{Daemon, cpu, peak, resident},
};

/// Number of concurrent requests while objects are created.
const SIDE_BY_SIDE: usize = 64;
/// Interval between two polls of a contest.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Time limit of a contest.
const LIMIT: Duration = Duration::from_secs(900);
/// Objects per second, and their number, where the time from object to pod is measured.
const RATE: usize = 10;
const RATED: usize = 300;

/// Pods per node: the kubelet's default `maxPods`.
const PODS_OF_NODE: usize = 110;

/// The contestants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Training,
    Job,
}

impl Kind {
    fn path(self, namespace: &str) -> String {
        match self {
            Self::Training => format!("/apis/legion-platform.org/v1alpha1/namespaces/{namespace}/modeltrainings"),
            Self::Job => format!("/apis/batch/v1/namespaces/{namespace}/jobs"),
        }
    }

    fn resource(self) -> &'static str {
        match self {
            Self::Training => "modeltrainings",
            Self::Job => "jobs",
        }
    }

    /// Returns the user agent prefix of the controller that creates its pods.
    fn controller(self) -> &'static str {
        match self {
            Self::Training => "legion-operator",
            Self::Job => "kube-controller-manager",
        }
    }

    /// Returns the object with this name. A Job gets the pod that Legion would create, so that pods have equal size.
    fn object(self, name: &str, pod: &Value) -> Value {
        match self {
            Self::Training => json!({
                "apiVersion": "legion-platform.org/v1alpha1",
                "kind": "ModelTraining",
                "metadata": {"name": name},
                "spec": {
                    "model": {"name": "wine", "version": "1"},
                    "toolchain": "measured",
                    "source": {"git": {"uri": "https://git.example.com/wine.git", "ref": "main"}},
                    "entrypoint": "train.py",
                    "hyperParameters": {"c": "0.5"},
                    "timeout": "15m",
                    // Longer than any measurement: no pods are removed during one.
                    "ttlAfterFinished": "2h",
                },
            }),
            Self::Job => json!({
                "apiVersion": "batch/v1",
                "kind": "Job",
                "metadata": {"name": name},
                "spec": {"backoffLimit": 0, "template": {"metadata": pod["metadata"], "spec": pod["spec"]}},
            }),
        }
    }

    fn is_done(self, object: &Value) -> bool {
        let (kind, conditions) = match self {
            Self::Training => ("Succeeded", &object["status"]["conditions"]),
            Self::Job => ("Complete", &object["status"]["conditions"]),
        };
        conditions
            .as_array()
            .into_iter()
            .flatten()
            .any(|condition| condition["type"] == kind && condition["status"] == "True")
    }
}

/// The end of a contest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    /// Every object has its pod.
    Pods,
    /// Every object has ended.
    Done,
}

/// The figures of a contest. A value is NaN if the contest did not wait for it.
#[derive(Debug)]
struct Figures {
    /// Seconds from the first object to the last pod.
    all_pods: f64,
    /// Seconds from the first object to the end of the last one.
    all_done: f64,
    /// Writes of the controller per object.
    writes: f64,
    /// Reads of the controller per object, without watches.
    reads: f64,
    /// CPU time of the controller per object, in milliseconds.
    cpu: f64,
    /// Resident memory of the controller at the end, in MiB.
    resident: f64,
}

impl Figures {
    /// No figure was measured.
    const NONE: Self = Self {
        all_pods: f64::NAN,
        all_done: f64::NAN,
        writes: f64::NAN,
        reads: f64::NAN,
        cpu: f64::NAN,
        resident: f64::NAN,
    };
}

/// The environment of a contest.
struct Bench<'a> {
    options: &'a Options,
    client: Client,
    /// The pod that Legion creates.
    pod: Value,
}

/// Runs all contests and prints their figures.
pub(crate) async fn hold(options: &Options) -> anyhow::Result<()> {
    let client = Client::try_default().await.context("KUBECONFIG")?;
    let mut bench = Bench {
        options,
        client,
        pod: Value::Null,
    };
    bench.daemon("kube-scheduler").change("stop")?;
    bench.set_up().await?;
    let mut operator = bench.operator()?;
    let measured = bench.measure(&mut operator).await;
    // It is stopped after a failure, too.
    let _ = operator.kill();
    let _ = operator.wait();
    bench.daemon("kube-scheduler").change("start")?;
    measured
}

impl<'a> Bench<'a> {
    fn daemon(&self, name: &'static str) -> Daemon<'a> {
        Daemon {
            cluster: &self.options.cluster,
            xtask: &self.options.xtask,
            name,
        }
    }

    /// Starts fake kubelets for as many nodes as these pods need. A kubelet writes one status after the other:
    /// `syncBatch` in `pkg/kubelet/status/status_manager.go` of Kubernetes.
    fn kubelets(&self, namespace: &str, pods: usize) -> FakeKubelet {
        let settings = kubelet::Settings {
            namespace: Some(namespace.to_owned()),
            parallel: pods.div_ceil(PODS_OF_NODE),
            ..kubelet::Settings::default()
        };
        FakeKubelet::start(self.client.clone(), settings)
    }

    /// Starts the operator as a process of this machine, with the settings of Legion's chart.
    fn operator(&self) -> anyhow::Result<Child> {
        let mut command = Command::new(&self.options.operator);
        command
            .args([
                "run",
                "--agent-image=legion-platform/agent:0.1.0",
                "--listen=127.0.0.1:8080",
            ])
            .env("LEGION_LOG", "warn")
            .stdin(Stdio::null());
        let child = command
            .spawn()
            .with_context(|| format!("{} cannot be started", self.options.operator.display()))?;
        Ok(child)
    }

    async fn set_up(&self) -> anyhow::Result<()> {
        self.namespace("legion-system").await?;
        let toolchain = json!({
            "apiVersion": "legion-platform.org/v1alpha1",
            "kind": "ToolchainIntegration",
            "metadata": {"name": "measured"},
            "spec": {"type": "Training", "image": "legion-platform/toolchain-mlflow:0.1.0", "command": ["legion-mlflow"], "format": "gppi/v1"},
        });
        let path = "/apis/legion-platform.org/v1alpha1/namespaces/legion-system/toolchainintegrations";
        self.create(path, &toolchain).await
    }

    async fn measure(&mut self, operator: &mut Child) -> anyhow::Result<()> {
        self.ready().await?;
        self.pod = self.pod_of_legion().await?;
        let size = serde_json::to_vec(&self.pod)?.len();
        println!(
            "{} objects, {} times each, pods of {size} bytes",
            self.options.objects, self.options.repeat
        );

        let mut raw = Vec::new();
        let mut legion = Vec::new();
        let mut jobs = Vec::new();
        let mut shipped = Vec::new();
        let mut ways_of_legion = Vec::new();
        let mut ways_of_jobs = Vec::new();
        let manager = self.daemon("kube-controller-manager");
        for round in 0..self.options.repeat {
            raw.push(self.raw(&format!("raw-{round}")).await?);
            legion.push(
                self.contest(Kind::Training, &format!("legion-{round}"), operator.id(), Until::Done)
                    .await?,
            );
            let ways = self.ways(Kind::Training, &format!("legion-rate-{round}")).await?;
            ways_of_legion.push(Percentiles::of(ways));
            let usual = manager.restart_with(&[
                "--kube-api-qps=5000",
                "--kube-api-burst=5000",
                "--concurrent-job-syncs=64",
            ])?;
            let held = async {
                let pid = manager.pid()?;
                let figures = self
                    .contest(Kind::Job, &format!("jobs-{round}"), pid, Until::Done)
                    .await?;
                let ways = self.ways(Kind::Job, &format!("jobs-rate-{round}")).await?;
                anyhow::Ok((figures, ways))
            }
            .await;
            manager.restore(usual)?;
            let (figures, ways) = held?;
            jobs.push(figures);
            ways_of_jobs.push(Percentiles::of(ways));
            if self.options.shipped {
                // The harness had raised them.
                let usual =
                    manager.restart_with(&["--kube-api-qps=20", "--kube-api-burst=30", "--concurrent-job-syncs=5"])?;
                let namespace = format!("shipped-{round}");
                let held = self.contest(Kind::Job, &namespace, manager.pid()?, Until::Pods).await;
                manager.restore(usual)?;
                shipped.push(held?);
            }
        }
        println!("raw: {} pods/s, created 64 at a time", spread(&raw));
        print(&[
            ("Legion", &legion),
            ("Jobs, unthrottled", &jobs),
            ("Jobs, as shipped", &shipped),
        ]);
        for (name, ways) in [("Legion", &ways_of_legion), ("Jobs, unthrottled", &ways_of_jobs)] {
            let of = |percentile: fn(&Percentiles) -> f64| spread(&ways.iter().map(percentile).collect::<Vec<_>>());
            println!(
                "create -> pod at {RATE}/s, {name}: p50 {} ms, p99 {} ms, {RATED} objects a round",
                of(|ways| ways.p50),
                of(|ways| ways.p99)
            );
        }
        if self.options.finished > 0 {
            self.restart(operator).await?;
        }
        Ok(())
    }

    /// Measures the raw rate: pods per second without a controller.
    async fn raw(&self, namespace: &str) -> anyhow::Result<f64> {
        self.namespace(namespace).await?;
        let path = pods_of(namespace);
        let began = Instant::now();
        self.create_all(&path, |number| {
            let mut pod = self.pod.clone();
            pod["metadata"]["name"] = format!("raw-{number}").into();
            pod
        })
        .await?;
        let rate = count(self.options.objects) / began.elapsed().as_secs_f64();
        self.clean(namespace, &[&path]).await?;
        Ok(rate)
    }

    /// Creates all objects without a pause. The fake kubelet ends their pods.
    async fn contest(&self, kind: Kind, namespace: &str, controller: u32, until: Until) -> anyhow::Result<Figures> {
        self.namespace(namespace).await?;
        let log = Log::from_now(self.options.cluster.join("logs/audit.log"))?;
        let path = kind.path(namespace);
        let used = cpu(controller)?;
        let kubelet = self.kubelets(namespace, self.options.objects);
        let began = Instant::now();
        let create = self.create_all(&path, |number| kind.object(&format!("o-{number}"), &self.pod));
        let (created, all_pods) = tokio::join!(create, self.until_pods(namespace, began));
        created?;
        let mut figures = Figures {
            all_pods: all_pods?,
            ..Figures::NONE
        };
        if until == Until::Done {
            self.until_done(kind, &path, self.options.objects).await?;
            let all_done = began.elapsed().as_secs_f64();
            let spent = cpu(controller)?.saturating_sub(used);
            let requests: Vec<Asked> = log
                .requests(namespace)?
                .into_iter()
                .filter(|request| request.agent.starts_with(kind.controller()))
                .collect();
            let of = |counted: fn(&Asked) -> bool| {
                count(requests.iter().filter(|request| counted(request)).count()) / count(self.options.objects)
            };
            figures = Figures {
                all_done,
                cpu: spent.as_secs_f64() * 1000.0 / count(self.options.objects),
                resident: resident(controller)?,
                writes: of(Asked::is_write),
                reads: of(|request| matches!(request.verb.as_str(), "get" | "list")),
                ..figures
            };
        }
        drop(kubelet);
        self.clean(namespace, &[&path, &pods_of(namespace)]).await?;
        println!("{namespace}: {figures:.3?}");
        Ok(figures)
    }

    /// Waits until all objects have ended.
    async fn until_done(&self, kind: Kind, path: &str, objects: usize) -> anyhow::Result<()> {
        self.until("every object has ended", || async {
            // The last created object ends last, or nearly. The long list is read after that.
            let last = self.get(&format!("{path}/o-{}", objects - 1)).await?;
            if !kind.is_done(&last) {
                return Ok(false);
            }
            let all = self.get(path).await?;
            let done = all["items"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|object| kind.is_done(object));
            Ok(done.count() == objects)
        })
        .await
    }

    /// Measures the time from an object to its pod by the API server's clock, in milliseconds.
    async fn ways(&self, kind: Kind, namespace: &str) -> anyhow::Result<Vec<f64>> {
        self.namespace(namespace).await?;
        let log = Log::from_now(self.options.cluster.join("logs/audit.log"))?;
        let path = kind.path(namespace);
        let kubelet = self.kubelets(namespace, RATED);
        let mut clock = tokio::time::interval(Duration::from_secs(1) / u32::try_from(RATE)?);
        for number in 0..RATED {
            clock.tick().await;
            self.create(&path, &kind.object(&format!("o-{number}"), &self.pod))
                .await?;
        }
        self.until_pod_count(namespace, RATED).await?;
        drop(kubelet);
        let requests = log.requests(namespace)?;
        // The server generates the names of Jobs' pods, and the log does not contain generated names. So objects and
        // pods are paired by their order. Objects are created every 100 ms. A pod that takes longer makes the figures
        // larger, not smaller.
        let in_order = |resource: &str, at: fn(&Asked) -> Timestamp| -> Vec<Timestamp> {
            let created = requests
                .iter()
                .filter(|request| request.verb == "create" && request.resource == resource);
            let mut times: Vec<Timestamp> = created.map(at).collect();
            times.sort();
            times
        };
        let owners = in_order(kind.resource(), |request| request.reported_at);
        let pods = in_order("pods", |request| request.received);
        let ways: Vec<f64> = owners
            .iter()
            .zip(&pods)
            .map(|(owner, pod)| pod.duration_since(*owner).as_secs_f64() * 1000.0)
            .collect();
        self.clean(namespace, &[&path, &pods_of(namespace)]).await?;
        ensure!(
            owners.len() == RATED && pods.len() == RATED,
            "{} objects and {} pods are in the audit log, not {RATED}",
            owners.len(),
            pods.len()
        );
        Ok(ways)
    }

    /// Measures a restarted operator beside many finished trainings: the time until it is ready, and its writes.
    async fn restart(&self, operator: &mut Child) -> anyhow::Result<()> {
        let namespace = "finished";
        self.namespace(namespace).await?;
        let path = Kind::Training.path(namespace);
        let kubelet = self.kubelets(namespace, self.options.finished);
        let all = stream::iter(0..self.options.finished).map(|number| {
            let object = Kind::Training.object(&format!("o-{number}"), &self.pod);
            let path = path.clone();
            async move { self.create(&path, &object).await }
        });
        all.buffer_unordered(SIDE_BY_SIDE)
            .try_for_each(|()| async { Ok(()) })
            .await?;
        self.until_done(Kind::Training, &path, self.options.finished).await?;
        drop(kubelet);
        self.restarts(operator, namespace, "and their pods").await?;
        // As after ten minutes with the default `ttlAfterFinished`.
        let pods = pods_of(namespace);
        self.delete_all(&pods).await?;
        self.until("the pods are deleted", || async {
            let left = self.get(&format!("{pods}?limit=1")).await?;
            Ok(left["items"].as_array().is_some_and(Vec::is_empty))
        })
        .await?;
        self.restarts(operator, namespace, "without their pods").await
    }

    async fn restarts(&self, operator: &mut Child, namespace: &str, pods: &str) -> anyhow::Result<()> {
        for round in 0..self.options.repeat {
            let bare = self
                .bare_lists(&Kind::Training.path(namespace), &pods_of(namespace))
                .await?;
            operator.kill()?;
            operator.wait()?;
            self.release_lease().await?;
            let log = Log::from_now(self.options.cluster.join("logs/audit.log"))?;
            let began = Instant::now();
            *operator = self.operator()?;
            self.ready().await?;
            let took = began.elapsed().as_secs_f64();
            // Not synchronization: time for writes that must not happen.
            tokio::time::sleep(Duration::from_secs(10)).await;
            let writes = log
                .requests(namespace)?
                .into_iter()
                .filter(|request| request.agent.starts_with("legion-operator") && request.is_write())
                .count();
            println!(
                "restart {round} with {} finished trainings {pods}: ready after {took:.2} s (lists alone {bare:.2} s), {writes} writes in 10 s, {:.1} MiB, {:.1} at most",
                self.options.finished,
                resident(operator.id())?,
                peak(operator.id())?
            );
        }
        Ok(())
    }

    /// Measures the server's time for the operator's lists: the trainings in one piece and, in parallel, the pods in
    /// pages. The client reads only the token of the next page.
    async fn bare_lists(&self, trainings: &str, pods: &str) -> anyhow::Result<f64> {
        #[derive(serde::Deserialize)]
        struct Page {
            metadata: ListMeta,
        }
        let in_pages = async {
            let mut after = String::new();
            loop {
                let path = format!("{pods}?limit=500&continue={after}");
                let page: Page = self.client.request(Request::get(path).body(Vec::new())?).await?;
                match page.metadata.continue_ {
                    Some(token) if !token.is_empty() => after = token,
                    _ => return anyhow::Ok(()),
                }
            }
        };
        let whole = async {
            let request = Request::get(trainings).body(Vec::new())?;
            self.client.request_text(request).await?;
            anyhow::Ok(())
        };
        let began = Instant::now();
        tokio::try_join!(whole, in_pages)?;
        Ok(began.elapsed().as_secs_f64())
    }

    /// Releases the lease of a killed operator. The next operator must not be measured while it waits for the lease.
    async fn release_lease(&self) -> anyhow::Result<()> {
        let path = "/apis/coordination.k8s.io/v1/namespaces/legion-system/leases/legion-operator";
        self.client
            .request_text(Request::delete(path).body(Vec::new())?)
            .await?;
        Ok(())
    }

    /// Waits until the operator is ready.
    async fn ready(&self) -> anyhow::Result<()> {
        self.until("the operator is ready", || async {
            let Ok(mut stream) = tokio::net::TcpStream::connect("127.0.0.1:8080").await else {
                return Ok(false);
            };
            use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
            stream
                .write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                .await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            Ok(answer.starts_with("HTTP/1.1 200"))
        })
        .await
    }

    /// Returns the pod that Legion creates for a training, without the parts that identify the training.
    async fn pod_of_legion(&self) -> anyhow::Result<Value> {
        let namespace = "sample";
        self.namespace(namespace).await?;
        self.create(
            &Kind::Training.path(namespace),
            &Kind::Training.object("o-0", &Value::Null),
        )
        .await?;
        self.until_pod_count(namespace, 1).await?;
        let list = self.get(&pods_of(namespace)).await?;
        let pod = &list["items"][0];
        let mut spec = pod["spec"].clone();
        if let Some(spec) = spec.as_object_mut() {
            // Admission adds these again.
            for field in [
                "tolerations",
                "priority",
                "preemptionPolicy",
                "serviceAccount",
                "serviceAccountName",
            ] {
                spec.remove(field);
            }
        }
        let metadata = json!({"labels": {"app": "measured"}, "annotations": pod["metadata"]["annotations"]});
        self.clean(namespace, &[&Kind::Training.path(namespace)]).await?;
        Ok(json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}))
    }

    async fn namespace(&self, name: &str) -> anyhow::Result<()> {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        match self.create("/api/v1/namespaces", &namespace).await {
            Err(error) if error.downcast_ref().is_some_and(is_conflict) => {}
            other => other?,
        }
        if name == "legion-system" {
            return Ok(());
        }
        let path = format!("/apis/legion-platform.org/v1alpha1/namespaces/{name}/connections");
        let output = json!({
            "apiVersion": "legion-platform.org/v1alpha1",
            "kind": "Connection",
            "metadata": {"name": "models", "annotations": {"legion-platform.org/default-output": "true"}},
            "spec": {"type": "s3", "uri": "s3://models", "region": "eu-central-1", "secretRef": {"name": "models"}},
        });
        self.create(&path, &output).await?;
        self.until("the service account exists", || async {
            let path = format!("/api/v1/namespaces/{name}/serviceaccounts/default");
            Ok(self.get(&path).await.is_ok())
        })
        .await
    }

    async fn create(&self, path: &str, object: &Value) -> anyhow::Result<()> {
        let request = Request::post(path)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(serde_json::to_vec(object)?)?;
        self.client.request_text(request).await?;
        Ok(())
    }

    async fn create_all(&self, path: &str, object: impl Fn(usize) -> Value) -> anyhow::Result<()> {
        let object = &object;
        stream::iter(0..self.options.objects)
            .map(|number| async move { self.create(path, &object(number)).await })
            .buffer_unordered(SIDE_BY_SIDE)
            .try_for_each(|()| async { Ok(()) })
            .await
    }

    async fn get(&self, path: &str) -> anyhow::Result<Value> {
        Ok(self.client.request(Request::get(path).body(Vec::new())?).await?)
    }

    async fn until_pods(&self, namespace: &str, began: Instant) -> anyhow::Result<f64> {
        self.until_pod_count(namespace, self.options.objects).await?;
        Ok(began.elapsed().as_secs_f64())
    }

    /// Waits for a number of pods. A list with `limit=1` reports how many remain, so the pods are not read.
    async fn until_pod_count(&self, namespace: &str, wanted: usize) -> anyhow::Result<()> {
        let pods: Api<PartialObjectMeta<Pod>> = Api::namespaced(self.client.clone(), namespace);
        self.until("every object has its pod", || async {
            let list = pods.list_metadata(&ListParams::default().limit(1)).await?;
            let more = usize::try_from(list.metadata.remaining_item_count.unwrap_or_default())?;
            Ok(list.items.len() + more >= wanted)
        })
        .await
    }

    async fn until<F>(&self, what: &str, mut holds: impl FnMut() -> F) -> anyhow::Result<()>
    where
        F: Future<Output = anyhow::Result<bool>>,
    {
        let began = Instant::now();
        while !holds().await? {
            if began.elapsed() > LIMIT {
                bail!("not within {} s: {what}", LIMIT.as_secs());
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }

    /// Deletes a collection. The server's limit for a request is a minute, too short for 10,000 pods. So the request is
    /// repeated for the rest.
    async fn delete_all(&self, collection: &str) -> anyhow::Result<()> {
        let now = json!({"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0, "propagationPolicy": "Background"});
        let body = serde_json::to_vec(&now)?;
        self.until("the collection is deleted", || async {
            let request = Request::delete(collection)
                .header(http::header::CONTENT_TYPE, "application/json")
                .body(body.clone())?;
            match self.client.request_text(request).await {
                Ok(_) => Ok(true),
                Err(kube::Error::Api(status)) if status.code != 504 => Err(kube::Error::Api(status).into()),
                Err(_) => Ok(false),
            }
        })
        .await
    }

    /// Deletes the objects of a contest, so that the next one starts on the same server.
    async fn clean(&self, namespace: &str, collections: &[&str]) -> anyhow::Result<()> {
        for collection in collections {
            self.delete_all(collection).await?;
        }
        let request = Request::delete(format!("/api/v1/namespaces/{namespace}")).body(Vec::new())?;
        self.client.request_text(request).await?;
        self.until("the namespace is gone", || async {
            let path = format!("/api/v1/namespaces/{namespace}");
            match self.get(&path).await {
                Ok(_) => Ok(false),
                Err(error) if matches!(error.downcast_ref(), Some(kube::Error::Api(status)) if status.code == 404) => {
                    Ok(true)
                }
                Err(error) => Err(error),
            }
        })
        .await
    }
}

/// Returns the path of the pods of a namespace.
fn pods_of(namespace: &str) -> String {
    Pod::url_path(&(), Some(namespace))
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

#[expect(clippy::cast_precision_loss, reason = "numbers of objects are small")]
fn count(number: usize) -> f64 {
    number as f64
}

/// Median, minimum and maximum.
fn spread(values: &[f64]) -> String {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|value| !value.is_nan()).collect();
    sorted.sort_by(f64::total_cmp);
    match (sorted.first(), sorted.get(sorted.len() / 2), sorted.last()) {
        (Some(least), Some(median), Some(most)) => format!("{median:.2} ({least:.2}-{most:.2})"),
        _ => "-".to_owned(),
    }
}

struct Percentiles {
    p50: f64,
    p99: f64,
}

impl Percentiles {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |percent: usize| values.get(values.len() * percent / 100).copied().unwrap_or(f64::NAN);
        Self {
            p50: at(50),
            p99: at(99),
        }
    }
}

/// A column of the table: title and value.
type Column = (&'static str, fn(&Figures) -> f64);

fn print(contestants: &[(&str, &Vec<Figures>)]) {
    println!(
        "\nmedian (least-most) of {} rounds",
        contestants.first().map_or(0, |(_, figures)| figures.len())
    );
    let columns: [Column; 6] = [
        ("all pods, s", |figures| figures.all_pods),
        ("all done, s", |figures| figures.all_done),
        ("writes", |figures| figures.writes),
        ("reads", |figures| figures.reads),
        ("CPU ms", |figures| figures.cpu),
        ("MiB", |figures| figures.resident),
    ];
    print!("{:<20}", "");
    for (title, _) in &columns {
        print!("  {title:>22}");
    }
    println!();
    for (name, figures) in contestants {
        if figures.is_empty() {
            continue;
        }
        print!("{name:<20}");
        for (_, value) in &columns {
            let values: Vec<f64> = figures.iter().map(value).collect();
            print!("  {:>22}", spread(&values));
        }
        println!();
    }
    println!("writes, reads and CPU are the controller's, for each object\n");
}
