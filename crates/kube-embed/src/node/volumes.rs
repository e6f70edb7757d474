//! Converts a pod's `volumes` to the contents that a runtime writes to disk.

use std::collections::BTreeMap;

use bytes::Bytes;
use k8s_openapi::api::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, KeyToPath, PersistentVolumeClaim, Pod, Secret, Volume as PodVolume,
};
use kube::api::Api;
use kube::{Client, ResourceExt};

use super::fields;
use super::quantity;
use super::runtime::{Volume, VolumeContent, VolumeFile};

/// The reason why a volume cannot be set up now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) volume: String,
    pub(crate) message: String,
}

/// Reads all objects that the pod's volumes refer to.
pub(crate) async fn resolve(client: &Client, pod: &Pod) -> Result<Vec<Volume>, Problem> {
    let mut volumes = Vec::new();
    for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
        let content = content(client, pod, volume).await.map_err(|message| Problem {
            volume: volume.name.clone(),
            message,
        })?;
        volumes.push(Volume {
            name: volume.name.clone(),
            content,
        });
    }
    Ok(volumes)
}

async fn content(client: &Client, pod: &Pod, volume: &PodVolume) -> Result<VolumeContent, String> {
    if let Some(empty) = &volume.empty_dir {
        return Ok(VolumeContent::Empty {
            size_limit: empty.size_limit.as_ref().and_then(quantity::units),
        });
    }
    if let Some(host) = &volume.host_path {
        return Ok(VolumeContent::Host {
            path: host.path.clone().into(),
            kind: host.type_.clone().unwrap_or_default(),
        });
    }
    if let Some(claim) = &volume.persistent_volume_claim {
        return self::claim(client, pod, &claim.claim_name).await;
    }
    let mut files = Vec::new();
    if let Some(source) = &volume.config_map {
        let keys = Keys {
            items: source.items.as_deref(),
            optional: source.optional,
            mode: source.default_mode,
        };
        files = config_map(client, pod, &source.name, &keys).await?;
    } else if let Some(source) = &volume.secret {
        let keys = Keys {
            items: source.items.as_deref(),
            optional: source.optional,
            mode: source.default_mode,
        };
        files = secret(client, pod, source.secret_name.as_deref().unwrap_or_default(), &keys).await?;
    } else if let Some(source) = &volume.downward_api {
        files = downward(pod, source.items.as_deref().unwrap_or_default(), source.default_mode)?;
    } else if let Some(source) = &volume.projected {
        for part in source.sources.iter().flatten() {
            let mode = source.default_mode;
            if let Some(part) = &part.config_map {
                let keys = Keys {
                    items: part.items.as_deref(),
                    optional: part.optional,
                    mode,
                };
                files.extend(config_map(client, pod, &part.name, &keys).await?);
            } else if let Some(part) = &part.secret {
                let keys = Keys {
                    items: part.items.as_deref(),
                    optional: part.optional,
                    mode,
                };
                files.extend(secret(client, pod, &part.name, &keys).await?);
            } else if let Some(part) = &part.downward_api {
                files.extend(downward(pod, part.items.as_deref().unwrap_or_default(), mode)?);
            } else {
                return Err(
                    "this node projects configMap, secret and downwardAPI only; run the pod on a cluster".into(),
                );
            }
        }
    } else {
        return Err(
            "this node offers emptyDir, configMap, secret, downwardAPI, projected, hostPath and \
                    persistentVolumeClaim volumes only; run the pod on a cluster"
                .into(),
        );
    }
    Ok(VolumeContent::Files(files))
}

async fn claim(client: &Client, pod: &Pod, name: &str) -> Result<VolumeContent, String> {
    let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &namespace(pod));
    let claim = api.get_opt(name).await.map_err(|e| e.to_string())?;
    let claim = claim.ok_or_else(|| format!("persistentvolumeclaim {name:?} not found"))?;
    let bound = claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
    match claim.uid() {
        Some(uid) if bound => Ok(VolumeContent::Claim { uid }),
        _ => Err(format!("persistentvolumeclaim {name:?} is not bound")),
    }
}

struct Keys<'a> {
    items: Option<&'a [KeyToPath]>,
    optional: Option<bool>,
    mode: Option<i32>,
}

async fn config_map(client: &Client, pod: &Pod, name: &str, keys: &Keys<'_>) -> Result<Vec<VolumeFile>, String> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace(pod));
    let found = api.get_opt(name).await.map_err(|e| e.to_string())?;
    let data = found.map(|map| {
        let mut data: BTreeMap<String, Bytes> = BTreeMap::new();
        data.extend(
            map.data
                .unwrap_or_default()
                .into_iter()
                .map(|(k, v)| (k, Bytes::from(v))),
        );
        data.extend(
            map.binary_data
                .unwrap_or_default()
                .into_iter()
                .map(|(k, v)| (k, Bytes::from(v.0))),
        );
        data
    });
    select(data, &format!("configmap {name:?}"), keys, 0o644)
}

