//! Tests of the comparison between the operator's permissions and an audit log. The end-to-end suite uses that
//! comparison.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use legion_operator::access::TABLE;
use legion_tests::audit::{AccessReport, compare};
use serde_json::{Value, json};

fn event(id: &str, verb: &str, object: Value) -> Value {
    json!({
        "auditID": id, "verb": verb, "requestURI": "/x", "stage": "ResponseComplete", "objectRef": object,
        "user": {"username": "system:serviceaccount:legion-system:legion-operator"},
        "annotations": {"authorization.k8s.io/decision": "allow"},
    })
}

fn report(events: &[Value]) -> AccessReport {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text: String = events.iter().map(|event| format!("{event}\n")).collect();
    fs::write(file.path(), text).unwrap();
    compare(file.path(), "legion-system", "legion-operator", "legion-operator").unwrap()
}

#[test]
fn undeclared_requests_are_missing_and_undemanded_permissions_are_unused() {
    let all: Vec<Value> = TABLE
        .iter()
        .flat_map(|access| access.verbs.iter().map(move |verb| (access, verb)))
        .enumerate()
        .map(|(number, (access, verb))| {
            let (resource, subresource) = access.resource.split_once('/').unwrap_or((&access.resource, ""));
            let object = json!({
                "apiGroup": access.group, "resource": resource, "subresource": subresource,
                "namespace": "legion-system", "name": "legion-operator",
            });
            event(&number.to_string(), verb.as_str(), object)
        })
        .collect();
    let complete = report(&all);
    assert_eq!((complete.missing, complete.unused), (BTreeMap::new(), BTreeSet::new()));
    assert_eq!(complete.requests, all.len());

    let less = report(&all[1..]);
    assert_eq!(less.unused.len(), 1, "{:?}", less.unused);

    let mut refused = all[0].clone();
    refused["auditID"] = "refused".into();
    refused["annotations"]["authorization.k8s.io/decision"] = "forbid".into();
    let secret = json!({"resource": "secrets", "namespace": "demo", "name": "s", "apiVersion": "v1"});
    let lease = json!({
        "apiGroup": "coordination.k8s.io", "resource": "leases", "namespace": "demo", "name": "legion-operator",
    });
    let mut path = event("path", "get", Value::Null);
    path["requestURI"] = "/metrics".into();
    let mut of_another_user = event("else", "delete", secret.clone());
    of_another_user["user"]["username"] = "system:serviceaccount:legion-system:legion-operator-2".into();
    let more = [
        refused,
        event("secret", "get", secret.clone()),
        event("secret", "get", secret),
        event("lease", "update", lease),
        path,
        of_another_user,
    ];
    let found = report(&more);
    let missing: Vec<_> = found
        .missing
        .iter()
        .map(|(words, times)| (words.as_str(), *times))
        .collect();
    assert_eq!(
        missing,
        [
            ("get /metrics", 1),
            ("get modeltrainings of \"legion-platform.org\" in \"legion-system\"", 1),
            ("get secrets of \"\" in \"demo\"", 1),
            ("update leases of \"coordination.k8s.io\" in \"demo\"", 1),
        ]
    );
}

/// While a release is uninstalled, its permissions may be deleted before its replicas stop. An API server that has just
/// started knows no roles yet.
#[test]
fn a_permission_granted_before_and_after_is_not_missing() {
    let lease = |id: &str, verb: &str, decision: &str, second: u32| {
        let lease = json!({"apiGroup": "coordination.k8s.io", "resource": "leases", "namespace": "legion-system", "name": "legion-operator"});
        let mut event = at(event(id, verb, lease), second);
        event["annotations"]["authorization.k8s.io/decision"] = decision.into();
        event
    };
    let refused = |second: u32| {
        // A role grants all verbs of a row together.
        let log = [
            lease("before", "update", "allow", 10),
            lease("refused", "get", "forbid", second),
            lease("after", "update", "allow", 20),
        ];
        report(&log)
    };
    assert_eq!([5, 12, 25].map(|second| refused(second).missing.len()), [1, 0, 1]);
    // A verb that was always refused counts as unused. It may be missing in the role.
    let unused = refused(12).unused;
    assert!(unused.contains("get leases of \"coordination.k8s.io\""), "{unused:?}");
    assert!(
        !unused.contains("update leases of \"coordination.k8s.io\""),
        "{unused:?}"
    );
}

fn at(mut event: Value, second: u32) -> Value {
    let time = format!("2026-01-01T00:00:{second:02}Z");
    event["requestReceivedTimestamp"] = time.clone().into();
    event["stageTimestamp"] = time.into();
    event
}
