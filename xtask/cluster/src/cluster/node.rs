//! The node: containerd with runc and CNI, kubelet, kube-proxy.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context as _;

use super::{
    control_plane::READY,
    daemon::{Daemon, quietly, until},
    image::{self, Entry},
    layout::{ADDRESS, Layout, NODE, PODS, REGISTRY_PORT},
    network,
    tools::{Programs, program},
};

/// The container that holds a pod's namespaces.
const PAUSE_IMAGE: &str = "legion.internal/pause:1";
/// What the storage provisioner makes and deletes directories with.
pub(super) const BUSYBOX_IMAGE: &str = "legion.internal/busybox:1";
/// Where Debian's busybox-static puts its program.
const BUSYBOX: &str = "/bin/busybox";

/// Starts it and waits until it is ready.
pub(super) fn start(layout: &Layout, programs: &Programs) -> anyhow::Result<()> {
    let containerd = start_containerd(layout, programs)?;
    let path = |file: &str| layout.join(file).display().to_string();
    for directory in cgroups(layout) {
        fs::create_dir_all(&directory).with_context(|| format!("cgroup {} cannot be made", directory.display()))?;
    }
    layout.write("resolv.conf", format!("nameserver {ADDRESS}\n"))?;
    layout.write("kubelet.yaml", kubelet_configuration(layout)?)?;
    let mut kubelet = Daemon::new(
        "kubelet",
        program(programs, "kubelet")?.to_owned(),
        vec![
            format!("--config={}", path("kubelet.yaml")),
            format!("--kubeconfig={}", path("pki/kubelet.kubeconfig")),
            format!("--root-dir={}", layout.directory("kubelet")?.display()),
            format!("--node-ip={ADDRESS}"),
            format!("--hostname-override={NODE}"),
        ],
    );
    kubelet.start(layout)?;
    let mut proxy = Daemon::new(
        "kube-proxy",
        program(programs, "kube-proxy")?.to_owned(),
        vec![
            format!("--kubeconfig={}", path("pki/proxy.kubeconfig")),
            "--proxy-mode=nftables".into(),
            format!("--cluster-cidr={PODS}"),
            format!("--hostname-override={NODE}"),
            // The machine's table of connections is not the cluster's to size.
            "--conntrack-max-per-core=0".into(),
        ],
    );
    proxy.start(layout)?;
    let kubectl = program(programs, "kubectl")?.display().to_string();
    until(
        layout,
        "the node is ready",
        READY,
        &[&containerd, &kubelet, &proxy],
        || {
            let mut command = network::command(layout, &kubectl);
            command.args([
                "wait",
                "--for=condition=Ready",
                "node",
                NODE,
                "--timeout=5s",
                "--kubeconfig",
            ]);
            quietly(command.arg(layout.kubeconfig()))
        },
    )?;
    Ok(())
}

fn start_containerd(layout: &Layout, programs: &Programs) -> anyhow::Result<Daemon> {
    layout.write("containerd.toml", containerd_configuration(layout, programs)?)?;
    layout.write(
        "cni/net.d/10-bridge.conflist",
        serde_json::to_vec_pretty(&serde_json::json!({
            "cniVersion": "1.0.0",
            "name": "legion",
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": network::BRIDGE,
                    "isDefaultGateway": true,
                    "hairpinMode": true,
                    "ipam": {
                        "type": "host-local",
                        "dataDir": layout.directory("cni/addresses")?,
                        "ranges": [[{"subnet": PODS, "rangeStart": "10.244.0.10", "gateway": ADDRESS}]],
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": true}},
            ],
        }))?,
    )?;
    let registry = format!("{ADDRESS}:{REGISTRY_PORT}");
    layout.write(
        &format!("registries/{registry}/hosts.toml"),
        format!(
            "server = \"http://{registry}\"\n[host.\"http://{registry}\"]\ncapabilities = [\"pull\", \"resolve\"]\n"
        ),
    )?;
    let mut containerd = Daemon::new(
        "containerd",
        program(programs, "containerd")?.to_owned(),
        vec!["--config".into(), layout.join("containerd.toml").display().to_string()],
    );
    // It finds its shim by name.
    let search = std::env::var("PATH").unwrap_or_default();
    containerd
        .environment
        .push(("PATH".into(), format!("{}:{search}", layout.programs().display())));
    containerd.start(layout)?;
    until(layout, "containerd answers", READY, &[&containerd], || {
        quietly(&mut ctr(layout, &["version"]))
    })?;
    let pause = program(programs, "pause")?;
    import(layout, PAUSE_IMAGE, &[Entry::Program("pause", pause)], &["/pause"])?;
    let busybox = Entry::Program("bin/busybox", Path::new(BUSYBOX));
    let mut entries = vec![busybox, Entry::Scratch("tmp")];
    entries.extend(["bin/sh", "bin/mkdir", "bin/rm", "bin/chmod"].map(|path| Entry::Link(path, "busybox")));
    import(layout, BUSYBOX_IMAGE, &entries, &["/bin/sh"])?;
    Ok(containerd)
}

