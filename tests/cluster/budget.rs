//! What a training costs the API server, counted from its audit log.

use std::collections::BTreeMap;

use anyhow::ensure;
use legion_tests::{
    audit,
    cluster::{cluster_directory, script},
};
use serde_json::json;

use crate::{QUICK, cluster, ended_in_attempt};

/// Who Legion's operator is for the API server.
const OPERATOR: &str = "system:serviceaccount:legion-system:legion-operator";

/// Every finished request about objects of a namespace: by user agent, verb and resource, how often.
fn requests(namespace: &str) -> anyhow::Result<BTreeMap<(String, String, String), usize>> {
    let log = cluster_directory()?.join("logs/audit.log");
    let mut counts = BTreeMap::new();
    for request in audit::requests(&log, 0, namespace)? {
        if !request.is_complete() || request.namespace != namespace {
            continue;
        }
        let who = if request.user == OPERATOR {
            "the operator".to_owned()
        } else {
            request.agent.split(['/', ' ']).next().unwrap_or_default().to_owned()
        };
        *counts.entry((who, request.verb, request.resource)).or_default() += 1;
    }
    Ok(counts)
}

#[test]
#[ignore = "needs a cluster with Legion: cargo xtask test --kubernetes"]
fn a_training_costs_three_writes_and_one_read_of_its_source() -> anyhow::Result<()> {
    let cluster = cluster("budget")?;
    // The image is on the node already, so that the training never waits: that would be one write more.
    cluster.apply(&script("first", QUICK, json!({})))?;
    cluster.success("first")?;
    let before = requests(cluster.namespace())?;
    // Long enough that it is seen to run: what ends at once costs one write less.
    let lines = format!("sleep 3\n{QUICK}");
    cluster.apply(&script("counted", &lines, json!({})))?;
    ended_in_attempt(&cluster.success("counted")?, 1)?;
    let mut spent = requests(cluster.namespace())?;
    for (request, count) in before {
        if let Some(total) = spent.get_mut(&request) {
            *total -= count;
        }
    }
    spent.retain(|_, count| *count > 0);
    for ((who, verb, resource), count) in &spent {
        println!("{count:>4}  {who:<28} {verb:<8} {resource}");
    }
    let of_operator: BTreeMap<(&str, &str), usize> = spent
        .iter()
        .filter(|((who, _, _), _)| who == "the operator")
        .map(|((_, verb, resource), count)| ((verb.as_str(), resource.as_str()), *count))
        .collect();
    let expected = BTreeMap::from([
        (("create", "pods"), 1),
        (("patch", "modeltrainings/status"), 2),
        (("get", "configmaps"), 1),
    ]);
    ensure!(of_operator == expected, "the operator spent {of_operator:?}");
    Ok(())
}
