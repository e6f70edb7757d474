//! Checks that every Secret of a task is mounted with the keys it needs. The check runs before any transfer, because
//! the volumes of Secrets are optional and hours may pass before the last one is used.

use std::collections::BTreeSet;

use legion_protocol::reason::StepError;
use legion_protocol::task::{FetchTask, SourceTask, WireStore};

use super::git;
use crate::error::Result;
use crate::secrets::Secret;
use crate::store;

/// Returns one error that names every missing Secret and key, or `None` if none is missing.
pub(super) fn missing(task: &FetchTask) -> Result<Option<StepError>> {
    let mut found = Vec::new();
    check_store(&task.output.store, store::SLOT, store::FIELD, &mut found)?;
    match &task.source {
        SourceTask::Git { uri, secret, .. } => {
            let field = git::SECRET_FIELD;
            if let Some(secret) = Secret::of(secret, super::source::SLOT, field)? {
                keys(&secret, git::keys(uri), &mut found)?;
            }
        }
        SourceTask::ObjectStore { store, .. } => {
            check_store(store, super::source::SLOT, "spec.source.objectStore", &mut found)?;
        }
        SourceTask::ConfigMap { .. } | SourceTask::Volume { .. } => {}
    }
    for data in &task.data {
        check_store(
            &data.store,
            &data.slot,
            &format!("spec.data[{}]", data.name),
            &mut found,
        )?;
    }
    Ok(combined(found))
}

/// Returns one error for all. Several connections may have one Secret, which is named once.
fn combined(mut found: Vec<StepError>) -> Option<StepError> {
    let mut named = BTreeSet::new();
    found.retain(|error| named.insert(error.message.clone()));
    found.into_iter().reduce(|first, next| StepError {
        message: format!("{}; {}", first.message, next.message),
        remedy: format!("{}; {}", first.remedy, next.remedy),
        ..first
    })
}

fn check_store(store: &WireStore, slot: &str, field: &str, found: &mut Vec<StepError>) -> Result<()> {
    match store {
        WireStore::S3 { secret, .. } => match Secret::of(secret, slot, field)? {
            Some(secret) => keys(&secret, &["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"], found),
            None => Ok(()),
        },
        WireStore::Http { secret, .. } => match Secret::of(secret, slot, field)? {
            Some(secret) if secret.get("token")?.is_some() => Ok(()),
            Some(secret) if secret.get("username")?.is_some() => keys(&secret, &["password"], found),
            Some(secret) => keys(&secret, &["token"], found),
            None => Ok(()),
        },
        WireStore::Volume { .. } => Ok(()),
    }
}

fn keys(secret: &Secret, keys: &[&str], found: &mut Vec<StepError>) -> Result<()> {
    let mut missing = Vec::new();
    for key in keys {
        if secret.get(key)?.is_none() {
            missing.push(*key);
        }
    }
    if !missing.is_empty() {
        found.push(secret.missing(&missing));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use legion_protocol::reason::StepReason;

    use super::*;

    #[test]
    fn a_secret_of_several_connections_is_named_once() {
        let of = |name: &str| {
            let message = format!("{name} does not exist");
            StepError::new(StepReason::SecretMissing, message).remedy(format!("create {name}"))
        };
        let all = combined(vec![of("a"), of("b"), of("a")]).unwrap();
        assert_eq!(all.message, "a does not exist; b does not exist");
        assert_eq!(all.remedy, "create a; create b");
        assert!(combined(Vec::new()).is_none());
    }
}
