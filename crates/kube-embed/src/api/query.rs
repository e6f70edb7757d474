//! Query parameters.

use std::collections::HashMap;

use super::go_duration;
use crate::schema::FieldError;
use crate::status::ApiError;

/// The parameters of a request. Unknown ones are ignored, as in Kubernetes.
#[derive(Clone, Debug, Default)]
pub(super) struct Query {
    values: HashMap<String, String>,
}

/// The handling of fields that are not in the schema.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

/// The meaning of `resourceVersion` (`resourceVersionMatch`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VersionMatch {
    Exact,
    NotOlderThan,
}

impl Query {
    pub(super) fn parse(query: Option<&str>) -> Self {
        let values = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes())
            .map(|(k, v)| (k.into_owned(), v.into_owned()))
            .collect();
        Self { values }
    }

    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.values.insert(name.to_owned(), value.to_owned());
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str).filter(|v| !v.is_empty())
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        match self.values.get(name).map(String::as_str) {
            None | Some("0" | "false") => false,
            // Any other value counts as set, also a bare `?watch`.
            Some(_) => true,
        }
    }

    /// Returns a whole number. A negative one counts as unset.
    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, ApiError> {
        Ok(self.integer(name)?.and_then(|number| u64::try_from(number).ok()))
    }

    /// Validates `timeout`, which kubectl calls `--request-timeout`. Requests are answered faster than any timeout.
    /// Watches and streams of a pod have no such parameter.
    pub(super) fn check_timeout(&self, path: &str) -> Result<(), ApiError> {
        let streams = ["/log", "/exec", "/attach", "/portforward", "/proxy"];
        if self.flag("watch") || streams.iter().any(|stream| path.ends_with(stream)) {
            return Ok(());
        }
        let Some(error) = self.get("timeout").and_then(|text| go_duration::check(text).err()) else {
            return Ok(());
        };
        Err(ApiError::bad_request(format!(
            "invalid timeout specified in the request URL - {error}"
        )))
    }

    pub(super) fn integer(&self, name: &str) -> Result<Option<i64>, ApiError> {
        let parse = |text: &str| {
            text.parse()
                .map_err(|_| ApiError::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")))
        };
        self.get(name).map(parse).transpose()
    }

    /// Returns `resourceVersion`, or `None` if it is unset.
    pub(super) fn version(&self) -> Result<Option<u64>, ApiError> {
        self.get("resourceVersion")
            .map(|v| v.parse().map_err(|_| invalid_version(v)))
            .transpose()
    }

    pub(super) fn version_match(&self) -> Result<Option<VersionMatch>, ApiError> {
        match self.get("resourceVersionMatch") {
            None => Ok(None),
            Some("Exact") => Ok(Some(VersionMatch::Exact)),
            Some("NotOlderThan") => Ok(Some(VersionMatch::NotOlderThan)),
            Some(other) => {
                let fault = FieldError::not_supported("resourceVersionMatch", other, ["Exact", "NotOlderThan", ""]);
                Err(ApiError::invalid("meta.k8s.io", "ListOptions", "", &[fault]))
            }
        }
    }

    pub(super) fn dry_run(&self) -> Result<bool, ApiError> {
        match self.get("dryRun") {
            None => Ok(false),
            Some("All") => Ok(true),
            Some(other) => Err(bad("dryRun", other, "the only supported value is All")),
        }
    }

    pub(super) fn field_validation(&self) -> Result<FieldValidation, ApiError> {
        match self.get("fieldValidation") {
            None | Some("Warn") => Ok(FieldValidation::Warn),
            Some("Ignore") => Ok(FieldValidation::Ignore),
            Some("Strict") => Ok(FieldValidation::Strict),
            Some(other) => Err(bad("fieldValidation", other, "it must be Ignore, Warn or Strict")),
        }
    }
}

fn bad(name: &str, value: &str, rule: &str) -> ApiError {
    ApiError::bad_request(format!("invalid query parameter {name}={value:?}: {rule}"))
}

pub(super) fn invalid_version(value: &str) -> ApiError {
    ApiError::unexplained(format!(
        "resourceVersion: Invalid value: {value:?}: strconv.ParseUint: parsing {value:?}: invalid syntax"
    ))
}
