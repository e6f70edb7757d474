//! Built-in kinds behave as in the API server.

use serde_json::{Value, json};

use super::*;

const POD: Gvk<'static> = Gvk {
    group: "",
    version: "v1",
    kind: "Pod",
};
const SECRET: Gvk<'static> = Gvk {
    group: "",
    version: "v1",
    kind: "Secret",
};
const CONFIG_MAP: Gvk<'static> = Gvk {
    group: "",
    version: "v1",
    kind: "ConfigMap",
};
const CLAIM: Gvk<'static> = Gvk {
    group: "",
    version: "v1",
    kind: "PersistentVolumeClaim",
};

fn pod(spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n"}, "spec": spec})
}

fn defaulted(mut object: Value, gvk: Gvk<'_>) -> Value {
    default(gvk, &mut object);
    object
}

fn rendered(gvk: Gvk<'_>, new: &Value, old: Option<&Value>) -> Vec<String> {
    validate(gvk, new, old).iter().map(ToString::to_string).collect()
}

#[test]
fn unknown_fields_are_found() {
    let mut object = pod(json!({
        "containers": [{"name": "a", "imag": "x", "env": [{"name": "A", "valeu": "1"}], "resources": {"limits": {"any/thing": "1"}}}],
        "nodeSelector": {"any": "key"}, "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Gi", "odd": 1}}],
    }));
    object["metadata"]["label"] = json!({});
    object["metadata"]["managedFields"] = json!([{"manager": "m", "fieldsV1": {"f:any": {"f:thing": {}}}}]);
    assert_eq!(
        prune(POD, &mut object),
        [
            "metadata.label",
            "spec.containers[0].env[0].valeu",
            "spec.containers[0].imag",
            "spec.volumes[0].emptyDir.odd"
        ]
    );
    assert_eq!(
        object["metadata"]["managedFields"][0]["fieldsV1"],
        json!({"f:any": {"f:thing": {}}})
    );
    assert_eq!(
        object["spec"]["containers"][0]["resources"]["limits"],
        json!({"any/thing": "1"})
    );
}

#[test]
fn crds_keep_their_schemas() {
    let gvk = Gvk::new("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"a": {"type": "object",
        "properties": {"b": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"}},
        "additionalProperties": {"type": "string", "default": {"x": 1}}}}});
    let mut object = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "x.y"},
        "spec": {"group": "y", "scope": "Namespaced", "names": {"kind": "X", "plural": "x"}, "typo": 1, "versions": [
            {"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]},
    });
    assert_eq!(prune(gvk, &mut object), ["spec.typo"]);
    assert_eq!(object["spec"]["versions"][0]["schema"]["openAPIV3Schema"], schema);
}

#[test]
fn pod_defaults() {
    let object = defaulted(
        pod(json!({
            "containers": [{"name": "a", "image": "busybox", "ports": [{"containerPort": 1}], "command": null,
                "resources": {"limits": {"cpu": "1"}}, "readinessProbe": {"httpGet": {"port": 1}}}],
            "volumes": [{"name": "e"}, {"name": "s", "secret": {"secretName": "x"}}], "serviceAccountName": "sa",
        })),
        POD,
    );
    let spec = &object["spec"];
    assert_eq!(spec["restartPolicy"], "Always");
    assert_eq!(spec["dnsPolicy"], "ClusterFirst");
    assert_eq!(spec["terminationGracePeriodSeconds"], 30);
    assert_eq!(spec["schedulerName"], "default-scheduler");
    assert_eq!(spec["securityContext"], json!({}));
    assert_eq!(spec["serviceAccount"], "sa");
    assert_eq!(
        spec["volumes"],
        json!([{"name": "e", "emptyDir": {}}, {"name": "s", "secret": {"secretName": "x", "defaultMode": 420}}])
    );
    assert_eq!(
        spec["containers"][0],
        json!({
            "name": "a", "image": "busybox", "imagePullPolicy": "Always", "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "File", "ports": [{"containerPort": 1, "protocol": "TCP"}],
            "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}},
            "readinessProbe": {"httpGet": {"port": 1, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10,
                "successThreshold": 1, "failureThreshold": 3},
        })
    );
    assert_eq!(defaulted(object.clone(), POD), object);
}

#[test]
fn secrets_store_what_was_written_as_text() {
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "n"},
        "data": {"a": "eA=="}, "stringData": {"a": "new", "b": "hi"}});
    let stored = defaulted(secret, SECRET);
    assert_eq!(stored["data"], json!({"a": "bmV3", "b": "aGk="}));
    assert_eq!(stored.get("stringData"), None);
    assert_eq!(stored["type"], "Opaque");
    assert_eq!(rendered(SECRET, &stored, None), Vec::<String>::new());
}

