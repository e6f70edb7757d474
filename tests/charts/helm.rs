//! The charts, rendered by the real Helm.

use legion_tests::{local::repository, tool::helm};
use serde_json::Value;

/// The namespace of the release.
pub(crate) const NAMESPACE: &str = "legion-system";

/// Renders a chart with a file of `tests/charts/values`, or with the default values.
pub(crate) fn template(chart: &str, values: Option<&str>) -> anyhow::Result<String> {
    let directory = format!("charts/{chart}");
    let file = values.map(|name| format!("{}/tests/charts/values/{name}.yaml", repository().display()));
    let mut arguments = vec!["template", chart, &directory, "--namespace", NAMESPACE];
    if let Some(file) = &file {
        arguments.extend(["--values", file]);
    }
    helm(&arguments)
}

/// The objects of a manifest.
pub(crate) fn objects(manifest: &str) -> anyhow::Result<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(manifest)?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}
