//! Validates the manifests of the documentation strictly against the tools' own CRDs.

use std::{fs, path::PathBuf};

use anyhow::ensure;
use legion_tests::{
    local::repository,
    tool::{self, kubectl, run_kubectl},
};
use serde_json::Value;

/// Kinds whose CRDs are in no Go module.
const UNCHECKED: [&str; 1] = ["HelmRelease"];

fn shown() -> anyhow::Result<Vec<(PathBuf, Vec<Value>)>> {
    let mut found = Vec::new();
    for tool in ["flux", "argocd"] {
        for entry in fs::read_dir(repository().join("docs/guides/gitops").join(tool))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "yaml") {
                let documents = serde_saphyr::from_multiple(&fs::read_to_string(&path)?)?;
                found.push((path, documents));
            }
        }
    }
    Ok(found)
}

/// Checks what the pages say about charts, names and versions.
#[test]
fn the_pages_name_existing_charts_and_versions() -> anyhow::Result<()> {
    let page = fs::read_to_string(repository().join("docs/guides/gitops.md"))?;
    let version = format!("v{}", env!("CARGO_PKG_VERSION"));
    let mut charts = 0;
    for (path, documents) in shown()? {
        let relative = path
            .strip_prefix(repository().join("docs/guides"))?
            .display()
            .to_string();
        ensure!(
            page.contains(&relative),
            "docs/guides/gitops.md does not speak of {relative}"
        );
        for document in documents {
            for pointer in ["/spec/chart/spec/chart", "/spec/source/path"] {
                let chart = document.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
                if chart.starts_with("charts/") {
                    charts += 1;
                    ensure!(
                        repository().join(chart).join("Chart.yaml").is_file(),
                        "{relative}: {chart}"
                    );
                }
            }
            for pointer in ["/spec/ref/tag", "/spec/source/targetRevision"] {
                let revision = document.pointer(pointer).and_then(Value::as_str).unwrap_or("main");
                ensure!(revision == version || revision == "main", "{relative}: {revision}");
            }
        }
    }
    ensure!(charts == 4, "{charts} charts");
    Ok(())
}

#[test]
#[ignore = "needs a cluster"]
fn flux_and_argo_cd_accept_them() -> anyhow::Result<()> {
    for (module, file) in [
        (
            "github.com/fluxcd/kustomize-controller",
            "config/crd/bases/kustomize.toolkit.fluxcd.io_kustomizations.yaml",
        ),
        (
            "github.com/fluxcd/source-controller",
            "config/crd/bases/source.toolkit.fluxcd.io_gitrepositories.yaml",
        ),
        ("github.com/argoproj/argo-cd/v3", "manifests/crds/application-crd.yaml"),
    ] {
        let crd = tool::module("crds", module)?.join(file);
        kubectl(&["apply", "--server-side", "-f", "-"], &fs::read_to_string(crd)?)?;
    }
    tool::until_crds_are_served()?;
    for namespace in ["flux-system", "argocd"] {
        let manifest = format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {namespace}}}}}");
        kubectl(&["apply", "-f", "-"], &manifest)?;
    }
    let mut checked = 0;
    for (path, documents) in shown()? {
        for document in documents {
            if UNCHECKED.contains(&document["kind"].as_str().unwrap_or_default()) {
                continue;
            }
            let arguments = [
                "apply",
                "--server-side",
                "--dry-run=server",
                "--validate=strict",
                "-f",
                "-",
            ];
            let said = run_kubectl(&arguments, &document.to_string())?;
            ensure!(
                said.ok && !said.all.contains("Warning"),
                "{}: {}",
                path.display(),
                said.all
            );
            checked += 1;
        }
    }
    ensure!(checked >= 8, "{checked} objects");
    Ok(())
}