#[test]
fn values_of_the_wrong_type_are_refused() {
    let object = pod(json!({"containers": [{"name": "a", "image": 1}]}));
    assert_eq!(
        rendered(POD, &object, None),
        [
            r#"spec.containers[0].image: Invalid value: "integer": spec.containers[0].image in body must be of type string: "integer""#
        ]
    );
    let secret = json!({"metadata": {"name": "s"}, "data": {"a": "***"}});
    assert_eq!(
        rendered(SECRET, &secret, None),
        [r#"data.a: Invalid value: "***": data.a in body must be of type byte: "***""#]
    );
}

#[test]
fn pods_are_validated() {
    let good = |container: Value| {
        defaulted(
            pod(json!({"containers": [container], "volumes": [{"name": "v", "emptyDir": {}}]})),
            POD,
        )
    };
    assert_eq!(
        rendered(
            POD,
            &good(
                json!({"name": "a", "image": "x", "volumeMounts": [{"name": "v", "mountPath": "/v"}], "env": [{"name": "A B"}]})
            ),
            None
        ),
        Vec::<String>::new()
    );
    let cases = [
        (pod(json!({})), "spec.containers: Required value"),
        (good(json!({"image": "x"})), "spec.containers[0].name: Required value"),
        (
            good(json!({"name": "A", "image": "x"})),
            r#"spec.containers[0].name: Invalid value: "A": a lowercase RFC 1123 label"#,
        ),
        (good(json!({"name": "a"})), "spec.containers[0].image: Required value"),
        (
            good(json!({"name": "a", "image": "x", "volumeMounts": [{"name": "w", "mountPath": "/v"}]})),
            r#"spec.containers[0].volumeMounts[0].name: Not found: "w""#,
        ),
        (
            good(
                json!({"name": "a", "image": "x", "volumeMounts": [{"name": "v", "mountPath": "/v"}, {"name": "v", "mountPath": "/v"}]}),
            ),
            r#"spec.containers[0].volumeMounts[1].mountPath: Invalid value: "/v": must be unique"#,
        ),
        (
            good(json!({"name": "a", "image": "x", "env": [{"name": "A=B"}]})),
            r#"spec.containers[0].env[0].name: Invalid value: "A=B": a valid environment variable name"#,
        ),
        (
            good(json!({"name": "a", "image": "x", "imagePullPolicy": "Maybe"})),
            r#"spec.containers[0].imagePullPolicy: Unsupported value: "Maybe": supported values: "Always", "IfNotPresent", "Never""#,
        ),
        (
            good(json!({"name": "a", "image": "x", "ports": [{"containerPort": 70000}]})),
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ),
        (
            pod(json!({"containers": [{"name": "a", "image": "x"}, {"name": "a", "image": "x"}]})),
            r#"spec.containers[1].name: Duplicate value: "a""#,
        ),
        (
            pod(json!({"containers": [{"name": "a", "image": "x"}], "initContainers": [{"name": "a", "image": "x"}]})),
            r#"spec.initContainers[0].name: Duplicate value: "a""#,
        ),
        (
            pod(
                json!({"containers": [{"name": "a", "image": "x"}], "volumes": [{"name": "v", "secret": {}, "emptyDir": {}}]}),
            ),
            "spec.volumes[0].secret: Forbidden: may not specify more than 1 volume type",
        ),
        (
            pod(
                json!({"containers": [{"name": "a", "image": "x"}], "volumes": [{"name": "v", "persistentVolumeClaim": {}}]}),
            ),
            "spec.volumes[0].persistentVolumeClaim.claimName: Required value",
        ),
        (
            pod(json!({"containers": [{"name": "a", "image": "x"}], "restartPolicy": "Sometimes"})),
            r#"spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "Never", "OnFailure""#,
        ),
        (
            pod(json!({"containers": [{"name": "a", "image": "x"}], "activeDeadlineSeconds": 0})),
            "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
        ),
    ];
    for (object, expected) in cases {
        let found = rendered(POD, &object, None);
        assert!(found.iter().any(|f| f.starts_with(expected)), "{expected}: {found:#?}");
    }
}

#[test]
fn little_of_a_running_pod_can_change() {
    let old = defaulted(
        pod(json!({"containers": [{"name": "a", "image": "x"}], "activeDeadlineSeconds": 100})),
        POD,
    );
    let edit = |path: &str, value: Value| {
        let mut new = old.clone();
        *new.pointer_mut(path).unwrap() = value;
        rendered(POD, &new, Some(&old))
    };
    assert_eq!(edit("/spec/containers/0/image", json!("y")), Vec::<String>::new());
    assert_eq!(edit("/spec/activeDeadlineSeconds", json!(50)), Vec::<String>::new());
    assert_eq!(
        edit("/spec/activeDeadlineSeconds", json!(500)),
        ["spec.activeDeadlineSeconds: Invalid value: 500: must be less than or equal to previous value"]
    );
    let found = edit("/spec/restartPolicy", json!("Never"));
    assert!(
        found[0]
            .starts_with("spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"),
        "{found:?}"
    );
    let mut more = old.clone();
    more["spec"]["containers"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "b", "image": "x"}));
    assert_eq!(
        rendered(POD, &more, Some(&old)),
        ["spec.containers: Forbidden: pod updates may not add or remove containers"]
    );
    let mut tolerant = old.clone();
    tolerant["spec"]["tolerations"] = json!([{"key": "k", "operator": "Exists"}]);
    assert_eq!(rendered(POD, &tolerant, Some(&old)), Vec::<String>::new());
    assert_eq!(rendered(POD, &old, Some(&tolerant)).len(), 1);
}

