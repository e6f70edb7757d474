//! POST, PUT and PATCH.
//!
//! A write reads the live object and computes the next one without a lock. The commit has a precondition: the live
//! object is still the same. If a patch fails this precondition, it is computed again, because it describes a change
//! and not a replacement. The same holds for an update without a resourceVersion.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use super::query::FieldValidation;
use super::request::{ApiResult, ResourceRequest, warn, write_whole_numbers_as_integers};
use super::{kinds, meta};
use crate::apply::{self, Applier, ApplyError, Conflicts};
use crate::clock;
use crate::patch::{self, PatchError};
use crate::resource::Subresource;
use crate::schema::FieldError;
use crate::status::ApiError;
use crate::store::{Change, CommitError, Object, ObjectKey, Precondition};

/// The maximum number of attempts when other writers change the object.
const ATTEMPTS: usize = 8;

/// The result of an update.
enum Next {
    /// Nothing changes. The object keeps its version.
    Same,
    Change(Change),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PatchKind {
    Json,
    Merge,
    Strategic,
    Apply,
}

impl PatchKind {
    fn of(content_type: &str) -> Option<Self> {
        match content_type.split(';').next().unwrap_or_default().trim() {
            "application/json-patch+json" => Some(Self::Json),
            "application/merge-patch+json" => Some(Self::Merge),
            "application/strategic-merge-patch+json" => Some(Self::Strategic),
            "application/apply-patch+yaml" => Some(Self::Apply),
            _ => None,
        }
    }
}

impl ResourceRequest {
    pub(super) async fn create(mut self, body: Bytes) -> ApiResult {
        let mut object = self.decode(&body)?;
        self.check_type(&mut object)?;
        if !meta::version(&object).is_empty() {
            return Err(ApiError::unexplained(
                "resourceVersion should not be set on objects to be created",
            ));
        }
        let prefix = meta::text(&object, &["metadata", "generateName"]).to_owned();
        let given = meta::name(&object).to_owned();
        if given.is_empty() && prefix.is_empty() {
            let info = &self.resource.info;
            let mut errors = vec![FieldError::required(
                "metadata.name",
                "name or generateName is required",
            )];
            errors.extend(self.resource.has_rules().then(FieldError::not_all_checked));
            return Err(ApiError::invalid(&info.group, &info.kind, "", &errors));
        }
        let mut attempt = 0;
        loop {
            self.name = if given.is_empty() {
                let short: String = prefix.chars().take(58).collect();
                format!("{short}{}", self.server.options.ids.suffix())
            } else {
                given.clone()
            };
            attempt += 1;
            match self.insert(object.clone(), true).await {
                Err(error) if given.is_empty() && error.reason == "AlreadyExists" && attempt < ATTEMPTS => {}
                outcome => return outcome,
            }
        }
    }

    /// Stores a new object under `self.name`.
    async fn insert(&self, mut object: Value, track: bool) -> ApiResult {
        if self.resource.terminating {
            return Err(ApiError::forbidden(
                &self.resource.info,
                &self.name,
                "create not allowed while custom resource definition is terminating",
            ));
        }
        let now = self.server.clock().now();
        let warnings = self.prune(&mut object)?;
        self.fit_namespace(&mut object)?;
        meta::set(&mut object, "name", Some(json!(self.name)));
        meta::set(&mut object, "uid", Some(json!(self.server.options.ids.uid())));
        meta::set(&mut object, "creationTimestamp", Some(json!(clock::seconds(now))));
        if self.resource.info.generation {
            meta::set(&mut object, "generation", Some(json!(1)));
        }
        for field in [
            "resourceVersion",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "selfLink",
        ] {
            meta::set(&mut object, field, None);
        }
        meta::omit_empty(&mut object);
        if track {
            meta::set(&mut object, "managedFields", None);
        }
        let track = track && !self.has_mistyped_reset_field(&object);
        if self.resource.info.has(Subresource::Status)
            && let Some(fields) = object.as_object_mut()
        {
            fields.remove("status");
        }
        self.resource.default(&mut object);
        kinds::on_create(&self.resource.info, &mut object);
        if self.resource.is_crd() {
            self.server.describe_crd(&mut object);
        }
        self.check(&object, None)?;
        if track {
            apply::track_update(None, &mut object, self.manager(), "", &self.resource.types, now);
        }
        let key = self.key();
        let stored = self.resource.stored(object);
        let object = if self.query.dry_run()? {
            if self.server.store.get(&self.resource.collection, &key).is_some() {
                return Err(ApiError::already_exists(&self.resource.info, &self.name));
            }
            Arc::new(Object::transient(key, stored))
        } else {
            let object = self
                .commit(&key, Precondition::Absent, Change::Put(stored))
                .map_err(|e| self.refused(&e))?;
            self.resource.written(&object);
            object
        };
        let mut response = self.reply(201, &object).await?;
        warn(&mut response, &warnings);
        Ok(response)
    }

