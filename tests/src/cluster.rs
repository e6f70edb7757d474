//! Legion behind the Kubernetes API, used through kubectl. The API is embedded or a real cluster: one suite runs on
//! both.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use http::Request;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Client, Resource,
    config::{KubeConfigOptions, Kubeconfig},
    core::NamespaceResourceScope,
};
use legion_api::ModelTraining;
use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;

use crate::{
    local::{Local, programs, repository, succeeded, text},
    tool,
};

/// The timeout of every wait. Nodes pull images of a gigabyte, and the machine may be busy.
pub const LIMIT: Duration = Duration::from_secs(300);
/// The time between two polls. It is not short, because many tests poll at the same time.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// The harness' registry, to which `cargo xtask image --load` pushes.
pub const REGISTRY: &str = "10.244.0.1:5000";

/// The Kubernetes API under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// `legionctl local`: the API of kube-embed, with pods as processes.
    Embedded,
    /// The cluster of KUBECONFIG, in which Legion is installed.
    Kubernetes,
}

/// A namespaced kind that is known at compile time.
pub trait Namespaced: Resource<DynamicType = (), Scope = NamespaceResourceScope> {}

impl<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>> Namespaced for K {}

/// A namespace with a default output, so that trainings can succeed in it. Dropping it deletes the namespace and its
/// content.
#[derive(Debug)]
pub struct Cluster {
    backend: Backend,
    kubectl: PathBuf,
    kubeconfig: PathBuf,
    reader: Reader,
    namespace: String,
    /// The local mode under test: it is stopped when this is dropped.
    _local: Option<Local>,
}

/// Reads objects without kubectl. Many tests poll at the same time, and each kubectl costs 0.1 s of CPU time.
struct Reader {
    runtime: Runtime,
    client: Client,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reader")
    }
}

impl Reader {
    fn new(kubeconfig: &Path) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = runtime.block_on(async {
            let file = Kubeconfig::read_from(kubeconfig)?;
            let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
            anyhow::Ok(Client::try_from(config)?)
        })?;
        Ok(Self { runtime, client })
    }

    fn text(&self, path: &str) -> kube::Result<String> {
        let ask = || {
            let request = Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError)?;
            self.runtime.block_on(self.client.request_text(request))
        };
        match ask() {
            // The connection is from before a restart of the server.
            Err(error) if !matches!(error, kube::Error::Api(_)) => ask(),
            answer => answer,
        }
    }

    /// Returns the object at this path, or null if there is none.
    fn read(&self, path: &str) -> anyhow::Result<Value> {
        match self.text(path) {
            Ok(text) => Ok(serde_json::from_str(&text)?),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(Value::Null),
            Err(error) => Err(error).context(path.to_owned()),
        }
    }
}

