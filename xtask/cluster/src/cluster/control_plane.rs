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
    let path = |file: &str| layout.join(file).display().to_string();
    let mut etcd = Daemon::new(
        "etcd",
        program(programs, "etcd")?.to_owned(),
        vec![
            format!("--data-dir={}", path("etcd")),
            "--listen-client-urls=http://127.0.0.1:2379".into(),
            "--advertise-client-urls=http://127.0.0.1:2379".into(),
            "--listen-peer-urls=http://127.0.0.1:2380".into(),
            "--initial-advertise-peer-urls=http://127.0.0.1:2380".into(),
            "--initial-cluster=default=http://127.0.0.1:2380".into(),
            // What a machine's crash would lose is a test's.
            "--unsafe-no-fsync".into(),
            "--log-level=warn".into(),
        ],
    );
    etcd.start(layout)?;

    layout.write("audit-policy.yaml", AUDIT_POLICY)?;
    let mut server = Daemon::new(
        "kube-apiserver",
        program(programs, "kube-apiserver")?.to_owned(),
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
        ],
    );
    server.start(layout)?;
    let kubectl = program(programs, "kubectl")?.display().to_string();
    let kubeconfig = layout.kubeconfig();
    until(layout, "the API server is ready", READY, &[&etcd, &server], || {
        let mut command = network::command(layout, &kubectl);
        quietly(
            command
                .args(["get", "--raw", "/readyz", "--request-timeout=5s", "--kubeconfig"])
                .arg(&kubeconfig),
        )
    })?;

    let manager = "pki/controller-manager.kubeconfig";
    let scheduler = "pki/scheduler.kubeconfig";
    let as_user = |kubeconfig: &str| {
        ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"]
            .map(|flag| format!("--{flag}={}", path(kubeconfig)))
    };
    let mut arguments = as_user(manager).to_vec();
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
    let name = "kube-controller-manager";
    let mut controllers = Daemon::new(name, program(programs, name)?.to_owned(), arguments);
    controllers.start(layout)?;

    let mut arguments = as_user(scheduler).to_vec();
    arguments.extend(["--bind-address=127.0.0.1".into(), "--leader-elect=false".into()]);
    let name = "kube-scheduler";
    let mut scheduler = Daemon::new(name, program(programs, name)?.to_owned(), arguments);
    scheduler.start(layout)?;
    // Before it is there, pods are refused.
    until(
        layout,
        "the default ServiceAccount exists",
        READY,
        &[&controllers, &scheduler],
        || {
            let mut command = network::command(layout, &kubectl);
            quietly(
                command
                    .args(["get", "serviceaccount", "default", "--kubeconfig"])
                    .arg(&kubeconfig),
            )
        },
    )
}
