//! What a cluster has besides Kubernetes itself: names, storage, an OCI registry and an S3 server.

use std::path::Path;

use super::{
    control_plane::READY,
    daemon::{Daemon, until},
    layout::{ADDRESS, Layout, REGISTRY_PORT, S3_KEYS, S3_PORT},
    network,
    node::BUSYBOX_IMAGE,
    tools::{Programs, program},
};

/// Starts them and waits until they answer.
pub(super) fn start(layout: &Layout, programs: &Programs, repository: &Path) -> anyhow::Result<()> {
    let manifests = repository.join("tests/kubernetes/manifests");
    network::run(
        network::command(layout, &program(programs, "kubectl")?.display().to_string())
            .args(["apply", "--server-side", "--kubeconfig"])
            .arg(layout.kubeconfig())
            .arg("-f")
            .arg(&manifests),
    )?;
    let mut registry = registry(layout, programs)?;
    let mut s3 = s3(layout, programs)?;
    let mut dns = dns(layout, programs)?;
    let mut storage = storage(layout, programs)?;
    for daemon in [&mut registry, &mut s3, &mut dns, &mut storage] {
        daemon.start(layout)?;
    }
    for (daemon, port) in [(&registry, REGISTRY_PORT), (&s3, S3_PORT), (&dns, 53)] {
        until(layout, &format!("{} answers", daemon.name), READY, &[daemon], || {
            listens(layout, port)
        })?;
    }
    storage.check(layout)
}

/// Whether a socket of the namespace listens on this TCP port.
fn listens(layout: &Layout, port: u16) -> bool {
    let output = network::command(layout, "cat")
        .args(["/proc/net/tcp", "/proc/net/tcp6"])
        .output();
    let Ok(output) = output else { return false };
    let local = format!(":{port:04X}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().any(|line| {
        let mut fields = line.split_whitespace();
        // 0A is LISTEN.
        fields.nth(1).is_some_and(|address| address.ends_with(&local)) && fields.nth(1) == Some("0A")
    })
}

fn registry(layout: &Layout, programs: &Programs) -> anyhow::Result<Daemon> {
    let configuration = serde_json::json!({
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": true}},
        "storage": {"filesystem": {"rootdirectory": layout.directory("registry")?}, "delete": {"enabled": true}},
        "http": {"addr": format!("{ADDRESS}:{REGISTRY_PORT}")},
    });
    let file = layout.write("registry.yaml", serde_json::to_string_pretty(&configuration)?)?;
    let mut registry = Daemon::new(
        "registry",
        program(programs, "registry")?.to_owned(),
        vec!["serve".into(), file.display().to_string()],
    );
    // It would look for a collector of traces.
    registry
        .environment
        .push(("OTEL_TRACES_EXPORTER".into(), "none".into()));
    Ok(registry)
}

fn s3(layout: &Layout, programs: &Programs) -> anyhow::Result<Daemon> {
    let buckets = layout.directory("s3/buckets")?;
    let attributes = layout.directory("s3/attributes")?;
    let mut s3 = Daemon::new(
        "s3",
        program(programs, "versitygw")?.to_owned(),
        vec![
            format!("--port={ADDRESS}:{S3_PORT}"),
            "--quiet".into(),
            "posix".into(),
            // Where the file system has no extended attributes.
            format!("--sidecar={}", attributes.display()),
            buckets.display().to_string(),
        ],
    );
    s3.environment.push(("ROOT_ACCESS_KEY_ID".into(), S3_KEYS.0.into()));
    s3.environment.push(("ROOT_SECRET_ACCESS_KEY".into(), S3_KEYS.1.into()));
    Ok(s3)
}

fn dns(layout: &Layout, programs: &Programs) -> anyhow::Result<Daemon> {
    // Two servers, because in one of them `template` would answer before `kubernetes` does.
    let lines = [
        "cluster.local:53 in-addr.arpa:53 {".to_owned(),
        format!("    bind {ADDRESS}"),
        "    errors".to_owned(),
        "    kubernetes cluster.local in-addr.arpa {".to_owned(),
        format!("        kubeconfig {}", layout.join("pki/coredns.kubeconfig").display()),
        "    }".to_owned(),
        "}".to_owned(),
        // There is no other network, so a name outside of the cluster does not exist. The answer is immediate.
        ".:53 {".to_owned(),
        format!("    bind {ADDRESS}"),
        "    template ANY ANY . {".to_owned(),
        "        rcode NXDOMAIN".to_owned(),
        "    }".to_owned(),
        "}".to_owned(),
    ];
    let file = layout.write("Corefile", lines.join("\n") + "\n")?;
    Ok(Daemon::new(
        "coredns",
        program(programs, "coredns")?.to_owned(),
        vec!["-conf".into(), file.display().to_string()],
    ))
}

fn storage(layout: &Layout, programs: &Programs) -> anyhow::Result<Daemon> {
    let volumes = layout.directory("volumes")?;
    let configuration = serde_json::json!({
        "nodePathMap": [{"node": "DEFAULT_PATH_FOR_NON_LISTED_NODES", "paths": [volumes]}],
    });
    let file = layout.write("local-path.json", serde_json::to_string_pretty(&configuration)?)?;
    let pod = layout.write(
        "local-path-pod.yaml",
        serde_json::to_string_pretty(&serde_json::json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "helper-pod"},
            "spec": {"containers": [{"name": "helper-pod", "image": BUSYBOX_IMAGE, "imagePullPolicy": "Never"}]},
        }))?,
    )?;
    Ok(Daemon::new(
        "local-path",
        program(programs, "local-path-provisioner")?.to_owned(),
        vec![
            "start".into(),
            format!("--config={}", file.display()),
            format!("--helper-pod-file={}", pod.display()),
            format!("--helper-image={BUSYBOX_IMAGE}"),
            "--namespace=local-path-storage".into(),
            "--service-account-name=default".into(),
            format!("--kubeconfig={}", layout.join("pki/local-path.kubeconfig").display()),
        ],
    ))
}
