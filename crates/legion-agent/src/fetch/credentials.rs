//! Checks that every Secret of a task is mounted with the keys it needs. The check runs before any transfer, because
//! the volumes of Secrets are optional and hours may pass before the last one is used.

use legion_protocol::reason::{StepError, StepReason};
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
    Ok(found.into_iter().reduce(|first, next| StepError {
        message: format!("{}; {}", first.message, next.message),
        remedy: format!("{}; {}", first.remedy, next.remedy),
        ..first
    }))
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
    for key in keys {
        match secret.require(key) {
            Ok(_) => {}
            Err(error) if error.reason == StepReason::SecretMissing => found.push(error),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
