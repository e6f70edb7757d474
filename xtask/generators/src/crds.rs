//! `crds/*.yaml`, as `kubectl apply` takes them.

use anyhow::Context as _;

use super::{File, NOTE};

pub(super) fn files() -> anyhow::Result<Vec<File>> {
    legion_api::crd::all()
        .iter()
        .map(|crd| {
            let name = crd.metadata.name.as_deref().unwrap_or_default();
            let yaml = serde_saphyr::to_string(crd).with_context(|| format!("CRD {name}"))?;
            let path = format!("crds/{}.yaml", crd.spec.names.plural);
            Ok(File::new(
                path,
                format!("# {NOTE}\n# {name}: install it with `kubectl apply --server-side -f crds/`.\n{yaml}"),
            ))
        })
        .collect()
}