    /// Commits, and reloads the registry if the object is a CRD.
    pub(super) fn commit(
        &self,
        key: &ObjectKey,
        expect: Precondition,
        change: Change,
    ) -> Result<Arc<Object>, CommitError> {
        let object = self
            .server
            .store
            .commit(&self.resource.collection, key, expect, change)?;
        if self.resource.is_crd() {
            self.server.reload_crds();
        }
        Ok(object)
    }

    /// Checks that the object's name is the name in the path.
    fn check_name(&self, object: &Value) -> Result<(), ApiError> {
        match meta::name(object) {
            name if name == self.name => Ok(()),
            "" => Err(ApiError::bad_request(format!(
                "the name of the object ({} based on URL) was undeterminable: name must be provided",
                self.name
            ))),
            name => Err(ApiError::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                self.name
            ))),
        }
    }

    pub(super) async fn update(&self, body: Bytes) -> ApiResult {
        let mut given = self.decode(&body)?;
        self.check_type(&mut given)?;
        self.check_name(&given)?;
        if self.query.field_validation()? == FieldValidation::Strict {
            self.prune(&mut given.clone())?;
        }
        let info = &self.resource.info;
        if info.kind == "Lease" && self.subresource.is_none() && self.live().is_err() {
            return self.insert(given, true).await;
        }
        let strict = info.custom || info.kind == "Lease";
        let (uid, version) = (meta::uid(&given), meta::version(&given));
        self.modify(
            |live| {
                if !uid.is_empty() && uid != meta::uid(live) {
                    let actual = meta::uid(live);
                    return Err(ApiError::conflict(
                        info,
                        &self.name,
                        format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {actual}"),
                    ));
                }
                if version.is_empty() && strict {
                    let rule = "must be specified for an update";
                    return Err(ApiError::invalid(
                        &info.group,
                        &info.plural,
                        &self.name,
                        &[FieldError::invalid("metadata.resourceVersion", json!(0), rule)],
                    ));
                }
                Ok(given.clone())
            },
            true,
        )
        .await
    }

    pub(super) async fn patch(self, body: Bytes) -> ApiResult {
        let custom = self.resource.info.custom;
        let unsupported = || {
            if custom {
                ApiError::unsupported_media_type(
                    "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
                )
            } else {
                ApiError::unsupported_patch()
            }
        };
        let kind = PatchKind::of(&self.content_type).ok_or_else(unsupported)?;
        if kind == PatchKind::Apply {
            return self.apply(&body).await;
        }
        if self.query.flag("force") {
            return Err(patch_options("force", "may not be specified for non-apply patch", true));
        }
        if kind == PatchKind::Strategic && custom {
            return Err(unsupported());
        }
        let mut patch: Value =
            serde_json::from_slice(&body).map_err(|_| ApiError::bad_request("invalid JSON patch"))?;
        if kind != PatchKind::Json && !patch.is_object() {
            return Err(ApiError::bad_request("error decoding patch: it must be an object"));
        }
        write_whole_numbers_as_integers(&mut patch);
        self.modify(
            |live| {
                let patched = match kind {
                    PatchKind::Json => patch::json(live, &patch),
                    PatchKind::Strategic => patch::strategic(live, &patch, &self.resource.types),
                    PatchKind::Merge | PatchKind::Apply => Ok(patch::merge(live, &patch)),
                };
                patched.map_err(|error| match error {
                    PatchError::Malformed(why) => ApiError::bad_request(why),
                    PatchError::Unprocessable => ApiError::unprocessable_patch(),
                })
            },
            true,
        )
        .await
    }

    async fn apply(&self, body: &Bytes) -> ApiResult {
        let mut applied = self.decode(body)?;
        let manager = self
            .query
            .get("fieldManager")
            .ok_or_else(|| patch_options("fieldManager", "is required for apply patch", false))?;
        let (version, kind) = (meta::text(&applied, &["apiVersion"]), meta::text(&applied, &["kind"]));
        if version != self.resource.api_version || kind != self.resource.info.kind {
            let slash = if version.contains('/') { "" } else { "/" };
            return Err(ApiError::bad_request(format!(
                "invalid object type: {slash}{version}, Kind={kind}"
            )));
        }
        self.check_name(&applied)?;
        if self.subresource.is_some() {
            self.live()?;
        }
        self.check_applied(&mut applied)?;
        let applier = Applier {
            manager,
            force: self.query.flag("force"),
            subresource: self.subresource.map(Subresource::as_str).unwrap_or_default(),
            separate_status: self.resource.info.has(Subresource::Status),
        };
        let now = self.server.clock().now();
        let conflict = |error: ApplyError| match error {
            ApplyError::Conflict(Conflicts { message, causes }) => ApiError::apply_conflict(message, causes),
            ApplyError::Reserved(why) => ApiError::bad_request(why),
            ApplyError::Malformed(why) => self.untyped(&applied, &why),
        };
        for _ in 0..ATTEMPTS {
            let exists = self.server.store.get(&self.resource.collection, &self.key()).is_some();
            let outcome = if exists {
                self.modify(
                    |live| {
                        let asked = meta::version(&applied);
                        if !asked.is_empty() && asked != meta::version(live) {
                            return Err(ApiError::modified(&self.resource.info, &self.name));
                        }
                        apply::server_side_apply(Some(live), &applied, &applier, &self.resource.types, now)
                            .map_err(conflict)
                    },
                    false,
                )
                .await
            } else if self.subresource.is_some() {
                return Err(self.not_found());
            } else {
                let merged =
                    apply::server_side_apply(None, &applied, &applier, &self.resource.types, now).map_err(conflict)?;
                if !meta::uid(&applied).is_empty() {
                    return Err(ApiError::conflict(
                        &self.resource.info,
                        &self.name,
                        format!(
                            "uid mismatch: the provided object specified uid {}, and no existing object was found",
                            meta::uid(&applied)
                        ),
                    ));
                }
                self.insert(merged, false).await
            };
            match outcome {
                // Another client has created or deleted it in the meantime: start again.
                Err(error) if exists && error.reason == "NotFound" => {}
                Err(error) if !exists && error.reason == "AlreadyExists" && !self.query.dry_run()? => {}
                outcome => return outcome,
            }
        }
        Err(ApiError::modified(&self.resource.info, &self.name))
    }

    /// Refuses to apply unknown fields, whatever `fieldValidation` is, and values of the wrong type.
    fn check_applied(&self, applied: &mut Value) -> Result<(), ApiError> {
        let unknown = self.resource.prune(applied);
        let unknown = unknown
            .iter()
            .map(|path| format!(".{path}: field not declared in schema"));
        let mut wrong: Vec<String> = unknown.chain(apply::mistyped(applied, &self.resource.types)).collect();
        wrong.sort();
        match wrong.as_slice() {
            [] => Ok(()),
            [one] => Err(self.untyped(applied, one)),
            many => {
                let lines: Vec<String> = many.iter().map(|line| format!("  {line}")).collect();
                Err(self.untyped(applied, &format!("errors:\n{}", lines.join("\n"))))
            }
        }
    }

    fn untyped(&self, applied: &Value, why: &str) -> ApiError {
        let namespace = meta::text(applied, &["metadata", "namespace"]);
        ApiError::untyped_patch(&self.resource.info, namespace, &self.name, why)
    }

    /// Replaces the object with the result of `change`.
    pub(super) async fn modify(&self, change: impl Fn(&Value) -> Result<Value, ApiError>, track: bool) -> ApiResult {
        for _ in 0..ATTEMPTS {
            let live = self.live()?;
            let served = self.resource.served(&live);
            let mut new = change(&served)?;
            meta::omit_empty(&mut new);
            let asked = meta::version(&new);
            if !asked.is_empty() && asked != meta::version(&served) {
                return Err(ApiError::modified(&self.resource.info, &self.name));
            }
            let (uid, given) = (meta::uid(&served), meta::uid(&new));
            if !given.is_empty() && given != uid {
                return Err(ApiError::invalid(
                    &self.resource.info.group,
                    &self.resource.info.kind,
                    &self.name,
                    &[FieldError::invalid("metadata.uid", json!(given), "field is immutable")],
                ));
            }
            self.check_type(&mut new)?;
            self.check_name(&new)?;
            self.fit_namespace(&mut new)?;
            self.check_deletion_marks(&served, &new)?;
            let warnings = self.prune(&mut new)?;
            let change = match self.next(&served, new, track)? {
                Next::Same => self.renewal(&live, &served),
                Next::Change(change) => Some(change),
            };
            let object = match change {
                None => live,
                Some(Change::Put(value) | Change::Remove(value)) if self.query.dry_run()? => {
                    Arc::new(Object::transient(self.key(), self.resource.stored(value)))
                }
                Some(change) => {
                    let change = match change {
                        Change::Put(value) => Change::Put(self.resource.stored(value)),
                        Change::Remove(value) => Change::Remove(self.resource.stored(value)),
                    };
                    let removed = matches!(change, Change::Remove(_));
                    match self.commit(&self.key(), Precondition::Version(live.version()), change) {
                        Ok(object) => {
                            self.resource.written(&object);
                            if removed {
                                self.server.after_removal(&self.resource);
                            }
                            object
                        }
                        Err(CommitError::Conflict) => continue,
                        Err(error) => return Err(self.refused(&error)),
                    }
                }
            };
            let mut response = self.reply(200, &object).await?;
            warn(&mut response, &warnings);
            return Ok(response);
        }
        Err(ApiError::modified(&self.resource.info, &self.name))
    }

    /// A write without a visible change. It still rewrites an object that was stored under an older schema.
    fn renewal(&self, live: &Object, served: &Value) -> Option<Change> {
        if !self.resource.info.custom || std::ptr::eq(served, &**live.value()) {
            return None;
        }
        let renewed = self.resource.stored(served.clone());
        (!meta::same_content(live.value(), &renewed)).then_some(Change::Put(renewed))
    }

    /// Turns the requested object into the next one. Fields that the writer may not change keep their values.
    fn next(&self, live: &Value, mut new: Value, track: bool) -> Result<Next, ApiError> {
        let info = &self.resource.info;
        let now = self.server.clock().now();
        let is_untyped = track && self.has_mistyped_reset_field(&new);
        if let Some(subresource) = self.subresource {
            new = kinds::only_subresource(live, &new, subresource);
        } else if info.has(Subresource::Status)
            && let Some(fields) = new.as_object_mut()
        {
            match live.get("status") {
                Some(status) => fields.insert("status".into(), status.clone()),
                None => fields.remove("status"),
            };
        }
        for field in [
            "name",
            "namespace",
            "uid",
            "resourceVersion",
            "generation",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "selfLink",
            "generateName",
        ] {
            meta::set(&mut new, field, meta::at(live, &["metadata", field]).cloned());
        }
        self.resource.default(&mut new);
        kinds::on_update(info, live, &mut new, self.subresource);
        if self.resource.is_crd() {
            self.server.describe_crd(&mut new);
        }
        if self.subresource == Some(Subresource::Binding) {
            // Only the server makes this change of a pod's spec, so the rules for users' changes do not apply.
            let mut bound = live.clone();
            bound["spec"] = new["spec"].clone();
            self.check(&new, Some(&bound))?;
        } else {
            self.check(&new, Some(live))?;
        }
        let counted = !matches!(self.subresource, Some(Subresource::Status | Subresource::Binding));
        if info.generation && counted && kinds::spec_changed(info, live, &new) {
            meta::set(&mut new, "generation", Some(json!(meta::generation(live) + 1)));
        }
        if is_untyped {
            let managers = meta::at(live, &["metadata", "managedFields"]).cloned();
            meta::set(&mut new, "managedFields", managers);
        } else if track {
            let subresource = self.subresource.map(Subresource::as_str).unwrap_or_default();
            apply::track_update(
                Some(live),
                &mut new,
                self.manager(),
                subresource,
                &self.resource.types,
                now,
            );
        }
        let done = meta::is_deleting(&new)
            && meta::finalizers(&new).is_empty()
            && meta::grace_period(&new).unwrap_or(0) == 0
            && kinds::may_go(info, &new);
        if done {
            return Ok(Next::Change(Change::Remove(new)));
        }
        if meta::same_content(live, &new) && meta::same_managers(live, &new) {
            return Ok(Next::Same);
        }
        Ok(Next::Change(Change::Put(new)))
    }

    /// Returns whether a field that this write does not set has a value of a wrong type. Such a value is not refused.
    /// But then Kubernetes does not track the owners of the other fields either.
    fn has_mistyped_reset_field(&self, new: &Value) -> bool {
        let info = &self.resource.info;
        let has_reset_field = match self.subresource {
            None => new.get("status").is_some(),
            subresource => subresource == Some(Subresource::Status),
        };
        let separate = info.custom && info.has(Subresource::Status);
        separate && has_reset_field && !apply::mistyped(new, &self.resource.types).is_empty()
    }

    /// Validates an object completely.
    fn check(&self, new: &Value, old: Option<&Value>) -> Result<(), ApiError> {
        let info = &self.resource.info;
        let undecodable = self.resource.undecodable(new);
        if !undecodable.is_empty() {
            let why = crate::schema::aggregate(&undecodable).to_string();
            return Err(self.malformed(new, &info.version, &info.kind, &why));
        }
        let mut errors = self.resource.validate(new, old);
        if self.resource.is_crd() {
            errors.extend(super::crd::check(new, old));
        }
        if info.group == "events.k8s.io" {
            errors.extend(super::events::check(new, old));
        }
        if errors.is_empty() {
            Ok(())
        } else {
            // Both event APIs use the rules of the core form.
            let group = if info.group == "events.k8s.io" { "" } else { &info.group };
            Err(ApiError::invalid(group, &info.kind, &self.name, &errors))
        }
    }

    /// Checks that the object has the resource's kind. A built-in object without a kind is accepted.
    fn check_type(&self, object: &mut Value) -> Result<(), ApiError> {
        let info = &self.resource.info;
        if !info.custom
            && let Some(fields) = object.as_object_mut()
        {
            for (field, value) in [("apiVersion", &self.resource.api_version), ("kind", &info.kind)] {
                if fields.get(field).is_none_or(|v| v.is_null() || v == "") {
                    fields.insert(field.to_owned(), json!(value));
                }
            }
        }
        let (version, kind) = (meta::text(object, &["apiVersion"]), meta::text(object, &["kind"]));
        if (version, kind) == (&self.resource.api_version, &info.kind) {
            return Ok(());
        }
        if info.custom {
            if kind.is_empty() {
                return Err(ApiError::bad_request(format!(
                    "the object provided is unrecognized (must be of type {}): Object 'Kind' is missing",
                    info.kind
                )));
            }
            if version != self.resource.api_version {
                return Err(ApiError::bad_request(format!(
                    "the API version in the data ({version}) does not match the expected API version ({})",
                    self.resource.api_version
                )));
            }
            let fault = FieldError::invalid("kind", json!(kind), format!("must be {}", info.kind));
            return Err(ApiError::invalid(&info.group, kind, meta::name(object), &[fault]));
        }
        let why = if self.server.registry().knows(version, kind) {
            format!(
                "converting ({}.{kind}) to ({}.{}): unknown conversion",
                version.rsplit('/').next().unwrap_or_default(),
                info.internal_group(),
                info.kind
            )
        } else {
            format!("no kind {kind:?} is registered for version {version:?}")
        };
        let (version, kind) = (version.to_owned(), kind.to_owned());
        Err(self.malformed(object, &version, &kind, &why))
    }

    /// The error for an object that cannot be decoded: from the request, or as the result of a patch.
    fn malformed(&self, object: &Value, version: &str, kind: &str, why: &str) -> ApiError {
        if matches!(
            PatchKind::of(&self.content_type),
            Some(PatchKind::Json | PatchKind::Merge | PatchKind::Strategic)
        ) {
            let fault = FieldError::invalid("patch", object.to_string(), why);
            return ApiError::invalid("", "", "", &[fault]);
        }
        ApiError::bad_request(format!(
            "{kind} in version {version:?} cannot be handled as a {}: {why}",
            self.resource.info.kind
        ))
    }

    /// Refuses changes of deletionTimestamp and deletionGracePeriodSeconds. Only a deletion sets them.
    fn check_deletion_marks(&self, live: &Value, new: &Value) -> Result<(), ApiError> {
        let errors: Vec<FieldError> = ["deletionTimestamp", "deletionGracePeriodSeconds"]
            .into_iter()
            .filter_map(|field| {
                let given = meta::at(new, &["metadata", field])?;
                let path = format!("metadata.{field}");
                (Some(given) != meta::at(live, &["metadata", field]))
                    .then(|| FieldError::invalid(path, given.clone(), "field is immutable"))
            })
            .collect();
        if errors.is_empty() {
            return Ok(());
        }
        let info = &self.resource.info;
        Err(ApiError::invalid(&info.group, &info.kind, &self.name, &errors))
    }

    /// Checks that the object's namespace is the request's.
    fn fit_namespace(&self, object: &mut Value) -> Result<(), ApiError> {
        let given = meta::text(object, &["metadata", "namespace"]);
        match &self.namespace {
            Some(namespace) if !given.is_empty() && given != namespace => Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            )),
            namespace => {
                let namespace = namespace.as_ref().map(|n| json!(n));
                meta::set(object, "namespace", namespace);
                Ok(())
            }
        }
    }

    /// Removes unknown fields and reports them as `fieldValidation` asks.
    fn prune(&self, object: &mut Value) -> Result<Vec<String>, ApiError> {
        let unknown = self.resource.prune(object);
        let mut warnings = Vec::new();
        match self.query.field_validation()? {
            FieldValidation::Ignore => {}
            FieldValidation::Warn => {
                warnings.extend(unknown.iter().map(|path| format!("unknown field {path:?}")));
            }
            FieldValidation::Strict if unknown.is_empty() => {}
            FieldValidation::Strict => {
                let listed: Vec<String> = unknown.iter().map(|path| format!("unknown field {path:?}")).collect();
                let info = &self.resource.info;
                let why = format!("strict decoding error: {}", listed.join(", "));
                return Err(self.malformed(object, &info.version, &info.kind, &why));
            }
        }
        Ok(warnings)
    }
}

fn patch_options(field: &str, rule: &str, forbidden: bool) -> ApiError {
    let error = if forbidden {
        FieldError::forbidden(field, rule)
    } else {
        FieldError::required(field, rule)
    };
    ApiError::invalid("meta.k8s.io", "PatchOptions", "", &[error])
}