impl Cluster {
    /// Creates a namespace. Its name starts with `purpose`.
    pub fn new(backend: Backend, purpose: &str) -> anyhow::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let (local, kubectl, kubeconfig) = match backend {
            Backend::Embedded => {
                let local = Local::new()?;
                local.up()?;
                let kubeconfig = local.path().join("kubeconfig");
                (Some(local), tool::path("kubectl")?, kubeconfig)
            }
            Backend::Kubernetes => {
                let kubeconfig = std::env::var_os("KUBECONFIG")
                    .filter(|value| !value.is_empty())
                    .context("KUBECONFIG is not set: run this with `cargo xtask cluster run -- ...`")?;
                installed()?;
                (None, PathBuf::from("kubectl"), kubeconfig.into())
            }
        };
        // A name has 63 characters at most.
        let purpose: String = purpose.replace('_', "-").chars().take(40).collect();
        let cluster = Self {
            backend,
            kubectl,
            reader: Reader::new(&kubeconfig)?,
            kubeconfig,
            // The process id makes it different from namespaces that an interrupted run left.
            namespace: format!("{}-{}-{number}", purpose.trim_end_matches('-'), std::process::id()),
            _local: local,
        };
        cluster.apply(&namespace(&cluster.namespace))?;
        if backend == Backend::Kubernetes {
            // The local mode makes one in every namespace.
            cluster.apply(&std::fs::read_to_string(
                repository().join("examples/default-output/pvc.yaml"),
            )?)?;
        }
        Ok(cluster)
    }

    /// Returns the Kubernetes API that this namespace is in.
    #[must_use]
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Returns the name of the namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Returns a kubectl command for this namespace. The command is not started.
    #[must_use]
    pub fn kubectl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.kubectl);
        command
            .env("KUBECONFIG", &self.kubeconfig)
            .current_dir(repository())
            .args(["--namespace", &self.namespace])
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    /// Runs kubectl, which must succeed. Returns its stdout.
    pub fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        printed(&mut self.kubectl(arguments), "")
    }

    /// Runs kubectl, which must fail. Returns its stdout and stderr.
    pub fn refused(&self, arguments: &[&str], input: &str) -> anyhow::Result<String> {
        let said = tool::run(&mut self.kubectl(arguments), input)?;
        ensure!(!said.ok, "not refused: {arguments:?}\n{}", said.all);
        Ok(said.all)
    }

    /// Applies manifests with server-side apply, as a GitOps tool does.
    pub fn apply(&self, manifests: &str) -> anyhow::Result<String> {
        // Forced, because some tests apply fields that another manager owns.
        let arguments = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        printed(&mut self.kubectl(&arguments), manifests)
    }

    /// Returns the URL path of a kind's objects in this namespace.
    fn path<K: Namespaced>(&self) -> String {
        K::url_path(&(), Some(&self.namespace))
    }

    /// Returns an object, or null if there is none.
    pub fn get<K: Namespaced>(&self, name: &str) -> anyhow::Result<Value> {
        self.reader.read(&format!("{}/{name}", self.path::<K>()))
    }

    /// Returns all objects of a kind in the namespace that match a label selector.
    pub fn list<K: Namespaced>(&self, selector: &str) -> anyhow::Result<Vec<Value>> {
        let selector = selector.replace('=', "%3D");
        let path = self.path::<K>();
        let mut list = self.reader.read(&format!("{path}?labelSelector={selector}"))?;
        match list["items"].take() {
            Value::Array(items) => Ok(items),
            other => anyhow::bail!("no list of {}: {other}", K::plural(&())),
        }
    }

    /// Returns the pods of a training.
    pub fn pods(&self, training: &str) -> anyhow::Result<Vec<Value>> {
        self.list::<Pod>(&format!("legion-platform.org/training={training}"))
    }

    /// Returns a training, or null if there is none.
    pub fn training(&self, name: &str) -> anyhow::Result<Value> {
        self.get::<ModelTraining>(name)
    }

    /// Polls a training until `look` finds something. The error of a timeout contains the last status and the pods.
    pub fn until<T>(
        &self,
        training: &str,
        what: &str,
        mut look: impl FnMut(&Value) -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        let began = Instant::now();
        loop {
            let seen = self.training(training)?;
            if let Some(found) = look(&seen)? {
                return Ok(found);
            }
            ensure!(
                began.elapsed() < LIMIT,
                "{}/{training}: not within {} s: {what}\n{:#}\n{}",
                self.namespace,
                LIMIT.as_secs(),
                seen["status"],
                text(&self.kubectl(&["get", "pods,events", "--output=wide"]).output()?),
            );
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Repeats `ask` until the API server answers. An error is not a failure before the timeout.
    pub fn until_served<T>(&self, what: &str, mut ask: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
        let began = Instant::now();
        loop {
            match ask() {
                Ok(answer) => return Ok(answer),
                Err(error) if began.elapsed() > LIMIT => {
                    return Err(error.context(format!("not within {} s: {what}", LIMIT.as_secs())));
                }
                Err(_) => thread::sleep(POLL_INTERVAL),
            }
        }
    }

    /// Waits until the current generation of a training has succeeded or failed.
    pub fn ended(&self, name: &str) -> anyhow::Result<Value> {
        self.until(name, "it has ended", |training| {
            let condition = succeeded(training);
            let ended = matches!(condition["status"].as_str(), Some("True" | "False"));
            let current = condition["observedGeneration"] == training["metadata"]["generation"];
            Ok((ended && current).then(|| training.clone()))
        })
    }

    /// Waits until a training has succeeded. Returns an error immediately if the training fails.
    pub fn success(&self, name: &str) -> anyhow::Result<Value> {
        let training = self.ended(name)?;
        ensure!(
            succeeded(&training)["status"] == "True",
            "{}/{name} did not succeed: {:#}",
            self.namespace,
            training["status"]
        );
        Ok(training)
    }

    /// Waits until a training waits with this reason.
    pub fn waiting(&self, name: &str, reason: &str) -> anyhow::Result<Value> {
        self.until(name, &format!("it waits because of {reason}"), |training| {
            let condition = succeeded(training);
            let waits = condition["status"] == "Unknown" && condition["reason"] == reason;
            Ok(waits.then(|| training.clone()))
        })
    }

    /// Waits until the trainer has printed these words.
    pub fn printed(&self, name: &str, words: &str) -> anyhow::Result<Value> {
        self.until(name, &format!("its trainer has printed {words:?}"), |_| {
            for pod in self.pods(name)? {
                let pod_name = pod["metadata"]["name"].as_str().unwrap_or_default();
                // A container that has not started yet has no log.
                let path = format!("{}/{pod_name}/log?container=trainer", self.path::<Pod>());
                let log = self.reader.text(&path).unwrap_or_default();
                // An evicted pod and its log still exist.
                let lives = pod["metadata"]["deletionTimestamp"].is_null() && pod["status"]["phase"] != "Failed";
                if lives && log.contains(words) {
                    return Ok(Some(pod));
                }
            }
            Ok(None)
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.backend == Backend::Kubernetes {
            // An error is ignored here. The name of a leftover namespace shows which test left it.
            let _ = self
                .kubectl(&["delete", "namespace", &self.namespace, "--wait=false"])
                .output();
        }
    }
}

/// Returns the manifest of a namespace that enforces the `restricted` Pod Security Standard.
#[must_use]
pub fn namespace(name: &str) -> String {
    let labels = json!({"pod-security.kubernetes.io/enforce": "restricted"});
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}).to_string()
}

/// Returns the manifests of a training with the toolchain `script` and of its source. `lines` go into `train.sh`. The
/// fields of `spec` override the defaults.
#[must_use]
pub fn script(name: &str, lines: &str, spec: Value) -> String {
    let text = format!("set -eu\nmkdir -p \"$LEGION_OUTPUT/model\"\n{lines}\n");
    manifest(name, &Map::from_iter([("train.sh".to_owned(), text.into())]), spec)
}

/// Returns the manifests of a training and of its source, as JSON, which is also YAML. The toolchain is `script` unless
/// `spec` overrides it.
#[must_use]
pub fn manifest(name: &str, files: &Map<String, Value>, spec: Value) -> String {
    let source = format!("{name}-source");
    let mut whole = json!({
        "model": {"name": "tested", "version": "1"},
        "toolchain": "script",
        "entrypoint": "train.sh",
        "source": {"configMap": {"name": source}},
        "timeout": "5m",
    });
    if let (Value::Object(whole), Value::Object(spec)) = (&mut whole, spec) {
        whole.extend(spec);
    }
    let config_map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": source}, "data": files});
    let training = json!({
        "apiVersion": "legion-platform.org/v1alpha1",
        "kind": "ModelTraining",
        "metadata": {"name": name},
        "spec": whole,
    });
    format!("{config_map:#}\n---\n{training:#}\n")
}

/// Runs Helm in Legion's namespace. It must succeed. Returns its stdout.
pub fn helm(arguments: &[&str]) -> anyhow::Result<String> {
    tool::helm(&[&["--namespace=legion-system"], arguments].concat())
}

/// Installs Legion's charts in the cluster of the harness, once per test binary. Any other cluster must have them
/// already.
fn installed() -> anyhow::Result<()> {
    static INSTALLED: OnceLock<Result<(), String>> = OnceLock::new();
    let installed = INSTALLED.get_or_init(|| {
        if cluster_directory().is_err() {
            return Ok(());
        }
        install(&[]).map_err(|error| format!("{error:#}"))
    });
    installed
        .clone()
        .map_err(|error| anyhow::anyhow!("Legion is not installed: {error}"))
}

/// Installs or upgrades Legion's charts with these settings, and waits until the rollout is complete.
pub fn install(settings: &[&str]) -> anyhow::Result<()> {
    let release = |name: &str, settings: &[&str]| -> anyhow::Result<()> {
        let chart = format!("charts/{name}");
        let arguments = [
            "upgrade",
            "--install",
            "--create-namespace",
            "--wait",
            "--reset-values",
            name,
            &chart,
        ];
        helm(&[&arguments, settings].concat()).map(drop)
    };
    release("legion-crds", &[])?;
    let registry = format!("--set=image.registry={REGISTRY}");
    let mut arguments = vec![registry.as_str()];
    arguments.extend(settings);
    release("legion", &arguments)
}

/// Changes a process of the harness's cluster: see `cargo xtask cluster process --help`.
pub fn process(name: &str, change: &str) -> anyhow::Result<()> {
    process_of(&programs()?.join("legion-cluster"), &cluster_directory()?, name, change)
}

/// Does the same as [`process`] with this program, in the cluster of this directory.
pub fn process_of(program: &Path, cluster: &Path, name: &str, change: &str) -> anyhow::Result<()> {
    let mut command = Command::new(program);
    command
        .args(["cluster", "process", "--dir"])
        .arg(cluster)
        .args([name, change]);
    printed(&mut command, "").map(drop)
}

/// Returns the directory of the harness's cluster, from `LEGION_CLUSTER`.
pub fn cluster_directory() -> anyhow::Result<PathBuf> {
    let directory = std::env::var_os("LEGION_CLUSTER")
        .context("LEGION_CLUSTER is not set: run this with `cargo xtask cluster run -- ...`")?;
    Ok(Path::new(&directory).to_owned())
}

/// Returns `metadata.name` of an object.
pub fn name_of(object: &Value) -> anyhow::Result<&str> {
    object["metadata"]["name"].as_str().context("an object's name")
}

/// Runs a command, which must succeed. Returns its stdout.
fn printed(command: &mut Command, input: &str) -> anyhow::Result<String> {
    let said = tool::run(command, input)?;
    ensure!(said.ok, "{command:?}: exit code {:?}\n{}", said.code, said.all);
    Ok(said.out)
}
