//! etcd, API server, controller manager and scheduler.

use std::time::Duration;

use super::{
    daemon::{Daemon, quietly, until},
    layout::{ADDRESS, API_PORT, Layout, SERVICES},
    network,
    tools::{Programs, program},
};

/// How long a part may take to become ready: a busy machine with two cores needs some seconds.
pub(super) const READY: Duration = Duration::from_secs(90);

/// What is written to the audit log: who did what to which object, without bodies.
const AUDIT_POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: Metadata
";

/// Starts them and waits until the API server is ready.
pub(super) fn start(layout: &Layout, programs: &Programs) -> anyhow::Result<()> {
    let mut etcd = Daemon::new("etcd", program(programs, "etcd")?.to_owned(), etcd_arguments(layout));
    etcd.start(layout)?;

    layout.write("audit-policy.yaml", AUDIT_POLICY)?;
    let name = "kube-apiserver";
    let mut server = Daemon::new(name, program(programs, name)?.to_owned(), server_arguments(layout));
    server.start(layout)?;
    let kubectl = program(programs, "kubectl")?.display().to_string();
    let succeeds = |arguments: &[&str]| {
        let mut command = network::command(layout, &kubectl);
        quietly(command.args(arguments).arg("--kubeconfig").arg(layout.kubeconfig()))
    };
    until(layout, "the API server is ready", READY, &[&etcd, &server], || {
        succeeds(&["get", "--raw", "/readyz", "--request-timeout=5s"])
    })?;

    let name = "kube-controller-manager";
    let mut controllers = Daemon::new(name, program(programs, name)?.to_owned(), controllers_arguments(layout));
    controllers.start(layout)?;
    let name = "kube-scheduler";
    let mut scheduler = Daemon::new(name, program(programs, name)?.to_owned(), scheduler_arguments(layout));
    scheduler.start(layout)?;
    // Before it is there, pods are refused.
    until(
        layout,
        "the default ServiceAccount exists",
        READY,
        &[&controllers, &scheduler],
        || succeeds(&["get", "serviceaccount", "default"]),
    )
}

fn path(layout: &Layout, file: &str) -> String {
    layout.join(file).display().to_string()
}

fn etcd_arguments(layout: &Layout) -> Vec<String> {
    vec![
        format!("--data-dir={}", path(layout, "etcd")),
        "--listen-client-urls=http://127.0.0.1:2379".into(),
        "--advertise-client-urls=http://127.0.0.1:2379".into(),
        "--listen-peer-urls=http://127.0.0.1:2380".into(),
        "--initial-advertise-peer-urls=http://127.0.0.1:2380".into(),
        "--initial-cluster=default=http://127.0.0.1:2380".into(),
        // What a machine's crash would lose is a test's.
        "--unsafe-no-fsync".into(),
        "--log-level=warn".into(),
    ]
}

fn server_arguments(layout: &Layout) -> Vec<String> {
    let path = |file| path(layout, file);
    vec![
        "--etcd-servers=http://127.0.0.1:2379".into(),
        format!("--secure-port={API_PORT}"),
        format!("--advertise-address={ADDRESS}"),
        format!("--service-cluster-ip-range={SERVICES}"),
        format!("--tls-cert-file={}", path("pki/apiserver.crt")),
        format!("--tls-private-key-file={}", path("pki/apiserver.key")),
        format!("--client-ca-file={}", path("pki/ca.crt")),
        format!("--kubelet-client-certificate={}", path("pki/kubelet-client.crt")),
        format!("--kubelet-client-key={}", path("pki/kubelet-client.key")),
        format!("--kubelet-certificate-authority={}", path("pki/ca.crt")),
        "--kubelet-preferred-address-types=InternalIP".into(),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".into(),
        format!("--service-account-key-file={}", path("pki/service-accounts.pub")),
        format!(
            "--service-account-signing-key-file={}",
            path("pki/service-accounts.key")
        ),
        "--authorization-mode=Node,RBAC".into(),
        "--enable-admission-plugins=NodeRestriction".into(),
        "--allow-privileged=true".into(),
        format!("--audit-policy-file={}", path("audit-policy.yaml")),
        format!("--audit-log-path={}", path("logs/audit.log")),
        "--audit-log-maxsize=1000".into(),
    ]
}

fn controllers_arguments(layout: &Layout) -> Vec<String> {
    let path = |file| path(layout, file);
    let mut arguments = as_user(layout, "pki/controller-manager.kubeconfig");
    arguments.extend([
        "--bind-address=127.0.0.1".into(),
        "--leader-elect=false".into(),
        "--use-service-account-credentials=true".into(),
        // A node that does not answer is noticed within half of the usual time: tests wait for it.
        "--node-monitor-grace-period=20s".into(),
        // Tests create and delete hundreds of namespaces. At the usual 20 requests a second each deletion takes
        // minutes.
        "--kube-api-qps=200".into(),
        "--kube-api-burst=400".into(),
        format!(
            "--service-account-private-key-file={}",
            path("pki/service-accounts.key")
        ),
        format!("--root-ca-file={}", path("pki/ca.crt")),
        format!("--cluster-signing-cert-file={}", path("pki/ca.crt")),
        format!("--cluster-signing-key-file={}", path("pki/ca.key")),
    ]);
    arguments
}

fn scheduler_arguments(layout: &Layout) -> Vec<String> {
    let mut arguments = as_user(layout, "pki/scheduler.kubeconfig");
    arguments.extend(["--bind-address=127.0.0.1".into(), "--leader-elect=false".into()]);
    arguments
}

fn as_user(layout: &Layout, kubeconfig: &str) -> Vec<String> {
    ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"]
        .map(|flag| format!("--{flag}={}", path(layout, kubeconfig)))
        .to_vec()
}
