//! Wrong values are refused. The error names the field.

use rstest::rstest;

use legion_tests::tool::run_helm;

#[rstest]
#[case::unknown("legion", "replica=2", &["replica", "not allowed"])]
#[case::unknown_below("legion", "image.repository=x", &["/image", "repository"])]
#[case::unknown_toolchain("legion", "toolchains.pytorch.enabled=true", &["/toolchains", "pytorch"])]
#[case::of_another_type("legion", "replicas=two", &["/replicas", "integer"])]
#[case::negative("legion", "replicas=-1", &["/replicas", "minimum"])]
#[case::no_choice("legion", "watch.mode=all", &["/watch/mode", "'All', 'List', 'Own'"])]
#[case::list_without_names("legion", "watch.mode=List", &["/watch/namespaces"])]
#[case::names_without_list("legion", "watch.namespaces={red}", &["/watch/namespaces"])]
#[case::no_namespace("legion", "watch.namespaces={Red_1}", &["/watch/namespaces/0", "pattern"])]
#[case::root("legion", "trainings.runAsUser=0", &["/trainings/runAsUser", "minimum"])]
#[case::registry_with_scheme("legion", "image.registry=https://x.example.com", &["/image/registry", "pattern"])]
#[case::no_digest("legion", "image.digests.agent=sha256:12", &["/image/digests/agent", "pattern"])]
#[case::pull_policy("legion", "image.pullPolicy=Sometimes", &["/image/pullPolicy", "'Always', 'IfNotPresent', 'Never'"])]
#[case::no_quantity("legion", "resources.limits.memory=1GB", &["/resources/limits/memory"])]
#[case::log_format("legion", "log.format=xml", &["/log/format", "'json', 'text'"])]
#[case::no_port("legion", "networkPolicy.apiServerPorts={70000}", &["/networkPolicy/apiServerPorts/0"])]
#[case::nothing_to_monitor(
    "legion",
    "metrics.serviceMonitor.enabled=true,metrics.service.enabled=false",
    &["metrics.serviceMonitor.enabled needs metrics.service.enabled"]
)]
#[case::crds("legion-crds", "keep=maybe", &["/keep", "boolean"])]
#[case::crds_unknown("legion-crds", "kep=true", &["kep", "not allowed"])]
fn a_wrong_value_is_refused(#[case] chart: &str, #[case] set: &str, #[case] words: &[&str]) -> anyhow::Result<()> {
    let said = run_helm(&["template", chart, &format!("charts/{chart}"), "--set", set])?;
    assert!(!said.ok, "{set} is accepted");
    for word in words {
        assert!(said.all.contains(word), "{set}: {word:?} is not in: {}", said.all);
    }
    Ok(())
}
