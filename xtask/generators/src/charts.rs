//! The generated parts of `charts/`. CRDs, the operator's permissions, toolchains and versions come from the code.
//! `values.yaml` and its reference come from `values.schema.json`.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, ensure};
use legion_operator::access::{Access, Place, TABLE};
use serde_json::Value;

use super::{File, NOTE, cell, values};

/// The charts with their descriptions.
const CHARTS: [(&str, &str); 2] = [
    (
        "legion-crds",
        "The resources of Legion: install it before the chart legion.",
    ),
    (
        "legion",
        "Trains machine learning models from manifests: the operator and its toolchains.",
    ),
];

pub(super) fn files(root: &Path) -> anyhow::Result<Vec<File>> {
    let mut files = crds()?;
    files.push(File::new("charts/legion/templates/_access.tpl", rules()));
    files.push(File::new("docs/reference/permissions.md", permissions()));
    files.extend(toolchains(root)?);
    for (name, about) in CHARTS {
        files.push(chart(name, about));
    }
    // The drift test generates into an empty directory, without files written by hand.
    if root.join("charts/legion/values.schema.json").is_file() {
        files.extend(values::files(root, &CHARTS.map(|(name, _)| name))?);
    }
    Ok(files)
}

fn chart(name: &str, about: &str) -> File {
    let version = env!("CARGO_PKG_VERSION");
    let repository = env!("CARGO_PKG_REPOSITORY");
    File::new(
        format!("charts/{name}/Chart.yaml"),
        format!(
            "# {NOTE}\napiVersion: v2\nname: {name}\ndescription: \"{about}\"\ntype: application\nversion: {version}\nappVersion: \
             \"{version}\"\n# For selectable fields, and for CEL rules with a field path.\nkubeVersion: \">=1.31.0-0\"\nhome: \
             {repository}\nsources:\n  - {repository}\n"
        ),
    )
}

/// `crds/` as templates. Labels, annotations and the resource policy are values.
fn crds() -> anyhow::Result<Vec<File>> {
    legion_api::crd::all()
        .iter()
        .map(|crd| {
            let name = crd.metadata.name.as_deref().context("a CRD without a name")?;
            let mut object = serde_json::to_value(crd)?;
            let spec = object
                .get_mut("spec")
                .map(Value::take)
                .with_context(|| format!("CRD {name} has no spec"))?;
            let yaml = serde_saphyr::to_string(&serde_json::json!({ "spec": spec }))?;
            // What a description says in braces is no template.
            let yaml = yaml.replace("{{", "{{ \"{{\" }}");
            let text = format!(
                "{{{{/* {NOTE} */}}}}\napiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata:\n  name: {name}\n  \
                 {{{{- include \"legion-crds.metadata\" . | nindent 2 }}}}\n{yaml}"
            );
            let path = format!("charts/legion-crds/templates/{}.yaml", crd.spec.names.plural);
            Ok(File::new(path, text))
        })
        .collect()
}

/// The toolchains, one source for the image and for the chart.
fn toolchains(root: &Path) -> anyhow::Result<Vec<File>> {
    let mut files = Vec::new();
    let Ok(entries) = fs::read_dir(root.join("toolchains")) else {
        return Ok(files);
    };
    for entry in entries {
        let path = entry?.path().join("toolchain.yaml");
        if !path.is_file() {
            continue;
        }
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let object: Value = serde_saphyr::from_str(&text).with_context(|| path.display().to_string())?;
        let name = object["metadata"]["name"]
            .as_str()
            .context("metadata.name is missing")?;
        let version = env!("CARGO_PKG_VERSION");
        ensure!(
            object["spec"]["image"] == format!("legion-platform/toolchain-{name}:{version}"),
            "{}: spec.image must be legion-platform/toolchain-{name}:{version}, because the chart puts registry and tag into it",
            path.display()
        );
        files.push(File::new(
            format!("charts/legion/files/toolchains/{name}.yaml"),
            format!("# {NOTE} Copied from toolchains/{name}/toolchain.yaml.\n{text}"),
        ));
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// Rules of RBAC, as named templates for the roles.
fn rules() -> String {
    let mut text = format!("{{{{/* {NOTE} From legion_operator::access. */}}}}\n");
    let served = |access: &&Access| access.place != Place::Platform;
    define(&mut text, "served", TABLE.iter().filter(served));
    // If the platform's namespace is served, the other rules cover its toolchains.
    let shared = |access: &&Access| access.place == Place::Anywhere;
    define(&mut text, "shared", TABLE.iter().filter(shared));
    let platform = |access: &&Access| access.place == Place::Platform;
    define(&mut text, "platform", TABLE.iter().filter(platform));
    text
}

fn define<'a>(text: &mut String, name: &str, rows: impl Iterator<Item = &'a Access>) {
    let _ = writeln!(text, "{{{{- define \"legion.rules.{name}\" -}}}}");
    for access in rows {
        let verbs: Vec<&str> = access.verbs.iter().map(|verb| verb.as_str()).collect();
        let _ = writeln!(text, "# {}", access.why);
        let _ = writeln!(text, "- apiGroups: [\"{}\"]", access.group);
        let _ = writeln!(text, "  resources: [{}]", access.resource);
        if access.only_lease {
            text.push_str("  resourceNames: [{{ include \"legion.name\" . }}]\n");
        }
        let _ = writeln!(text, "  verbs: [{}]", verbs.join(", "));
    }
    text.push_str("{{- end }}\n");
}

fn permissions() -> String {
    let mut text = format!(
        "<!-- {NOTE} -->\n# Permissions of the operator\n\nIts roles have exactly these rules. It cannot read a Secret, write a spec, \
         change a pod, or run a command in one.\n\n| API group | resource | verbs | where | purpose |\n|---|---|---|---|---|\n"
    );
    for access in TABLE.iter() {
        let verbs: Vec<&str> = access.verbs.iter().map(|verb| verb.as_str()).collect();
        let place = match access.place {
            Place::Served => "in every served namespace",
            Place::Anywhere => "in every served namespace, and in the platform's",
            Place::Platform if access.only_lease => "the lease `legion-operator` in the platform's namespace",
            Place::Platform => "in the platform's namespace",
        };
        let group = if access.group.is_empty() {
            "(core)"
        } else {
            access.group
        };
        let _ = writeln!(
            text,
            "| {group} | `{}` | {} | {place} | {} |",
            access.resource,
            verbs.join(", "),
            cell(&access.why)
        );
    }
    text
}
