//! Garbage collection of dependents, namespaces and old events, under paused time.

use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Namespace};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, PropagationPolicy};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};
use kube::{Client, ResourceExt};
use kube_embed::gc::{EVENT_TTL, GarbageCollector};
use kube_embed::{Embedded, TokioClock};
use serde_json::{Value, json};

struct World {
    _embedded: Embedded,
    _collector: GarbageCollector,
    client: Client,
}

async fn world() -> World {
    let clock = std::sync::Arc::new(TokioClock::starting_at("2026-01-01T00:00:00Z".parse().unwrap()));
    let embedded = Embedded::builder().clock(clock.clone()).seed(1).build().await.unwrap();
    let client = embedded.client("default");
    World {
        _collector: GarbageCollector::start(client.clone(), clock),
        _embedded: embedded,
        client,
    }
}

impl World {
    fn maps(&self) -> Api<ConfigMap> {
        Api::default_namespaced(self.client.clone())
    }

    async fn map(&self, name: &str, owners: &[Value], finalizers: &[&str]) -> ConfigMap {
        let map = json!({"metadata": {"name": name, "ownerReferences": owners, "finalizers": finalizers}});
        self.maps()
            .create(&PostParams::default(), &serde_json::from_value(map).unwrap())
            .await
            .unwrap()
    }

    async fn delete(&self, name: &str, policy: PropagationPolicy) {
        let params = DeleteParams {
            propagation_policy: Some(policy),
            ..DeleteParams::default()
        };
        let _ = self.maps().delete(name, &params).await.unwrap();
    }

    async fn names(&self) -> Vec<String> {
        let list = self.maps().list(&ListParams::default()).await.unwrap();
        list.into_iter()
            .map(|m| m.name_any())
            .filter(|n| n != "kube-root-ca.crt")
            .collect()
    }

    /// Waits until exactly these ConfigMaps exist.
    async fn until(&self, expected: &[&str]) {
        let mut changes = std::pin::pin!(watcher(self.maps(), watcher::Config::default()).default_backoff());
        let reached = async {
            while self.names().await != expected {
                changes.next().await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(600), reached).await.is_err() {
            panic!("ConfigMaps {:?} exist instead of {expected:?}", self.names().await);
        }
    }

    /// Returns the names after ten minutes, when all collection is finished.
    async fn settled(&self) -> Vec<String> {
        tokio::time::sleep(Duration::from_secs(600)).await;
        self.names().await
    }

    async fn release(&self, name: &str) {
        let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        self.maps().patch(name, &PatchParams::default(), &patch).await.unwrap();
    }
}

fn owner(map: &ConfigMap, block: bool) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "name": map.name_any(), "uid": map.uid(), "blockOwnerDeletion": block})
}

