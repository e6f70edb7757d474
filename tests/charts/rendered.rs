//! The rendered charts.

use std::{collections::BTreeSet, fs};

use legion_operator::access::{TABLE, Verb};
use legion_tests::{local::repository, tool::helm};
use rstest::rstest;
use serde_json::{Value, json};

use crate::helm::{NAMESPACE, objects, template};

#[rstest]
#[case("legion-crds")]
#[case("legion")]
fn helm_finds_nothing_to_say_against_it(#[case] chart: &str) -> anyhow::Result<()> {
    let said = helm(&["lint", "--strict", &format!("charts/{chart}")])?;
    assert!(said.contains("1 chart(s) linted, 0 chart(s) failed"), "{said}");
    Ok(())
}

/// Compares the rendered charts with the recorded ones. `UPDATE=1` writes them.
#[rstest]
#[case("default", None)]
#[case("list", Some("list"))]
#[case("own", Some("own"))]
#[case("openshift", Some("openshift"))]
#[case("everything", Some("everything"))]
fn it_renders_what_is_recorded(#[case] name: &str, #[case] values: Option<&str>) -> anyhow::Result<()> {
    let file = repository().join(format!("tests/charts/rendered/{name}.yaml"));
    // Objects that only ship a file are compared with that file.
    let ships =
        |document: &&str| document.contains("\nkind: PrometheusRule\n") || document.contains("-operator-dashboard\n");
    let rendered = template("legion", values)?;
    let documents: Vec<&str> = rendered.split("\n---\n").filter(|document| !ships(document)).collect();
    let is = documents.join("\n---\n");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&file, &is)?;
        return Ok(());
    }
    let was = fs::read_to_string(&file).unwrap_or_default();
    let first = was.lines().zip(is.lines()).position(|(was, is)| was != is);
    assert!(
        was == is,
        "{} differs at line {:?}: `UPDATE=1 cargo test -p legion-tests --test charts` updates it; `git diff` then shows what has \
         changed",
        file.display(),
        first.map(|line| line + 1)
    );
    Ok(())
}

/// Checks the dashboard and the alerts byte for byte: Helm must not take any part of them for a template.
#[test]
fn dashboard_and_alerts_are_shipped_unchanged() -> anyhow::Result<()> {
    let rendered = objects(&template("legion", Some("everything"))?)?;
    let of_kind = |kind: &str| {
        rendered
            .iter()
            .find(|object| object["kind"] == kind)
            .cloned()
            .unwrap_or_default()
    };
    let file = |name: &str| fs::read_to_string(repository().join("charts/legion/files").join(name)).unwrap_or_default();
    let alerts = objects(&file("alerts.yaml"))?.pop().unwrap_or_else(|| json!({}));
    assert_eq!(of_kind("PrometheusRule")["spec"], alerts);
    let shipped = &of_kind("ConfigMap")["data"]["legion-operator.json"];
    assert_eq!(shipped.as_str(), Some(file("dashboard.json").trim()));
    Ok(())
}

#[test]
fn the_charts_ship_the_crds_of_the_repository() -> anyhow::Result<()> {
    let mut rendered = objects(&template("legion-crds", None)?)?;
    let mut ours = Vec::new();
    for entry in fs::read_dir(repository().join("crds"))? {
        ours.extend(objects(&fs::read_to_string(entry?.path())?)?);
    }
    let name = |crd: &Value| crd["metadata"]["name"].to_string();
    rendered.sort_by_key(name);
    ours.sort_by_key(name);
    for crd in &rendered {
        assert_eq!(crd["metadata"]["annotations"]["helm.sh/resource-policy"], "keep");
    }
    let bare = |mut crd: Value| {
        let metadata = crd["metadata"].as_object_mut().unwrap();
        metadata.remove("labels");
        metadata.remove("annotations");
        crd
    };
    let rendered: Vec<_> = rendered.into_iter().map(bare).collect();
    assert!(
        rendered == ours && ours.len() == 3,
        "charts/legion-crds differs from crds/"
    );
    let dropped = helm(&["template", "legion-crds", "charts/legion-crds", "--set", "keep=false"])?;
    assert!(!dropped.contains("resource-policy"), "keep=false leaves no policy");
    Ok(())
}

