//! Names of resources, as `'static` text for labels of metrics and for spans.

use std::borrow::Cow;

use kube::Resource;

/// The kind as in manifests, such as `ModelTraining`.
pub(crate) fn kind_of<K: Resource<DynamicType = ()>>() -> &'static str {
    lasting(K::kind(&()))
}

/// The plural as in paths and roles, such as `modeltrainings`.
pub(crate) fn plural_of<K: Resource<DynamicType = ()>>() -> &'static str {
    lasting(K::plural(&()))
}

/// The derived implementations of `Resource` borrow a literal. So nothing is leaked in practice.
fn lasting(name: Cow<'static, str>) -> &'static str {
    match name {
        Cow::Borrowed(name) => name,
        Cow::Owned(name) => name.leak(),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::core::PartialObjectMeta;
    use legion_api::ModelTraining;

    use super::*;

    #[test]
    fn names_are_literals() {
        assert!(matches!(ModelTraining::kind(&()), Cow::Borrowed("ModelTraining")));
        assert!(matches!(ModelTraining::plural(&()), Cow::Borrowed("modeltrainings")));
        assert!(matches!(
            PartialObjectMeta::<ConfigMap>::kind(&()),
            Cow::Borrowed("ConfigMap")
        ));
    }
}
