//! DELETE of objects and collections.

use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::{self, ResponseBody};
use super::request::{ApiResult, ResourceRequest};
use super::server::ApiServer;
use super::{crd, kinds, meta};
use crate::clock;
use crate::schema::FieldError;
use crate::status::ApiError;
use crate::store::{Change, CommitError, ListQuery, Listed, Object, ObjectKey, Precondition};

/// `metav1.DeleteOptions`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DeleteOptions {
    grace_period_seconds: Option<i64>,
    preconditions: Option<Preconditions>,
    propagation_policy: Option<String>,
    orphan_dependents: Option<bool>,
    dry_run: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Preconditions {
    uid: Option<String>,
    resource_version: Option<String>,
}

/// The result of a deletion.
enum Deletion {
    /// The object was deleted. This was its last state.
    Gone(Arc<Object>),
    /// The object has a deletionTimestamp. It is deleted when its finalizers are removed or its node confirms the end.
    Marked(Arc<Object>),
}

impl ResourceRequest {
    pub(super) async fn delete(&self, body: &Bytes) -> ApiResult {
        let options = self.delete_options(body)?;
        let deletion = self
            .delete_one(&self.key(), &options)?
            .ok_or_else(|| self.not_found())?;
        match deletion {
            Deletion::Marked(object) => self.reply(200, &object).await,
            // These kinds answer with their last state. Other kinds answer with a Status, as in Kubernetes.
            Deletion::Gone(object)
                if matches!(
                    self.resource.info.kind.as_str(),
                    "Pod" | "PersistentVolumeClaim" | "ServiceAccount"
                ) && self.resource.info.group.is_empty() =>
            {
                self.reply(200, &object).await
            }
            Deletion::Gone(object) => {
                self.server.durable(object.version()).await?;
                Ok(self.gone(&object))
            }
        }
    }

