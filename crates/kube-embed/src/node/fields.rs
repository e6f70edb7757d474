//! `fieldRef` and `resourceFieldRef`: the pod's own fields, for environments and downwardAPI volumes.

use k8s_openapi::api::core::v1::{Pod, ResourceFieldSelector};
use kube::ResourceExt;

use super::quantity;

/// Returns the value of a `fieldPath`.
pub(crate) fn field(pod: &Pod, path: &str) -> Result<String, String> {
    if let Some((map, key)) = path.strip_suffix("']").and_then(|p| p.split_once("['")) {
        let map = match map {
            "metadata.labels" => pod.labels(),
            "metadata.annotations" => pod.annotations(),
            _ => return Err(unsupported(path)),
        };
        return Ok(map.get(key).cloned().unwrap_or_default());
    }
    let spec = pod.spec.as_ref();
    Ok(match path {
        "metadata.name" => pod.name_any(),
        "metadata.namespace" => pod.namespace().unwrap_or_default(),
        "metadata.uid" => pod.uid().unwrap_or_default(),
        "metadata.labels" => lines(pod.labels()),
        "metadata.annotations" => lines(pod.annotations()),
        "spec.nodeName" => spec.and_then(|s| s.node_name.clone()).unwrap_or_default(),
        "spec.serviceAccountName" => spec.and_then(|s| s.service_account_name.clone()).unwrap_or_default(),
        "status.hostIP" | "status.podIP" | "status.hostIPs" | "status.podIPs" => "127.0.0.1".into(),
        _ => return Err(unsupported(path)),
    })
}

fn lines(map: &std::collections::BTreeMap<String, String>) -> String {
    map.iter()
        .map(|(k, v)| format!("{k}={v:?}"))
        .collect::<Vec<_>>()
        .join("\n")
}

fn unsupported(path: &str) -> String {
    format!(
        "fieldPath {path:?} is not supported; use metadata.name, metadata.namespace, metadata.uid, metadata.labels, \
         metadata.annotations, spec.nodeName, spec.serviceAccountName, status.hostIP or status.podIP"
    )
}

/// Returns the value of a `resourceFieldRef` for the named container. The default is `container`.
pub(crate) fn resource(pod: &Pod, container: Option<&str>, selector: &ResourceFieldSelector) -> Result<String, String> {
    let name = selector.container_name.as_deref().or(container).unwrap_or_default();
    let spec = pod.spec.as_ref().ok_or("the pod has no spec")?;
    let container = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten())
        .find(|c| c.name == name)
        .ok_or_else(|| format!("container {name:?} not found"))?;
    let (list, resource) = selector
        .resource
        .split_once('.')
        .ok_or_else(|| format!("resource {:?} must be limits.NAME or requests.NAME", selector.resource))?;
    let resources = container.resources.as_ref();
    let value = match list {
        "limits" => resources.and_then(|r| r.limits.as_ref()),
        "requests" => resources.and_then(|r| r.requests.as_ref()),
        _ => {
            return Err(format!(
                "resource {:?} must be limits.NAME or requests.NAME",
                selector.resource
            ));
        }
    };
    let value = match value.and_then(|map| map.get(resource)) {
        Some(quantity) => {
            quantity::milli(quantity).ok_or_else(|| format!("quantity {:?} cannot be read", quantity.0))?
        }
        None if list == "requests" => 0,
        // As on a cluster, the node's capacity is the default limit.
        None => match resource {
            "cpu" => i128::from(super::machine_cpu_milli()),
            "memory" => i128::from(super::machine_memory()) * 1000,
            _ => 0,
        },
    };
    let divisor = match &selector.divisor {
        Some(d) => quantity::milli(d).ok_or_else(|| format!("divisor {:?} cannot be read", d.0))?,
        None => 0,
    };
    let divisor = if divisor <= 0 { 1000 } else { divisor };
    Ok(((value + divisor - 1) / divisor).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"a": "1"}, "annotations": {"x/y": "z"}},
            "spec": {"nodeName": "node", "containers": [{"name": "c", "resources": {
                "limits": {"memory": "1Gi", "cpu": "1500m"}, "requests": {"cpu": "250m"}}}]}
        }))
        .unwrap()
    }

    #[test]
    fn fields_of_the_pod() {
        for (path, expected) in [
            ("metadata.name", "p"),
            ("metadata.labels['a']", "1"),
            ("metadata.labels['b']", ""),
            ("metadata.annotations['x/y']", "z"),
            ("spec.nodeName", "node"),
        ] {
            assert_eq!(field(&pod(), path).unwrap(), expected, "{path}");
        }
        assert!(
            field(&pod(), "spec.containers")
                .unwrap_err()
                .contains("\"spec.containers\"")
        );
    }

    #[test]
    fn resources_are_divided_and_rounded_up() {
        let ask = |resource: &str, divisor: Option<&str>| {
            let selector: ResourceFieldSelector =
                serde_json::from_value(serde_json::json!({"resource": resource, "divisor": divisor})).unwrap();
            resource_of(&selector)
        };
        assert_eq!(ask("limits.memory", Some("1Mi")), "1024");
        assert_eq!(ask("limits.cpu", None), "2");
        assert_eq!(ask("limits.cpu", Some("1m")), "1500");
        assert_eq!(ask("requests.cpu", Some("1m")), "250");
        assert_eq!(ask("requests.memory", None), "0");
    }

    fn resource_of(selector: &ResourceFieldSelector) -> String {
        resource(&pod(), Some("c"), selector).unwrap()
    }
}
