//! `docs/guides/gitops/argocd/argocd-cm.yaml`: the health check of all kinds, as Argo CD takes it.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::Context as _;

use super::{File, NOTE};

const DIRECTORY: &str = "docs/guides/gitops/argocd";

/// Argo CD has none for its own Applications, without which the waves of an Application of Applications do not wait.
const OF_APPLICATIONS: &str = "local hs = { status = \"Progressing\", message = \"\" }
if obj.status ~= nil and obj.status.health ~= nil then
  hs.status = obj.status.health.status
  if obj.status.health.message ~= nil then
    hs.message = obj.status.health.message
  end
end
return hs
";

pub(super) fn files(root: &Path) -> anyhow::Result<Vec<File>> {
    if !root.join(DIRECTORY).is_dir() {
        return Ok(Vec::new());
    }
    let mut text = format!(
        "# {NOTE} From health.lua beside it.\n# Apply it with `kubectl apply --server-side`, which leaves the other keys of the ConfigMap \
         alone.\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: argocd-cm\n  namespace: argocd\n  labels:\n    \
         app.kubernetes.io/name: argocd-cm\n    app.kubernetes.io/part-of: argocd\ndata:\n"
    );
    let file = format!("{DIRECTORY}/health.lua");
    let check = fs::read_to_string(root.join(&file)).context(file)?;
    for crd in legion_api::crd::all() {
        entry(
            &mut text,
            &format!("{}_{}", crd.spec.group, crd.spec.names.kind),
            &check,
        );
    }
    entry(&mut text, "argoproj.io_Application", OF_APPLICATIONS);
    Ok(vec![File::new(format!("{DIRECTORY}/argocd-cm.yaml"), text)])
}

fn entry(text: &mut String, kind: &str, check: &str) {
    let _ = writeln!(text, "  resource.customizations.health.{kind}: |");
    for line in check.lines() {
        let _ = writeln!(text, "    {line}");
    }
}