    fn gone(&self, object: &Object) -> Response<ResponseBody> {
        let info = &self.resource.info;
        let mut details = json!({"name": self.name, "kind": info.plural, "uid": meta::uid(object.value())});
        if !info.group.is_empty() {
            details["group"] = json!(info.group);
        }
        body::json(
            200,
            &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}),
        )
    }

    pub(super) async fn delete_collection(&self, body: &Bytes) -> ApiResult {
        let options = self.delete_options(body)?;
        let selector = self.selector()?;
        let filter = |object: &Object| self.selects(&selector, object);
        let query = ListQuery {
            namespace: self.namespace.as_deref(),
            after: None,
            at: None,
            limit: None,
            filter: Some(&filter),
        };
        let listed = self
            .server
            .store
            .list(&self.resource.collection, &query)
            .map_err(|e| ApiError::internal(format!("cannot list the current state: {e:?}")))?;
        let mut items = Vec::with_capacity(listed.items.len());
        for object in &listed.items {
            match self.delete_one(object.key(), &options)? {
                // The response shows deleted objects in their last state.
                Some(Deletion::Gone(_)) => items.push(Arc::clone(object)),
                Some(Deletion::Marked(object)) => items.push(object),
                None => {}
            }
        }
        let version = self.server.store.version();
        self.server.durable(version).await?;
        Ok(self.show(&Listed {
            items,
            version,
            more: false,
            remaining: None,
        }))
    }

    fn delete_options(&self, body: &Bytes) -> Result<DeleteOptions, ApiError> {
        let mut options: DeleteOptions = if body.is_empty() {
            DeleteOptions::default()
        } else {
            serde_json::from_value(self.decode(body)?)
                .map_err(|e| ApiError::bad_request(format!("the body is not a valid DeleteOptions: {e}")))?
        };
        if let Some(seconds) = self.query.integer("gracePeriodSeconds")? {
            options.grace_period_seconds = Some(seconds);
        }
        if let Some(policy) = self.query.get("propagationPolicy") {
            options.propagation_policy = Some(policy.to_owned());
        }
        if self.query.dry_run()? {
            options.dry_run = vec!["All".into()];
        }
        let fault = |error| Err(ApiError::invalid("meta.k8s.io", "DeleteOptions", "", &[error]));
        match options.propagation_policy.as_deref() {
            Some(policy) if options.orphan_dependents.is_some() => {
                return fault(FieldError::invalid(
                    "propagationPolicy",
                    json!(policy),
                    "orphanDependents and deletionPropagation cannot be both set",
                ));
            }
            None | Some("Background" | "Foreground" | "Orphan") => {}
            Some(other) => {
                return fault(FieldError::not_supported(
                    "propagationPolicy",
                    other,
                    ["Foreground", "Background", "Orphan", "nil"],
                ));
            }
        }
        if options.dry_run.iter().any(|d| d != "All") {
            return fault(FieldError::not_supported("dryRun", json!(options.dry_run), ["All"]));
        }
        Ok(options)
    }

    /// Deletes an object or sets its deletionTimestamp. Returns `None` if it does not exist.
    fn delete_one(&self, key: &ObjectKey, options: &DeleteOptions) -> Result<Option<Deletion>, ApiError> {
        let info = &self.resource.info;
        if kinds::is_namespace(info) && super::server::NAMESPACES.contains(&key.name.as_str()) {
            return Err(ApiError::forbidden(
                info,
                &key.name,
                "this namespace may not be deleted",
            ));
        }
        // Each retry means that another writer has changed the object, so the loop as a whole makes progress.
        loop {
            let Some(live) = self.server.store.get(&self.resource.collection, key) else {
                return Ok(None);
            };
            check_preconditions(info, &live, options.preconditions.as_ref())?;
            let change = self.deletion(live.value(), options);
            if !options.dry_run.is_empty() {
                return Ok(Some(match change {
                    None => Deletion::Marked(live),
                    Some(Change::Put(value)) => Deletion::Marked(Arc::new(Object::transient(key.clone(), value))),
                    Some(Change::Remove(value)) => Deletion::Gone(Arc::new(Object::transient(key.clone(), value))),
                }));
            }
            let Some(change) = change else {
                return Ok(Some(Deletion::Marked(live)));
            };
            let gone = matches!(change, Change::Remove(_));
            match self.commit(key, Precondition::Version(live.version()), change) {
                Ok(object) => {
                    if self.resource.is_crd() {
                        return Ok(Some(self.purge(object)));
                    }
                    if gone {
                        self.server.after_removal(&self.resource);
                        return Ok(Some(Deletion::Gone(object)));
                    }
                    return Ok(Some(Deletion::Marked(object)));
                }
                Err(CommitError::Conflict) => {}
                Err(CommitError::NotFound) => return Ok(None),
                Err(error) => return Err(self.refused(&error)),
            }
        }
    }

    /// Returns the change for this deletion, or `None` if the object is already being deleted and nothing changes.
    fn deletion(&self, live: &Value, options: &DeleteOptions) -> Option<Change> {
        let info = &self.resource.info;
        let mut new = live.clone();
        let mut finalizers: Vec<&str> = meta::finalizers(live);
        let policy = match (options.propagation_policy.as_deref(), options.orphan_dependents) {
            (Some(policy), _) => policy,
            (None, Some(true)) => "Orphan",
            (None, _) => "Background",
        };
        if options.propagation_policy.is_some() || options.orphan_dependents.is_some() {
            finalizers.retain(|f| !matches!(*f, "foregroundDeletion" | "orphan"));
            match policy {
                "Foreground" => finalizers.push("foregroundDeletion"),
                "Orphan" => finalizers.push("orphan"),
                _ => {}
            }
        }
        if self.resource.is_crd() && !meta::is_deleting(live) && !finalizers.contains(&crd::CLEANUP) {
            finalizers.push(crd::CLEANUP);
        }
        let held = !finalizers.is_empty();
        if finalizers != meta::finalizers(live) {
            let list = held.then(|| json!(finalizers));
            meta::set(&mut new, "finalizers", list);
        }
        let now = self.server.clock().now();
        let grace = kinds::grace_period(info, live, options.grace_period_seconds);
        let terminating = meta::is_deleting(live);
        // A second deletion can only shorten the remaining grace period.
        let shorter = meta::grace_period(live).is_none_or(|before| grace < before);
        if grace == 0 && !held && kinds::may_go(info, live) {
            return Some(Change::Remove(new));
        }
        if !terminating || (shorter && kinds::is_pod(info)) {
            // Time stays representable: a grace period is at most a 63-bit number of seconds, and the clock saturates.
            let at = now
                .checked_add(jiff::SignedDuration::from_secs(grace))
                .unwrap_or(jiff::Timestamp::MAX);
            meta::set(&mut new, "deletionTimestamp", Some(json!(clock::seconds(at))));
            meta::set(&mut new, "deletionGracePeriodSeconds", Some(json!(grace)));
            if info.generation && !terminating {
                meta::set(&mut new, "generation", Some(json!(meta::generation(live) + 1)));
            }
            if kinds::is_namespace(info) {
                meta::section(&mut new, "status").insert("phase".into(), json!("Terminating"));
            }
            if self.resource.is_crd() {
                self.server.describe_crd(&mut new);
            }
        }
        (new != *live).then_some(Change::Put(new))
    }

    /// Deletes the objects of a CRD that is being deleted, and then the CRD itself when no object is left.
    fn purge(&self, marked: Arc<Object>) -> Deletion {
        let names = &marked.value()["spec"];
        let (group, plural) = (meta::text(names, &["group"]), meta::text(names, &["names", "plural"]));
        let served: Vec<_> = self
            .server
            .registry()
            .all()
            .iter()
            .filter(|r| r.info.custom && r.info.group == group && r.info.plural == plural)
            .cloned()
            .collect();
        if let Some(resource) = served.into_iter().next() {
            let objects = self
                .server
                .store
                .list(&resource.collection, &ListQuery::default())
                .map(|l| l.items)
                .unwrap_or_default();
            let call = ResourceRequest {
                server: Arc::clone(&self.server),
                resource,
                namespace: None,
                name: String::new(),
                subresource: None,
                query: super::query::Query::default(),
                accept: self.accept,
                content_type: String::new(),
                agent: String::new(),
            };
            for object in objects {
                if let Err(error) = call.delete_one(object.key(), &DeleteOptions::default()) {
                    tracing::warn!(%error, key = ?object.key(), "cannot delete an object of a deleted CRD");
                }
            }
        }
        self.server
            .finish_crd(marked.key(), &format!("{group}/{plural}"))
            .map_or(Deletion::Marked(marked), Deletion::Gone)
    }
}

