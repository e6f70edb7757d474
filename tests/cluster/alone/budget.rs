//! The number of API requests per training, counted from the audit log.

use std::collections::BTreeMap;

use anyhow::ensure;
use legion_tests::{
    audit,
    cluster::{Cluster, cluster_directory, script},
};
use serde_json::json;

use crate::{QUICK, cluster, ended_in_attempt};

/// User name of the operator.
const OPERATOR: &str = "system:serviceaccount:legion-system:legion-operator";

/// Counts the completed requests for objects of a namespace by user agent, verb and resource.
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

/// Number of counted trainings. A training that waits for a busy node reports so, which is one more write.
const COUNTED: usize = 3;

#[test]
#[ignore = "needs a cluster with Legion: cargo xtask test --kubernetes"]
fn a_training_costs_three_writes_and_one_read_of_its_source() -> anyhow::Result<()> {
    let cluster = cluster("budget")?;
    // Afterwards the image is on the node, and no other training waits for it.
    cluster.apply(&script("first", QUICK, json!({})))?;
    cluster.success("first")?;
    let mut seen = Vec::new();
    for number in 0..COUNTED {
        let spent = spent(&cluster, &format!("counted-{number}"))?;
        for ((who, verb, resource), count) in &spent {
            println!("{count:>4}  {who:<28} {verb:<8} {resource}");
        }
        println!();
        let of_operator: BTreeMap<(String, String), usize> = spent
            .into_iter()
            .filter(|((who, _, _), _)| who == "the operator")
            .map(|((_, verb, resource), count)| ((verb, resource), count))
            .collect();
        seen.push(of_operator);
    }
    let budget = [
        ("create", "pods", 1),
        ("create", "events", 1),
        ("get", "configmaps", 1),
        ("patch", "modeltrainings/status", 2),
    ];
    let budget = BTreeMap::from(budget.map(|(verb, resource, count)| ((verb.to_owned(), resource.to_owned()), count)));
    ensure!(
        seen.contains(&budget),
        "none of {COUNTED} trainings had the cost of a training that never waits: {seen:#?}"
    );
    // Upper bound for any training: one status write for each waiting state, an event for one
    // waiting state and for the end, and no other request.
    let most = [
        ("create", "pods", 1),
        ("create", "events", 2),
        ("get", "configmaps", 1),
        ("patch", "modeltrainings/status", 4),
    ];
    for spent in seen {
        let within = spent.iter().all(|((verb, resource), count)| {
            most.iter()
                .any(|(of, what, most)| verb == of && resource == what && count <= most)
        });
        ensure!(within, "a training cost {spent:#?}");
    }
    Ok(())
}

/// Runs one training and returns its requests by user agent, verb and resource.
fn spent(cluster: &Cluster, name: &str) -> anyhow::Result<BTreeMap<(String, String, String), usize>> {
    let before = requests(cluster.namespace())?;
    // Long enough to be reported as running: a training that ends immediately costs one write less.
    let lines = format!("sleep 3\n{QUICK}");
    cluster.apply(&script(name, &lines, json!({})))?;
    ended_in_attempt(&cluster.success(name)?, 1)?;
    let mut spent = requests(cluster.namespace())?;
    for (request, count) in before {
        if let Some(total) = spent.get_mut(&request) {
            *total -= count;
        }
    }
    spent.retain(|_, count| *count > 0);
    Ok(spent)
}
