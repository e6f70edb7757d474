//! Applies the documents of a manifest with server-side apply, in their order.

use kube::{
    Api, Client,
    api::{Patch, PatchParams},
    core::{DynamicObject, GroupVersionKind},
    discovery::{self, Scope},
};
use serde_json::Value;

use crate::{
    exit::{CliError, Code, Result},
    findings,
    manifest::Document,
};

const MANAGER: &str = "legionctl";

/// Result of applying an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// The object did not exist before.
    Created,
    /// The object existed and changed.
    Configured,
    /// The object existed and did not change.
    Unchanged,
}

impl Change {
    /// Returns the word that kubectl prints.
    #[must_use]
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Configured => "configured",
            Self::Unchanged => "unchanged",
        }
    }
}

/// An applied object.
#[derive(Debug, Clone)]
pub(crate) struct Applied {
    pub(crate) kind: String,
    pub(crate) name: String,
    /// Namespace, if the kind is namespaced.
    pub(crate) namespace: Option<String>,
    pub(crate) change: Change,
}

/// Checks all documents before any is applied. Fails with the problems of all of them.
pub(crate) fn check(documents: &[Document]) -> Result<()> {
    let findings: Vec<String> = documents
        .iter()
        .flat_map(findings::check)
        .map(|finding| findings::text(&finding))
        .collect();
    if findings.is_empty() {
        return Ok(());
    }
    Err(CliError::new(
        Code::Invalid,
        format!("nothing was applied\n{}", findings.join("\n")),
    ))
}

/// Applies the documents. Objects without a namespace go to `namespace`.
pub(crate) async fn apply(client: &Client, namespace: &str, documents: &[Document]) -> Result<Vec<Applied>> {
    let mut applied = Vec::new();
    for document in documents {
        let location = format!(
            "{}:{}: {}",
            document.file.display(),
            document.line(""),
            document.title()
        );
        applied.push(
            one(client, namespace, &document.value)
                .await
                .map_err(|error| error.context(location))?,
        );
    }
    Ok(applied)
}

async fn one(client: &Client, namespace: &str, value: &Value) -> Result<Applied> {
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (group, version) = text("/apiVersion").split_once('/').unwrap_or(("", text("/apiVersion")));
    let kind = GroupVersionKind::gvk(group, version, text("/kind"));
    let (resource, capabilities) = discovery::pinned_kind(client, &kind).await.map_err(|error| {
        CliError::new(
            Code::Invalid,
            format!("the API has no kind {} of {}: {error}", kind.kind, text("/apiVersion")),
        )
        .remedy("check apiVersion and kind")
    })?;
    let namespace = (capabilities.scope == Scope::Namespaced).then(|| match text("/metadata/namespace") {
        "" => namespace.to_owned(),
        named => named.to_owned(),
    });
    let api: Api<DynamicObject> = match &namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let name = text("/metadata/name").to_owned();
    let before = api
        .get_opt(&name)
        .await?
        .and_then(|object| object.metadata.resource_version);
    // Forced: for the user who runs a file on this machine, the file decides.
    let params = PatchParams::apply(MANAGER).force().validation_strict();
    let object = api.patch(&name, &params, &Patch::Apply(value)).await?;
    let change = match before {
        None => Change::Created,
        Some(before) if Some(&before) == object.metadata.resource_version.as_ref() => Change::Unchanged,
        Some(_) => Change::Configured,
    };
    Ok(Applied {
        kind: kind.kind,
        name,
        namespace,
        change,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::manifest;

    #[test]
    fn with_a_wrong_document_nothing_is_applied() {
        let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\napiVersion: legion-platform.org/v1alpha1\nkind: Connection\nmetadata: {name: a}\nspec: {type: s3, uri: nonsense}\n";
        let error = check(&manifest::parse(Path::new("f"), text).unwrap()).unwrap_err();
        assert_eq!(error.code, Code::Invalid);
        assert!(
            error.message.contains("nothing was applied") && error.message.contains("spec.uri"),
            "{error}"
        );
    }
}
