//! Keys of mounted Secrets. A value is read where it is used. It is never part of an argument, an address or a message.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use legion_protocol::env;
use legion_protocol::reason::{StepError, StepReason};

use crate::error::Result;
use crate::paths;

/// The secret values that were read.
static READ: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Shortest value that is removed from texts, in bytes. A shorter one may be part of ordinary words.
const MIN_BYTES: usize = 6;

/// Replaces every value that this process has read from a Secret with `***`. Servers and programs quote what they
/// receive.
pub(crate) fn hide(text: &str) -> String {
    let read = READ.lock().unwrap_or_else(PoisonError::into_inner);
    read.iter()
        .fold(text.to_owned(), |text, value| text.replace(value, "***"))
}

fn remember(key: &str, value: &str) {
    let public = ["username", "known_hosts", "AWS_ACCESS_KEY_ID"].contains(&key);
    let mut read = READ.lock().unwrap_or_else(PoisonError::into_inner);
    if !public && value.len() >= MIN_BYTES && !read.iter().any(|known| known == value) {
        read.push(value.to_owned());
    }
}

/// Longest accepted value, in bytes. A Secret holds at most 1 MiB.
const MAX_BYTES: u64 = 1 << 20;

/// A Secret that is mounted in a slot.
#[derive(Clone, Debug)]
pub(crate) struct Secret {
    name: String,
    directory: PathBuf,
    field: String,
}

impl Secret {
    /// Returns the Secret of a slot, or `None` if the task names none. Its errors name `field`.
    pub(crate) fn of(name: &str, slot: &str, field: &str) -> Result<Option<Self>> {
        if name.is_empty() {
            return Ok(None);
        }
        let directory = paths::directory(env::SECRETS)?.join(slot);
        Ok(Some(Self {
            name: name.to_owned(),
            directory,
            field: field.to_owned(),
        }))
    }

    /// Returns the path of a key.
    pub(crate) fn path(&self, key: &str) -> PathBuf {
        self.directory.join(key)
    }

    pub(crate) fn directory(&self) -> &std::path::Path {
        &self.directory
    }

    /// Reads the value of a key, without line feeds at its end. Editors add them.
    pub(crate) fn get(&self, key: &str) -> Result<Option<String>> {
        let path = self.path(key);
        match std::fs::metadata(&path) {
            Ok(meta) if meta.is_file() && meta.len() <= MAX_BYTES => {}
            Ok(_) => return Err(self.invalid(key, "is not a file of at most 1 MiB")),
            Err(_) => return Ok(None),
        }
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                let value = text.trim_end_matches(['\n', '\r']);
                remember(key, value);
                Ok(Some(value.to_owned()).filter(|v| !v.is_empty()))
            }
            Err(e) if e.kind() == std::io::ErrorKind::InvalidData => Err(self.invalid(key, "is not UTF-8")),
            Err(e) => Err(self.invalid(key, &format!("cannot be read: {e}"))),
        }
    }

    /// Reads the value of a required key.
    pub(crate) fn require(&self, key: &str) -> Result<String> {
        self.get(key)?.ok_or_else(|| self.missing(&[key]))
    }

    /// Returns one error for missing keys.
    pub(crate) fn missing(&self, keys: &[&str]) -> StepError {
        let noun = if keys.len() == 1 { "key" } else { "keys" };
        let keys = keys
            .iter()
            .map(|key| format!("{key:?}"))
            .collect::<Vec<_>>()
            .join(" and ");
        let exists = std::fs::read_dir(&self.directory).is_ok_and(|mut entries| entries.next().is_some());
        let message = if exists {
            format!("the Secret {:?} has no {noun} {keys}", self.name)
        } else {
            format!("the Secret {:?} with the {noun} {keys} does not exist", self.name)
        };
        StepError::new(StepReason::SecretMissing, message)
            .field(&self.field)
            .remedy(format!(
                "create the Secret {:?} in the training's namespace with the {noun} {keys}",
                self.name
            ))
    }

    fn invalid(&self, key: &str, why: &str) -> StepError {
        StepError::new(
            StepReason::SecretInvalid,
            format!("the key {key:?} of the Secret {:?} {why}", self.name),
        )
        .field(&self.field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_keys_are_named_in_one_error_with_one_remedy() {
        let directory = tempfile::tempdir().unwrap();
        let secret = |directory: &std::path::Path| Secret {
            name: "models".to_owned(),
            directory: directory.to_owned(),
            field: "spec.output".to_owned(),
        };
        let absent = secret(&directory.path().join("absent")).missing(&["A", "B"]);
        assert_eq!(
            absent.message,
            r#"the Secret "models" with the keys "A" and "B" does not exist"#
        );
        assert_eq!(
            absent.remedy,
            r#"create the Secret "models" in the training's namespace with the keys "A" and "B""#
        );
        std::fs::write(directory.path().join("A"), "a").unwrap();
        let incomplete = secret(directory.path()).missing(&["B"]);
        assert_eq!(incomplete.message, r#"the Secret "models" has no key "B""#);
    }
}
