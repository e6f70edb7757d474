//! The real Helm.

use std::{path::PathBuf, process::Command, sync::OnceLock};

use anyhow::ensure;
use legion_tests::{
    local::repository,
    tool::{self, Said},
};
use serde_json::Value;

/// Where everything is installed.
pub const NAMESPACE: &str = "legion-system";

/// Runs Helm in the repository's root, whatever comes of it.
pub fn helm_says(arguments: &[&str]) -> anyhow::Result<Said> {
    static HELM: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = HELM.get_or_init(|| tool::path("helm").map_err(|error| format!("{error:#}")));
    let helm = found.as_ref().map_err(|error| anyhow::anyhow!("{error}"))?;
    tool::run(Command::new(helm).args(arguments), "")
}

/// Runs Helm, which must do what it is told.
pub fn helm(arguments: &[&str]) -> anyhow::Result<String> {
    let said = helm_says(arguments)?;
    ensure!(said.ok, "helm {}: {}", arguments.join(" "), said.all);
    Ok(said.out)
}

/// What a chart renders with a file of `tests/charts/values`, or with none.
pub fn template(chart: &str, values: Option<&str>) -> anyhow::Result<String> {
    let directory = format!("charts/{chart}");
    let file = values.map(|name| format!("{}/tests/charts/values/{name}.yaml", repository().display()));
    let mut arguments = vec!["template", chart, &directory, "--namespace", NAMESPACE];
    if let Some(file) = &file {
        arguments.extend(["--values", file]);
    }
    helm(&arguments)
}

/// The objects of a manifest.
pub fn objects(manifest: &str) -> anyhow::Result<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(manifest)?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}
