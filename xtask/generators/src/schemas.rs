//! `docs/reference/schemas/*.json`: JSON Schemas of the documents that processes exchange.

use anyhow::Context as _;

use super::File;

pub(super) fn files() -> anyhow::Result<Vec<File>> {
    legion_protocol::schemas()
        .into_iter()
        .map(|(name, schema)| {
            let text = serde_json::to_string_pretty(&schema).with_context(|| format!("schema {name}"))?;
            Ok(File::new(
                format!("docs/reference/schemas/{name}.json"),
                format!("{text}\n"),
            ))
        })
        .collect()
}