#[tokio::test(start_paused = true)]
async fn background_deletion_deletes_indirect_dependents_too() {
    let world = world().await;
    let a = world.map("a", &[], &[]).await;
    let b = world.map("b", &[owner(&a, false)], &[]).await;
    world.map("c", &[owner(&b, false)], &[]).await;
    world.map("other", &[], &[]).await;
    assert_eq!(world.settled().await, ["a", "b", "c", "other"]);
    world.delete("a", PropagationPolicy::Background).await;
    world.until(&["other"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_dependent_exists_as_long_as_one_of_its_owners() {
    let world = world().await;
    let (a, b) = (world.map("a", &[], &[]).await, world.map("b", &[], &[]).await);
    world.map("c", &[owner(&a, false), owner(&b, false)], &[]).await;
    world.delete("a", PropagationPolicy::Background).await;
    assert_eq!(world.settled().await, ["b", "c"]);
    let owners = world.maps().get("c").await.unwrap().metadata.owner_references.unwrap();
    assert_eq!(owners.iter().map(|o| o.name.as_str()).collect::<Vec<_>>(), ["b"]);
    world.delete("b", PropagationPolicy::Background).await;
    world.until(&[]).await;
}

#[tokio::test(start_paused = true)]
async fn an_owner_is_identified_by_its_uid() {
    let world = world().await;
    let a = world.map("a", &[], &[]).await;
    let mut stranger = owner(&a, false);
    stranger["uid"] = json!("00000000-0000-0000-0000-000000000000");
    let mut unknown = owner(&a, false);
    unknown["kind"] = json!("Nothing");
    unknown["apiVersion"] = json!("example.com/v1");
    unknown["uid"] = json!("11111111-0000-0000-0000-000000000000");
    world.map("b", &[stranger], &[]).await;
    world.map("c", &[unknown], &[]).await;
    world.until(&["a"]).await;
}

#[tokio::test(start_paused = true)]
async fn foreground_deletion_waits_for_blocking_dependents() {
    let world = world().await;
    let a = world.map("a", &[], &[]).await;
    world.map("blocks", &[owner(&a, true)], &["example.com/hold"]).await;
    world.map("free", &[owner(&a, false)], &["example.com/hold"]).await;
    world.delete("a", PropagationPolicy::Foreground).await;
    assert_eq!(world.settled().await, ["a", "blocks", "free"]);
    assert!(
        world
            .maps()
            .get("blocks")
            .await
            .unwrap()
            .metadata
            .deletion_timestamp
            .is_some()
    );
    world.release("blocks").await;
    world.until(&["free"]).await;
    world.release("free").await;
    world.until(&[]).await;
}

#[tokio::test(start_paused = true)]
async fn orphans_lose_the_reference_to_their_owner() {
    let world = world().await;
    let a = world.map("a", &[], &[]).await;
    world.map("b", &[owner(&a, true)], &[]).await;
    world.settled().await;
    world.delete("a", PropagationPolicy::Orphan).await;
    world.until(&["b"]).await;
    assert_eq!(world.settled().await, ["b"]);
    assert_eq!(
        world
            .maps()
            .get("b")
            .await
            .unwrap()
            .metadata
            .owner_references
            .unwrap_or_default(),
        []
    );
}

#[tokio::test(start_paused = true)]
async fn a_dependent_created_after_the_deletion_of_its_owner_is_collected() {
    let world = world().await;
    let a = world.map("a", &[], &[]).await;
    world.delete("a", PropagationPolicy::Background).await;
    world.until(&[]).await;
    world.map("late", &[owner(&a, false)], &[]).await;
    world.until(&[]).await;
}

#[tokio::test(start_paused = true)]
async fn objects_of_a_new_kind_are_collected_too() {
    let world = world().await;
    world.settled().await;
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "things.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"}, "versions": [{
            "name": "v1", "served": true, "storage": true,
            "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
        }]},
    });
    let crds: Api<kube::api::DynamicObject> = Api::all_with(
        world.client.clone(),
        &resource(
            "apiextensions.k8s.io",
            "CustomResourceDefinition",
            "customresourcedefinitions",
        ),
    );
    crds.create(&PostParams::default(), &serde_json::from_value(definition).unwrap())
        .await
        .unwrap();
    let things: Api<kube::api::DynamicObject> =
        Api::default_namespaced_with(world.client.clone(), &resource("example.com", "Thing", "things"));
    let thing = json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "t"}});
    let thing = tokio::time::timeout(Duration::from_secs(60), async {
        // The kind is served after the CRD is established.
        loop {
            match things
                .create(&PostParams::default(), &serde_json::from_value(thing.clone()).unwrap())
                .await
            {
                Ok(thing) => return thing,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    });
    let thing = thing.await.unwrap();
    let reference = json!({"apiVersion": "example.com/v1", "kind": "Thing", "name": "t", "uid": thing.metadata.uid});
    world.map("m", &[reference], &[]).await;
    assert_eq!(world.settled().await, ["m"]);
    let _ = things.delete("t", &DeleteParams::default()).await.unwrap();
    world.until(&[]).await;
}

fn resource(group: &str, kind: &str, plural: &str) -> kube::api::ApiResource {
    kube::api::ApiResource {
        group: group.into(),
        version: "v1".into(),
        api_version: format!("{group}/v1"),
        kind: kind.into(),
        plural: plural.into(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_namespace_is_emptied_before_it_is_deleted() {
    let world = world().await;
    let namespaces: Api<Namespace> = Api::all(world.client.clone());
    let namespace = serde_json::from_value(json!({"metadata": {"name": "n"}})).unwrap();
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(world.client.clone(), "n");
    for (name, finalizers) in [("plain", json!([])), ("held", json!(["example.com/hold"]))] {
        let map = json!({"metadata": {"name": name, "finalizers": finalizers}});
        maps.create(&PostParams::default(), &serde_json::from_value(map).unwrap())
            .await
            .unwrap();
    }
    let _ = namespaces.delete("n", &DeleteParams::default()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    let left = namespaces.get("n").await.unwrap();
    assert_eq!(left.status.unwrap().phase.as_deref(), Some("Terminating"));
    let names: Vec<_> = maps
        .list(&ListParams::default())
        .await
        .unwrap()
        .into_iter()
        .map(|m| m.name_any())
        .collect();
    assert_eq!(names, ["held"]);
    let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    maps.patch("held", &PatchParams::default(), &patch).await.unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(namespaces.get_opt("n").await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn events_are_kept_for_an_hour() {
    let world = world().await;
    let events: Api<Event> = Api::default_namespaced(world.client.clone());
    for name in ["old", "new"] {
        let event =
            json!({"metadata": {"name": name}, "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"}});
        events
            .create(&PostParams::default(), &serde_json::from_value(event).unwrap())
            .await
            .unwrap();
        tokio::time::sleep(EVENT_TTL / 2).await;
    }
    // Timestamps of events have whole seconds.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let names: Vec<_> = events
        .list(&ListParams::default())
        .await
        .unwrap()
        .into_iter()
        .map(|e| e.name_any())
        .collect();
    assert_eq!(names, ["new"]);
}
