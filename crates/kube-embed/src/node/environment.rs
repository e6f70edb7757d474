//! A container's environment: from its image, `envFrom` and `env`, in that order.

use std::collections::BTreeMap;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVar, Pod, Secret};
use kube::api::Api;
use kube::{Client, ResourceExt};

use super::fields;
use super::images::ImageEnvironment;

/// Returns the environment in order, before expansion. The error is the message of `CreateContainerConfigError`.
pub(crate) async fn build(
    client: &Client,
    pod: &Pod,
    container: &Container,
    image: &ImageEnvironment,
) -> Result<Vec<(String, String)>, String> {
    let mut env: Vec<_> = image
        .env
        .iter()
        .map(|(name, value)| (name.clone(), literal(value)))
        .collect();
    let mut path: Vec<String> = image.path.iter().map(|p| p.to_string_lossy().into_owned()).collect();
    if let Some(at) = env.iter().position(|(name, _)| name == "PATH") {
        path.push(env.remove(at).1);
    }
    if !path.is_empty() {
        env.push(("PATH".into(), path.join(":")));
    }
    env.push(("HOSTNAME".into(), hostname(pod)));

    let sources = Sources {
        client,
        namespace: pod.namespace().unwrap_or_default(),
    };
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        let (data, what, optional) = if let Some(reference) = &source.config_map_ref {
            (
                sources.config_map(&reference.name).await?,
                format!("configmap {:?}", reference.name),
                reference.optional,
            )
        } else if let Some(reference) = &source.secret_ref {
            (
                sources.secret(&reference.name).await?,
                format!("secret {:?}", reference.name),
                reference.optional,
            )
        } else {
            continue;
        };
        match data {
            Some(data) => env.extend(
                data.into_iter()
                    .map(|(key, value)| (format!("{prefix}{key}"), literal(&value))),
            ),
            None if optional == Some(true) => {}
            None => return Err(format!("{what} not found")),
        }
    }
    for variable in container.env.iter().flatten() {
        if let Some(value) = value(&sources, pod, container, variable).await? {
            let value = if variable.value_from.is_some() {
                literal(&value)
            } else {
                value
            };
            env.push((variable.name.clone(), value));
        }
    }
    keep_reachable(&mut env, &image.path);
    Ok(env)
}

/// Adds the image's own directories behind a `PATH` that the pod sets. In a container the base directories of an image
/// have its commands. Here a toolchain's command is only in these directories, so it would be lost with them.
fn keep_reachable(env: &mut [(String, String)], image: &[PathBuf]) {
    if image.is_empty() {
        return;
    }
    if let Some((_, path)) = env.iter_mut().rev().find(|(name, _)| name == "PATH") {
        let missing = image.iter().map(|dir| dir.to_string_lossy());
        let missing: Vec<_> = missing.filter(|dir| !path.split(':').any(|part| part == dir)).collect();
        for dir in missing {
            path.push(':');
            path.push_str(&dir);
        }
    }
}

/// Only a plain `value` is expanded. Values from other sources must pass the expansion unchanged.
fn literal(value: &str) -> String {
    value.replace('$', "$$")
}

fn hostname(pod: &Pod) -> String {
    let mut name = pod
        .spec
        .as_ref()
        .and_then(|s| s.hostname.clone())
        .unwrap_or_else(|| pod.name_any());
    name.truncate(63);
    name
}

async fn value(
    sources: &Sources<'_>,
    pod: &Pod,
    container: &Container,
    variable: &EnvVar,
) -> Result<Option<String>, String> {
    let Some(from) = &variable.value_from else {
        return Ok(Some(variable.value.clone().unwrap_or_default()));
    };
    if let Some(field) = &from.field_ref {
        return fields::field(pod, &field.field_path).map(Some);
    }
    if let Some(resource) = &from.resource_field_ref {
        return fields::resource(pod, Some(&container.name), resource).map(Some);
    }
    let (data, what, kind, key, optional) = if let Some(reference) = &from.config_map_key_ref {
        let data = sources.config_map(&reference.name).await?;
        (data, &reference.name, "ConfigMap", &reference.key, reference.optional)
    } else if let Some(reference) = &from.secret_key_ref {
        (
            sources.secret(&reference.name).await?,
            &reference.name,
            "Secret",
            &reference.key,
            reference.optional,
        )
    } else {
        return Err(format!(
            "environment variable {:?}: valueFrom must be fieldRef, resourceFieldRef, configMapKeyRef or secretKeyRef",
            variable.name
        ));
    };
    match data {
        None if optional == Some(true) => Ok(None),
        None => Err(format!("{} {what:?} not found", kind.to_lowercase())),
        Some(mut data) => match data.remove(key) {
            Some(value) => Ok(Some(value)),
            None if optional == Some(true) => Ok(None),
            None => Err(format!(
                "couldn't find key {key} in {kind} {}/{what}",
                sources.namespace
            )),
        },
    }
}

struct Sources<'a> {
    client: &'a Client,
    namespace: String,
}

impl Sources<'_> {
    async fn config_map(&self, name: &str) -> Result<Option<BTreeMap<String, String>>, String> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let found = api.get_opt(name).await.map_err(|e| e.to_string())?;
        Ok(found.map(|map| map.data.unwrap_or_default()))
    }

    async fn secret(&self, name: &str) -> Result<Option<BTreeMap<String, String>>, String> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let found = api.get_opt(name).await.map_err(|e| e.to_string())?;
        Ok(found.map(|secret| {
            let data = secret.data.unwrap_or_default();
            data.into_iter()
                .map(|(key, value)| (key, String::from_utf8_lossy(&value.0).into_owned()))
                .collect()
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_the_pod_keeps_the_images_commands_reachable() {
        let image = [PathBuf::from("/image/bin"), PathBuf::from("/bin")];
        let mut env = vec![
            ("PATH".into(), "/image/bin:/bin".into()),
            ("PATH".into(), "/mine:/bin".into()),
        ];
        keep_reachable(&mut env, &image);
        assert_eq!(env[0].1, "/image/bin:/bin");
        assert_eq!(env[1].1, "/mine:/bin:/image/bin");
        let mut none = vec![("HOME".into(), "/".into())];
        keep_reachable(&mut none, &image);
        assert_eq!(none.len(), 1);
    }
}