impl ApiServer {
    /// Removes a CRD that is being deleted and has no objects left.
    pub(super) fn finish_crd(&self, key: &ObjectKey, collection: &str) -> Option<Arc<Object>> {
        loop {
            let live = self.store.get(super::registry::CRDS, key)?;
            if !meta::is_deleting(live.value()) || self.store.count(collection) > 0 {
                return None;
            }
            let mut new = (**live.value()).clone();
            let rest: Vec<&str> = meta::finalizers(live.value())
                .into_iter()
                .filter(|f| *f != crd::CLEANUP)
                .collect();
            let gone = rest.is_empty();
            meta::set(&mut new, "finalizers", Some(json!(rest)));
            let change = if gone { Change::Remove(new) } else { Change::Put(new) };
            match self.store.commit(
                super::registry::CRDS,
                key,
                Precondition::Version(live.version()),
                change,
            ) {
                Ok(object) => {
                    self.reload_crds();
                    if gone {
                        self.store.remove_collection(collection);
                    }
                    return gone.then_some(object);
                }
                Err(CommitError::Conflict) => {}
                Err(error) => {
                    tracing::warn!(%error, crd = key.name, "cannot remove the CRD");
                    return None;
                }
            }
        }
    }
}

fn check_preconditions(
    info: &crate::resource::ResourceInfo,
    live: &Object,
    preconditions: Option<&Preconditions>,
) -> Result<(), ApiError> {
    let Some(Preconditions { uid, resource_version }) = preconditions else {
        return Ok(());
    };
    let (name, value) = (&live.key().name, live.value());
    let check = |what: &str, asked: &Option<String>, actual: &str, guess: &str| match asked {
        Some(asked) if asked != actual => {
            // Kubernetes reports the kind here. Elsewhere it reports the resource.
            let named = crate::resource::ResourceInfo {
                plural: info.kind.clone(),
                ..info.clone()
            };
            Err(ApiError::conflict(
                &named,
                name,
                format!(
                    "the {what} in the precondition ({asked}) does not match the {what} in record ({actual}). {guess}"
                ),
            ))
        }
        _ => Ok(()),
    };
    let again = "The object might have been deleted and then recreated";
    check("UID", uid, meta::uid(value), again)?;
    let modified = "The object might have been modified";
    check("ResourceVersion", resource_version, meta::version(value), modified)
}
