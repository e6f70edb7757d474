//! A real API server, the objects that trainings refer to, and its audit log.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use jiff::Timestamp;
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Pod};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ListParams, PostParams},
};
use legion_api::{ModelTraining, condition};
use legion_tests::{
    audit::{self, Request},
    fake_kubelet::{Course, FakeKubelet, Settings},
    local::repository,
    tool::until_crds_are_served,
};
use serde_json::{Value, json};

/// Longer than any step takes, also on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(180);
/// Interval between two polls.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// A namespace of trainings and one of the platform, on the cluster that KUBECONFIG names.
pub(crate) struct World {
    pub client: Client,
    pub namespace: String,
    pub platform: String,
    pub directory: tempfile::TempDir,
    pub kubelet: FakeKubelet,
    kubeconfig: PathBuf,
}

impl World {
    /// Creates both. `name` must be unique among the tests.
    pub(crate) async fn new(name: &str) -> anyhow::Result<Self> {
        let kubeconfig = env::var_os("KUBECONFIG").context("no KUBECONFIG: see docs/guides/high-availability.md")?;
        let kubeconfig = PathBuf::from(kubeconfig);
        let client = Client::try_default().await?;
        let unique = Timestamp::now().as_millisecond() % 100_000_000;
        let namespace = format!("{name}-{unique}");
        let world = Self {
            kubelet: kubelet(&client, &namespace, Settings::default().course),
            client,
            platform: format!("{namespace}-platform"),
            namespace,
            directory: tempfile::tempdir()?,
            kubeconfig,
        };
        let crds = repository().join("crds");
        world.kubectl(&["apply", "--server-side", "-f", crds.to_str().context("UTF-8")?])?;
        until_crds_are_served()?;
        for namespace in [&world.namespace, &world.platform] {
            world.kubectl(&["create", "namespace", namespace])?;
        }
        // The ServiceAccount `default` is created a moment later. Until then pods are refused.
        world
            .until("the namespace has its ServiceAccount", async || {
                let found = world.kubectl(&["get", "serviceaccount", "default", "-n", &world.namespace]);
                Ok(found.is_ok().then_some(()))
            })
            .await?;
        world.furnish()?;
        Ok(world)
    }

    /// Runs kubectl and fails unless it succeeds.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = Command::new("kubectl").args(arguments).output().context("kubectl")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kubectl {}: {said}", arguments.join(" "));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Replaces the kubelet. Pods that run go on until they are deleted.
    pub(crate) fn replace_kubelet(&mut self, course: fn(&Pod) -> Course) {
        self.kubelet = kubelet(&self.client, &self.namespace, course);
    }

    pub(crate) fn apply(&self, objects: &[Value]) -> anyhow::Result<()> {
        let path = self.directory.path().join("objects.json");
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        fs::write(&path, serde_json::to_vec(&list)?)?;
        self.kubectl(&["apply", "-f", path.to_str().context("UTF-8")?])?;
        Ok(())
    }