async fn secret(client: &Client, pod: &Pod, name: &str, keys: &Keys<'_>) -> Result<Vec<VolumeFile>, String> {
    let api: Api<Secret> = Api::namespaced(client.clone(), &namespace(pod));
    let found = api.get_opt(name).await.map_err(|e| e.to_string())?;
    let data = found.map(|secret| {
        secret
            .data
            .unwrap_or_default()
            .into_iter()
            .map(|(k, v)| (k, Bytes::from(v.0)))
            .collect::<BTreeMap<_, _>>()
    });
    let mut files = select(data, &format!("secret {name:?}"), keys, 0o600)?;
    for file in &mut files {
        // All containers of this node run as one user, and the machine has other users. They must not be able to read
        // a secret.
        file.mode &= 0o700;
    }
    Ok(files)
}

fn select(
    data: Option<BTreeMap<String, Bytes>>,
    what: &str,
    keys: &Keys<'_>,
    default_mode: u32,
) -> Result<Vec<VolumeFile>, String> {
    let optional = keys.optional == Some(true);
    let Some(data) = data else {
        return if optional {
            Ok(Vec::new())
        } else {
            Err(format!("{what} not found"))
        };
    };
    let default_mode = keys.mode.and_then(|m| u32::try_from(m).ok()).unwrap_or(default_mode);
    let Some(items) = keys.items.filter(|items| !items.is_empty()) else {
        return Ok(data
            .into_iter()
            .map(|(path, data)| VolumeFile {
                path,
                data,
                mode: default_mode,
            })
            .collect());
    };
    let mut files = Vec::new();
    for item in items {
        match data.get(&item.key) {
            Some(data) => files.push(VolumeFile {
                path: relative(&item.path)?,
                data: data.clone(),
                mode: item.mode.and_then(|m| u32::try_from(m).ok()).unwrap_or(default_mode),
            }),
            None if optional => {}
            None => return Err(format!("{what} references non-existent config key: {}", item.key)),
        }
    }
    Ok(files)
}

fn downward(pod: &Pod, items: &[DownwardAPIVolumeFile], mode: Option<i32>) -> Result<Vec<VolumeFile>, String> {
    let mut files = Vec::new();
    for item in items {
        let value = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => fields::field(pod, &field.field_path)?,
            (None, Some(resource)) => fields::resource(pod, resource.container_name.as_deref(), resource)?,
            (None, None) => return Err(format!("downwardAPI item {:?} names no field", item.path)),
        };
        let mode = item.mode.or(mode).and_then(|m| u32::try_from(m).ok()).unwrap_or(0o644);
        files.push(VolumeFile {
            path: relative(&item.path)?,
            data: value.into(),
            mode,
        });
    }
    Ok(files)
}

/// Checks that a path stays below the volume. The API server of a cluster checks the same.
fn relative(path: &str) -> Result<String, String> {
    if path.is_empty() || path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return Err(format!("path {path:?} must be relative and must not contain '..'"));
    }
    Ok(path.to_owned())
}

fn namespace(pod: &Pod) -> String {
    pod.namespace().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data() -> Option<BTreeMap<String, Bytes>> {
        Some([("a".to_owned(), Bytes::from("1")), ("b".to_owned(), Bytes::from("2"))].into())
    }

    #[test]
    fn items_choose_and_rename_keys() {
        let items = [KeyToPath {
            key: "b".into(),
            path: "d/x".into(),
            mode: Some(0o400),
            ..KeyToPath::default()
        }];
        let keys = Keys {
            items: Some(&items),
            optional: None,
            mode: None,
        };
        let files = select(data(), "configmap \"c\"", &keys, 0o644).unwrap();
        assert_eq!(
            files,
            [VolumeFile {
                path: "d/x".into(),
                data: Bytes::from("2"),
                mode: 0o400
            }]
        );
    }

    #[test]
    fn a_missing_key_is_an_error_unless_optional() {
        let items = [KeyToPath {
            key: "c".into(),
            path: "c".into(),
            ..KeyToPath::default()
        }];
        for (data, expected) in [
            (None, "configmap \"c\" not found"),
            (data(), "configmap \"c\" references non-existent config key: c"),
        ] {
            let keys = |optional| Keys {
                items: Some(&items),
                optional: Some(optional),
                mode: None,
            };
            assert_eq!(
                select(data.clone(), "configmap \"c\"", &keys(false), 0o644).unwrap_err(),
                expected
            );
            assert_eq!(select(data, "configmap \"c\"", &keys(true), 0o644).unwrap(), []);
        }
    }

    #[test]
    fn a_path_stays_below_the_volume() {
        for path in ["", "/etc/x", "../x", "a/../../x"] {
            assert!(relative(path).is_err(), "{path:?}");
        }
        assert_eq!(relative("a/..b").unwrap(), "a/..b");
    }
}