/// Returns the rules of the operator's roles as (kind and namespace of the role, group, resource, verb, names).
fn permissions(manifest: &str) -> anyhow::Result<BTreeSet<[String; 5]>> {
    let mut found = BTreeSet::new();
    for role in objects(manifest)? {
        let kind = role["kind"].as_str().unwrap_or_default();
        let is_for_users = role["metadata"]["labels"]
            .as_object()
            .is_some_and(|labels| labels.keys().any(|label| label.contains("aggregate-to")));
        if !matches!(kind, "Role" | "ClusterRole") || is_for_users {
            continue;
        }
        let place = role["metadata"]["namespace"].as_str().unwrap_or("everywhere");
        for rule in role["rules"].as_array().into_iter().flatten() {
            let list = |field: &str| {
                let values = rule[field].as_array().cloned().unwrap_or_default();
                values
                    .iter()
                    .filter_map(Value::as_str)
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            };
            assert!(rule.get("nonResourceURLs").is_none(), "{rule}");
            for group in list("apiGroups") {
                for resource in list("resources") {
                    for verb in list("verbs") {
                        let names = list("resourceNames").join(",");
                        found.insert([place.to_owned(), group.clone(), resource.clone(), verb, names]);
                    }
                }
            }
        }
    }
    Ok(found)
}

#[rstest]
#[case(None, "everywhere")]
#[case(Some("list"), "red")]
#[case(Some("list"), "blue")]
#[case(Some("own"), NAMESPACE)]
fn the_roles_are_the_table_and_nothing_else(#[case] values: Option<&str>, #[case] served: &str) -> anyhow::Result<()> {
    let rendered = permissions(&template("legion", values)?)?;
    for [place, group, resource, verb, names] in &rendered {
        for text in [group, resource, verb] {
            assert!(
                !text.contains('*'),
                "{verb} {resource} of {group} in {place}: a wildcard"
            );
        }
        assert_ne!(resource, "secrets", "{verb} of secrets in {place}");
        let row = TABLE.iter().find(|access| {
            access.group == group && access.resource == *resource && access.verbs.iter().any(|it| it.as_str() == verb)
        });
        let row = row.unwrap_or_else(|| panic!("{verb} {resource} of {group} in {place} is not in the table"));
        assert_eq!(
            names == "legion-operator",
            row.only_lease,
            "{verb} {resource} of {group}"
        );
        assert!(
            row.group != "coordination.k8s.io" || place == NAMESPACE,
            "a lease in {place}"
        );
    }
    let has = |place: &str, group: &str, resource: &str, verb: Verb| {
        rendered
            .iter()
            .any(|it| it[0] == place && it[1] == group && it[2] == resource && it[3] == verb.as_str())
    };
    for access in TABLE.iter() {
        for verb in access.verbs {
            let place = if access.place == legion_operator::access::Place::Platform {
                NAMESPACE
            } else {
                served
            };
            assert!(
                has(place, access.group, &access.resource, *verb),
                "{access:?} {verb:?} in {place}"
            );
        }
    }
    if values.is_some() {
        assert!(
            rendered.iter().all(|it| it[0] != "everywhere"),
            "no ClusterRole outside of mode All"
        );
        assert!(has(
            NAMESPACE,
            "legion-platform.org",
            "toolchainintegrations",
            Verb::Watch
        ));
    }
    Ok(())
}

#[test]
fn without_aggregated_roles_and_mode_all_no_role_is_cluster_wide() -> anyhow::Result<()> {
    for values in ["list", "own"] {
        for object in objects(&template("legion", Some(values))?)? {
            assert!(
                object["metadata"]["namespace"].is_string(),
                "{values}: {} {} is cluster-wide",
                object["kind"],
                object["metadata"]["name"]
            );
        }
    }
    Ok(())
}