    fn furnish(&self) -> anyhow::Result<()> {
        let (namespace, platform) = (&self.namespace, &self.platform);
        self.apply(&[
            json!({
                "apiVersion": "legion-platform.org/v1alpha1",
                "kind": "ToolchainIntegration",
                "metadata": {"name": "mlflow", "namespace": platform},
                "spec": {"type": "Training", "image": "toolchain:1", "command": ["train"], "format": "gppi/v1"},
            }),
            json!({
                "apiVersion": "legion-platform.org/v1alpha1",
                "kind": "Connection",
                "metadata": {
                    "name": "models",
                    "namespace": namespace,
                    "annotations": {"legion-platform.org/default-output": "true"},
                },
                "spec": {"type": "s3", "uri": "s3://models/team", "region": "eu-central-1", "secretRef": {"name": "models"}},
            }),
            json!({
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "source", "namespace": namespace},
                "data": {"train.py": "print('trained')"},
            }),
        ])
    }

    /// Creates a user and its kubeconfig for a replica. The audit log then distinguishes the replicas.
    pub(crate) fn kubeconfig_of(&self, replica: &str) -> anyhow::Result<(PathBuf, String)> {
        let account = format!("operator-{replica}");
        let user = format!("system:serviceaccount:{}:{account}", self.platform);
        self.kubectl(&["create", "serviceaccount", &account, "-n", &self.platform])?;
        let binding = format!("{}-{account}", self.platform);
        let role = "--clusterrole=cluster-admin";
        let subject = format!("--serviceaccount={}:{account}", self.platform);
        self.kubectl(&["create", "clusterrolebinding", &binding, role, &subject])?;
        let token = self.kubectl(&["create", "token", &account, "-n", &self.platform, "--duration=1h"])?;
        let path = self.directory.path().join(format!("{account}.kubeconfig"));
        fs::copy(&self.kubeconfig, &path)?;
        let file = format!("--kubeconfig={}", path.display());
        let token = format!("--token={}", token.trim());
        self.kubectl(&[&file, "config", "set-credentials", &account, &token])?;
        self.kubectl(&[
            &file,
            "config",
            "set-context",
            "--current",
            &format!("--user={account}"),
        ])?;
        Ok((path, user))
    }

    /// Polls until there is a result.
    pub(crate) async fn until<T>(
        &self,
        what: &str,
        look: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        self.until_within(LIMIT, what, look).await
    }

    /// The same, with another time limit.
    pub(crate) async fn until_within<T>(
        &self,
        limit: Duration,
        what: &str,
        mut look: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        let began = Instant::now();
        loop {
            if let Some(found) = look().await? {
                return Ok(found);
            }
            ensure!(began.elapsed() < limit, "not within {} s: {what}", limit.as_secs());
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Returns the holder of the lease, if it has one.
    pub(crate) async fn holder(&self) -> anyhow::Result<Option<String>> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), &self.platform);
        let lease = leases.get_opt("legion-operator").await?;
        Ok(lease.and_then(|lease| lease.spec?.holder_identity))
    }

    /// Waits until this replica holds the lease. Returns the time since `since`.
    pub(crate) async fn led_by(&self, replica: &str, since: Instant) -> anyhow::Result<Duration> {
        self.until(&format!("{replica} leads"), async || {
            Ok((self.holder().await?.as_deref() == Some(replica)).then(|| since.elapsed()))
        })
        .await
    }

    /// Creates trainings with these numbers.
    pub(crate) async fn train(&self, numbers: std::ops::Range<usize>) -> anyhow::Result<()> {
        for number in numbers {
            self.create(&format!("wine-{number}"), &json!({})).await?;
        }
        Ok(())
    }

    /// Creates a training. `fields` are added to its spec.
    pub(crate) async fn create(&self, name: &str, fields: &Value) -> anyhow::Result<()> {
        let mut training = json!({
            "apiVersion": "legion-platform.org/v1alpha1",
            "kind": "ModelTraining",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {
                "model": {"name": "wine", "version": "1"},
                "toolchain": "mlflow",
                "source": {"configMap": {"name": "source"}},
                "entrypoint": "train.py",
                "timeout": "15m",
            },
        });
        for (field, value) in fields.as_object().into_iter().flatten() {
            training["spec"][field] = value.clone();
        }
        let training = serde_json::from_value(training)?;
        self.trainings().create(&PostParams::default(), &training).await?;
        Ok(())
    }

    pub(crate) fn trainings(&self) -> Api<ModelTraining> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Waits until `count` trainings have succeeded. Checks that each had one pod, and that no other pod was created.
    pub(crate) async fn all_succeed(&self, count: usize) -> anyhow::Result<()> {
        let trainings = self.trainings();
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        self.until(&format!("{count} trainings have succeeded"), async || {
            let list = trainings.list(&ListParams::default()).await?;
            ensure!(list.items.len() == count, "{} trainings", list.items.len());
            let succeeded = |training: &ModelTraining| {
                let conditions = training.status.as_ref().map_or(&[][..], |status| &status.conditions);
                condition::is_true(conditions, condition::SUCCEEDED)
            };
            tokio::time::sleep(Duration::from_millis(100)).await;
            Ok(list.items.iter().all(succeeded).then_some(()))
        })
        .await?;
        let mut owners: Vec<String> = Vec::new();
        let mut names = BTreeSet::new();
        for pod in pods.list(&ListParams::default()).await?.items {
            names.insert(pod.name_any());
            let owner = pod.owner_references().first().map(|owner| owner.name.clone());
            owners.push(owner.with_context(|| format!("{} has no owner", pod.name_any()))?);
        }
        owners.sort();
        let made = owners.len();
        owners.dedup();
        ensure!(
            made == count && owners.len() == count,
            "{made} pods of {} trainings",
            owners.len()
        );
        let played = self.kubelet.finished();
        ensure!(played == count, "{played} pods ran for {count} trainings");
        // No pod was created and deleted, either. The log has no success for a pod whose creator was killed during the
        // request.
        let made = self
            .audit()?
            .into_iter()
            .filter(|entry| entry.verb == "create" && entry.resource == "pods" && entry.namespace == self.namespace)
            .filter(|entry| entry.code == 201);
        for pod in made {
            ensure!(
                names.remove(&pod.name),
                "{} was created and deleted, or created twice",
                pod.name
            );
        }
        Ok(())
    }

    /// Returns the directory of the cluster that `cargo xtask cluster up` created.
    pub(crate) fn cluster(&self) -> anyhow::Result<&Path> {
        let directory = self.kubeconfig.parent().context("a kubeconfig lies in a directory")?;
        ensure!(
            directory.join("logs/audit.log").is_file(),
            "{} has no audit log: this suite needs a cluster of `cargo xtask cluster up`",
            directory.display()
        );
        Ok(directory)
    }

    /// Returns all requests of the audit log.
    pub(crate) fn audit(&self) -> anyhow::Result<Vec<Request>> {
        audit::requests(&self.cluster()?.join("logs/audit.log"), 0, "")
    }
}

/// Starts a kubelet for the pods of a namespace.
fn kubelet(client: &Client, namespace: &str, course: fn(&Pod) -> Course) -> FakeKubelet {
    let settings = Settings {
        namespace: Some(namespace.to_owned()),
        course,
        ..Settings::default()
    };
    FakeKubelet::start(client.clone(), settings)
}
