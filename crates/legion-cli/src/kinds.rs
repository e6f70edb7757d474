//! The kinds of Legion, found by name, plural or short name.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Resource as _, core::ApiResource};
use legion_api::ModelTraining;

use crate::exit::{CliError, Code, Result};

/// Returns every kind, in the order of `legionctl get`: trainings first, because users look for them most.
#[must_use]
pub(crate) fn all() -> Vec<ApiResource> {
    let mut all: Vec<ApiResource> = legion_api::crd::all().into_iter().filter_map(resource).collect();
    all.sort_by_key(|resource| resource.kind != ModelTraining::kind(&()));
    all
}

/// Returns the resource of a CRD in its stored version.
fn resource(crd: CustomResourceDefinition) -> Option<ApiResource> {
    let version = crd.spec.versions.into_iter().find(|version| version.storage)?.name;
    Some(ApiResource {
        api_version: format!("{}/{version}", crd.spec.group),
        group: crd.spec.group,
        version,
        kind: crd.spec.names.kind,
        plural: crd.spec.names.plural,
    })
}

/// Finds a kind by its name, plural or short name, in any case.
pub(crate) fn find(name: &str) -> Result<ApiResource> {
    let short = |kind: &str| {
        legion_api::crd::of_kind(kind)
            .and_then(|crd| crd.spec.names.short_names)
            .unwrap_or_default()
    };
    let lower = name.to_lowercase();
    all()
        .into_iter()
        .find(|resource| {
            lower == resource.kind.to_lowercase() || lower == resource.plural || short(&resource.kind).contains(&lower)
        })
        .ok_or_else(|| {
            let known: Vec<String> = all()
                .iter()
                .map(|resource| format!("{} ({})", resource.plural, short(&resource.kind).join(", ")))
                .collect();
            CliError::new(Code::Invalid, format!("unknown kind {name:?}"))
                .remedy(format!("use one of {}", known.join("; ")))
        })
}

/// Creates the error for an object that does not exist.
#[must_use]
pub(crate) fn missing(kind: &str, namespace: &str, name: &str) -> CliError {
    CliError::new(
        Code::NotFound,
        format!("{} {name:?} not found in namespace {namespace:?}", kind.to_lowercase()),
    )
    .remedy("`legionctl get -A` lists all objects")
}

/// Creates the error for a training that does not exist.
#[must_use]
pub(crate) fn no_training(namespace: &str, name: &str) -> CliError {
    missing(&ModelTraining::kind(&()), namespace, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_crd_is_a_kind_and_trainings_are_first() {
        let kinds = all();
        let names: Vec<&str> = kinds.iter().map(|resource| resource.kind.as_str()).collect();
        assert_eq!(names, ["ModelTraining", "ToolchainIntegration", "Connection"]);
        assert_eq!(kinds.len(), legion_api::crd::all().len());
        assert_eq!(kinds[0], ApiResource::erase::<ModelTraining>(&()));
    }

    #[test]
    fn kinds_have_kind_plural_and_short_names() {
        for name in ["mt", "modeltraining", "ModelTraining", "modeltrainings"] {
            assert_eq!(find(name).unwrap().kind, "ModelTraining");
        }
        assert_eq!(find("conn").unwrap().plural, "connections");
        let error = find("pod").unwrap_err();
        assert!(error.remedy.unwrap().contains("toolchainintegrations (ti)"));
    }
}