#[test]
fn immutable_data_stays() {
    let object = |data: &str| json!({"metadata": {"name": "c"}, "data": {"a": data}, "immutable": true});
    for gvk in [CONFIG_MAP, SECRET] {
        let (old, new) = (object("eA=="), object("eQ=="));
        assert_eq!(rendered(gvk, &old, Some(&old)), Vec::<String>::new());
        assert_eq!(
            rendered(gvk, &new, Some(&old)),
            ["data: Forbidden: field is immutable when `immutable` is set"]
        );
    }
    let bad = json!({"metadata": {"name": "c"}, "data": {"a b": "x", "..c": "y"}});
    let found = rendered(CONFIG_MAP, &bad, None);
    assert!(
        found[1].starts_with(r#"data[a b]: Invalid value: "a b": a valid config key"#),
        "{found:?}"
    );
    assert_eq!(found[0], r#"data[..c]: Invalid value: "..c": must not start with '..'"#);
}

#[test]
fn claims_are_validated() {
    let claim = |modes: Value| json!({"metadata": {"name": "c"}, "spec": {"accessModes": modes, "resources": {"requests": {"storage": "1Gi"}}}});
    assert_eq!(
        rendered(CLAIM, &claim(json!(["ReadWriteOnce"])), None),
        Vec::<String>::new()
    );
    assert_eq!(
        rendered(CLAIM, &claim(json!(["Sometimes"])), None),
        [
            r#"spec.accessModes: Unsupported value: "Sometimes": supported values: "ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod""#
        ]
    );
    let found = rendered(
        CLAIM,
        &claim(json!(["ReadWriteMany"])),
        Some(&claim(json!(["ReadWriteOnce"]))),
    );
    assert!(
        found[0].starts_with("spec: Forbidden: spec is immutable after creation"),
        "{found:?}"
    );
    let bound = defaulted(claim(json!(["ReadWriteOnce"])), CLAIM);
    assert_eq!(
        (&bound["status"]["phase"], &bound["spec"]["volumeMode"]),
        (&json!("Pending"), &json!("Filesystem"))
    );
}

#[test]
fn kinds_that_are_not_built_in_are_left_alone() {
    let gvk = Gvk::new("example.com", "v1", "Widget");
    let mut object = json!({"anything": {"goes": null}});
    assert!(prune(gvk, &mut object).is_empty());
    default(gvk, &mut object);
    assert_eq!(object, json!({"anything": {"goes": null}}));
    assert!(!knows(gvk) && types(gvk).is_none());
}