fn ctr(layout: &Layout, arguments: &[&str]) -> Command {
    let mut command = Command::new(layout.programs().join("ctr"));
    command.arg("--address").arg(layout.join("containerd.sock"));
    command.args(["--namespace", "k8s.io"]).args(arguments);
    command
}

fn import(layout: &Layout, reference: &str, entries: &[Entry<'_>], entrypoint: &[&str]) -> anyhow::Result<()> {
    let archive = image::archive(reference, entries, entrypoint)?;
    let file = layout.write("image.tar", archive)?;
    network::run(ctr(layout, &["images", "import"]).arg(&file))?;
    // No registry has it: a node whose disk is full must not delete it.
    network::run(&mut ctr(
        layout,
        &["images", "label", reference, "io.cri-containerd.pinned=pinned"],
    ))?;
    fs::remove_file(file)?;
    Ok(())
}

fn containerd_configuration(layout: &Layout, programs: &Programs) -> anyhow::Result<String> {
    let plugins = layout.programs();
    let text = |path: PathBuf| toml_string(&path.display().to_string());
    let cri = "plugins.'io.containerd.cri.v1";
    Ok([
        "version = 3".to_owned(),
        format!("root = {}", text(layout.directory("containerd/root")?)),
        format!("state = {}", text(layout.directory("containerd/state")?)),
        "[grpc]".into(),
        format!("address = {}", text(layout.join("containerd.sock"))),
        format!("[{cri}.images'.pinned_images]"),
        format!("sandbox = {}", toml_string(PAUSE_IMAGE)),
        format!("[{cri}.images'.registry]"),
        format!("config_path = {}", text(layout.join("registries"))),
        format!("[{cri}.runtime']"),
        "disable_apparmor = true".into(),
        // A machine without CAP_SYS_RESOURCE could start no sandbox otherwise.
        "restrict_oom_score_adj = true".into(),
        "netns_mounts_under_state_dir = true".into(),
        format!("[{cri}.runtime'.cni]"),
        format!("bin_dirs = [{}]", text(plugins)),
        format!("conf_dir = {}", text(layout.join("cni/net.d"))),
        format!("[{cri}.runtime'.containerd.runtimes.runc]"),
        "runtime_type = \"io.containerd.runc.v2\"".into(),
        format!("[{cri}.runtime'.containerd.runtimes.runc.options]"),
        format!("BinaryName = {}", text(program(programs, "runc")?.to_owned())),
        "SystemdCgroup = false".into(),
        String::new(),
    ]
    .join("\n"))
}

fn toml_string(text: &str) -> String {
    // A JSON string is a TOML basic string.
    serde_json::Value::from(text).to_string()
}

fn kubelet_configuration(layout: &Layout) -> anyhow::Result<String> {
    let configuration = serde_json::json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": ADDRESS,
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": layout.join("pki/ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": layout.join("pki/kubelet-server.crt"),
        "tlsPrivateKeyFile": layout.join("pki/kubelet-server.key"),
        "clusterDNS": [ADDRESS],
        "clusterDomain": "cluster.local",
        "resolvConf": layout.join("resolv.conf"),
        "containerRuntimeEndpoint": format!("unix://{}", layout.join("containerd.sock").display()),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", layout.name()),
        "enforceNodeAllocatable": [],
        "failCgroupV1": false,
        "failSwapOn": false,
        "podLogsDir": layout.directory("pod-logs")?,
        "volumePluginDir": layout.directory("volume-plugins")?,
        // The machine's disk is not only the cluster's: what others leave free of it is no reason to evict pods.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%", "nodefs.inodesFree": "1%"},
        // A node that was under pressure takes pods again soon, not after five minutes.
        "evictionPressureTransitionPeriod": "10s",
        // Renewed every four seconds: see the controller manager's grace period.
        "nodeLeaseDurationSeconds": 16,
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
    });
    Ok(serde_json::to_string_pretty(&configuration)?)
}

/// The cgroups that the node's pods live below: one in every hierarchy.
pub(super) fn cgroups(layout: &Layout) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let name = layout.name();
    if root.join("cgroup.controllers").exists() {
        return vec![root.join(name)];
    }
    let hierarchies = fs::read_dir(root).into_iter().flatten().filter_map(Result::ok);
    hierarchies
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path().join(&name))
        .collect()
}

/// How long deletion of what containers leave may take.
pub(super) const TEARDOWN: Duration = Duration::from_secs(20);
