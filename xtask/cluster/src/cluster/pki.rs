//! Certificates and kubeconfigs: one authority, one client certificate per component, as kubeadm would make them.

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

use super::layout::{ADDRESS, API_PORT, API_SERVICE, Layout, NODE};

/// Who gets a kubeconfig: file name, user (common name) and groups (organizations).
const USERS: [(&str, &str, &str); 7] = [
    ("kubeconfig", "admin", "system:masters"),
    (
        "pki/controller-manager.kubeconfig",
        "system:kube-controller-manager",
        "",
    ),
    ("pki/scheduler.kubeconfig", "system:kube-scheduler", ""),
    ("pki/proxy.kubeconfig", "system:kube-proxy", ""),
    ("pki/kubelet.kubeconfig", "system:node:node-1", "system:nodes"),
    ("pki/coredns.kubeconfig", "legion:coredns", ""),
    ("pki/local-path.kubeconfig", "legion:local-path", ""),
];

/// Makes everything, or nothing when it is there already: a cluster that starts again keeps its identity.
pub(super) fn provide(layout: &Layout) -> anyhow::Result<()> {
    if layout.join("pki/complete").exists() {
        return Ok(());
    }
    let authority = authority()?;
    layout.write("pki/ca.crt", authority.pem())?;
    layout.write("pki/ca.key", authority.key().serialize_pem())?;

    // Any fixed name would do; these are the ones that clients inside and outside of the cluster use.
    let names = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
        ADDRESS,
        API_SERVICE,
        "127.0.0.1",
    ];
    let server = ExtendedKeyUsagePurpose::ServerAuth;
    let client = ExtendedKeyUsagePurpose::ClientAuth;
    write_pair(
        layout,
        "pki/apiserver",
        &authority,
        "kube-apiserver",
        "",
        &names,
        server.clone(),
    )?;
    write_pair(
        layout,
        "pki/kubelet-server",
        &authority,
        NODE,
        "",
        &[NODE, ADDRESS],
        server,
    )?;
    // As whom the API server calls the kubelet for logs and exec.
    write_pair(
        layout,
        "pki/kubelet-client",
        &authority,
        "kube-apiserver",
        "system:masters",
        &[],
        client.clone(),
    )?;

    let accounts = KeyPair::generate()?;
    layout.write("pki/service-accounts.key", accounts.serialize_pem())?;
    layout.write("pki/service-accounts.pub", accounts.public_key_pem())?;

    for (file, user, group) in USERS {
        let (certificate, key) = issue(&authority, user, group, &[], client.clone())?;
        let kubeconfig = kubeconfig(user, &authority.pem(), &certificate, &key)?;
        layout.write(file, kubeconfig)?;
    }
    layout.write("pki/complete", "")?;
    Ok(())
}

fn authority() -> anyhow::Result<CertifiedIssuer<'static, KeyPair>> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "kubernetes");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    CertifiedIssuer::self_signed(params, KeyPair::generate()?).context("the cluster's certificate authority")
}

fn issue(
    authority: &CertifiedIssuer<'static, KeyPair>,
    user: &str,
    group: &str,
    names: &[&str],
    usage: ExtendedKeyUsagePurpose,
) -> anyhow::Result<(String, String)> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())?;
    params.distinguished_name.push(DnType::CommonName, user);
    if !group.is_empty() {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    let certificate = params.signed_by(&key, authority)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn write_pair(
    layout: &Layout,
    path: &str,
    authority: &CertifiedIssuer<'static, KeyPair>,
    user: &str,
    group: &str,
    names: &[&str],
    usage: ExtendedKeyUsagePurpose,
) -> anyhow::Result<()> {
    let (certificate, key) = issue(authority, user, group, names, usage)?;
    layout.write(&format!("{path}.crt"), certificate)?;
    layout.write(&format!("{path}.key"), key)?;
    Ok(())
}

fn kubeconfig(user: &str, authority: &str, certificate: &str, key: &str) -> anyhow::Result<String> {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let config = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "legion", "cluster": {
            "server": format!("https://{ADDRESS}:{API_PORT}"),
            "certificate-authority-data": STANDARD.encode(authority),
        }}],
        "users": [{"name": user, "user": {
            "client-certificate-data": STANDARD.encode(certificate),
            "client-key-data": STANDARD.encode(key),
        }}],
        "contexts": [{"name": "legion", "context": {"cluster": "legion", "user": user}}],
        "current-context": "legion",
    });
    // JSON is YAML.
    Ok(serde_json::to_string_pretty(&config)?)
}
