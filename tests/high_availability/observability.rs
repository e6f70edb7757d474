//! The operator's metrics, alert rules and dashboard, checked with the real Prometheus and promtool.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Instant,
};

use anyhow::{Context as _, ensure};
use legion_tests::{
    local::{repository, text},
    tool,
};
use regex::Regex;
use serde_json::Value;

use crate::{replica::Replica, world::World};

fn promtool(arguments: &[&str]) -> anyhow::Result<Output> {
    let output = Command::new(tool::path("promtool")?).args(arguments).output()?;
    ensure!(
        output.status.success(),
        "promtool {}: {}",
        arguments.join(" "),
        text(&output)
    );
    Ok(output)
}

fn rules() -> PathBuf {
    repository().join("charts/legion/files/alerts.yaml")
}

/// A documented metric.
struct Metric {
    name: String,
    kind: String,
}

impl Metric {
    /// Returns the names of its series.
    fn series(&self) -> Vec<String> {
        if self.kind == "histogram" {
            ["bucket", "count", "sum"]
                .map(|part| format!("{}_{part}", self.name))
                .into()
        } else {
            vec![self.name.clone()]
        }
    }
}

/// The metrics in the table of docs/guides/observability.md, which a test of the operator compares with what it says.
fn documented() -> anyhow::Result<Vec<Metric>> {
    let docs = fs::read_to_string(repository().join("docs/guides/observability.md"))?;
    let rows = docs.lines().filter(|line| line.starts_with("| `"));
    let metrics: Vec<Metric> = rows
        .map(|row| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            Metric {
                name: cells[1].trim_matches('`').to_owned(),
                kind: cells[2].to_owned(),
            }
        })
        .collect();
    ensure!(metrics.len() > 20, "the table has {} rows", metrics.len());
    Ok(metrics)
}

/// Checks that every name of an operator metric in these expressions exists.
fn check_names(expressions: &[String]) -> anyhow::Result<()> {
    let known: BTreeSet<String> = documented()?.iter().flat_map(Metric::series).collect();
    let name = Regex::new(r"\b(legion|process)_\w+")?;
    let mut used = 0;
    for expression in expressions {
        for found in name.find_iter(expression) {
            used += 1;
            ensure!(
                known.contains(found.as_str()),
                "no metric {} in {expression}",
                found.as_str()
            );
        }
    }
    ensure!(
        used >= expressions.len(),
        "{used} metrics in {} expressions",
        expressions.len()
    );
    Ok(())
}

#[test]
#[ignore = "needs promtool"]
fn the_alert_rules_fire_when_they_should() -> anyhow::Result<()> {
    let path = rules();
    let file = path.to_str().context("UTF-8")?;
    let checked = promtool(&["check", "rules", "--lint=all", "--lint-fatal", file])?;
    println!("{}", text(&checked).trim());
    let rules: Value = serde_saphyr::from_str(&fs::read_to_string(&path)?)?;
    let all: Vec<&Value> = rules["groups"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|group| group["rules"].as_array().into_iter().flatten())
        .collect();
    let expressions: Vec<String> = all
        .iter()
        .filter_map(|rule| Some(rule["expr"].as_str()?.to_owned()))
        .collect();
    check_names(&expressions)?;

    let tests = fs::read_to_string(repository().join("tests/high_availability/alerts_test.yaml"))?;
    for rule in &all {
        let name = rule["alert"].as_str().context("an alert has a name")?;
        ensure!(tests.contains(name), "no case in which {name} fires");
        for field in ["summary", "description"] {
            ensure!(rule["annotations"][field].is_string(), "{name} has no {field}");
        }
    }
    let directory = tempfile::tempdir()?;
    let cases = directory.path().join("alerts_test.yaml");
    fs::write(&cases, tests.replace("RULES", file))?;
    let tested = promtool(&["test", "rules", cases.to_str().context("UTF-8")?])?;
    println!("{}", text(&tested).trim());
    Ok(())
}

#[test]
#[ignore = "needs promtool"]
fn every_expression_of_the_dashboard_is_valid() -> anyhow::Result<()> {
    let dashboard = fs::read(repository().join("charts/legion/files/dashboard.json"))?;
    let dashboard: Value = serde_json::from_slice(&dashboard)?;
    let mut ids = BTreeSet::new();
    let mut expressions = Vec::new();
    for panel in dashboard["panels"].as_array().context("panels")? {
        ensure!(
            ids.insert(panel["id"].as_u64()),
            "two panels have the id {}",
            panel["id"]
        );
        ensure!(
            panel["title"].as_str().is_some_and(|title| !title.is_empty()),
            "{panel}"
        );
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().context("a target has an expression")?;
            expressions.push(expression.replace("$__rate_interval", "5m"));
        }
    }
    ensure!(expressions.len() > 20, "{} expressions", expressions.len());
    check_names(&expressions)?;
    // As rules: promtool then parses all of them in one run.
    let rules: Vec<Value> = expressions
        .iter()
        .enumerate()
        .map(|(number, expression)| serde_json::json!({"record": format!("panel:{number}"), "expr": expression}))
        .collect();
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("dashboard.json");
    let file = serde_json::json!({"groups": [{"name": "dashboard", "rules": rules}]});
    fs::write(&path, serde_json::to_vec(&file)?)?;
    let checked = promtool(&["check", "rules", path.to_str().context("UTF-8")?])?;
    println!("{} expressions: {}", expressions.len(), text(&checked).trim());
    Ok(())
}

/// A running Prometheus.
struct Prometheus {
    child: Child,
    address: String,
}

impl Prometheus {
    fn start(directory: &Path, target: &str) -> anyhow::Result<Self> {
        let config = directory.join("prometheus.yaml");
        let rules = rules();
        fs::write(
            &config,
            format!(
                "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
                 rule_files: [{}]\n\
                 scrape_configs:\n\
                 - job_name: legion\n  static_configs: [{{targets: ['{target}']}}]\n",
                rules.display()
            ),
        )?;
        // Free a moment ago. No other process in this network takes random ports.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let child = Command::new(tool::path("prometheus")?)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", directory.join("tsdb").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(directory.join("prometheus.log"))?)
            .spawn()?;
        Ok(Self { child, address })
    }

    fn get(&self, path: &str) -> anyhow::Result<Value> {
        let mut stream = TcpStream::connect(&self.address)?;
        // HTTP 1.0: no chunked response.
        write!(stream, "GET {path} HTTP/1.0\r\nHost: x\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").context("an HTTP answer")?;
        let body: Value = serde_json::from_str(body).with_context(|| answer.clone())?;
        ensure!(body["status"] == "success", "{body}");
        Ok(body["data"].clone())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real API server and Prometheus"]
async fn prometheus_scrapes_every_documented_metric() -> anyhow::Result<()> {
    let world = World::new("ha-metrics").await?;
    let replica = Replica::start(&world, "a").await?;
    world.led_by("a", Instant::now()).await?;
    world.train(0..5).await?;
    world.all_succeed(5).await?;
    let prometheus = Prometheus::start(world.directory.path(), replica.address())?;
    let target = world
        .until("Prometheus has scraped the operator", async || {
            let Ok(data) = prometheus.get("/api/v1/targets") else {
                return Ok(None);
            };
            let target = data["activeTargets"][0].clone();
            Ok((target["health"] != "unknown" && !target.is_null()).then_some(target))
        })
        .await?;
    ensure!(target["health"] == "up" && target["lastError"] == "", "{target}");
    let names: BTreeSet<String> = world
        .until("the series are stored", async || {
            let names = prometheus.get("/api/v1/label/__name__/values")?;
            let names: BTreeSet<String> = serde_json::from_value(names)?;
            Ok(names.contains("legion_operator_leader").then_some(names))
        })
        .await?;
    let metrics = documented()?;
    let expected: BTreeSet<String> = metrics.iter().flat_map(Metric::series).collect();
    let missing: Vec<_> = expected.difference(&names).collect();
    ensure!(missing.is_empty(), "documented and not scraped: {missing:?}");
    let unknown: Vec<_> = names
        .iter()
        .filter(|name| name.starts_with("legion_") || name.starts_with("process_"))
        .filter(|name| !expected.contains(*name))
        .collect();
    ensure!(unknown.is_empty(), "scraped and not documented: {unknown:?}");
    let query = "/api/v1/query?query=legion_operator_runs_finished_total%7Breason%3D%22RunSucceeded%22%7D";
    // Names of series are visible while their scrape is still being stored. Queries see it only afterwards.
    let runs = world
        .until("the finished runs are stored", async || {
            let runs = prometheus.get(query)?["result"][0]["value"][1].clone();
            Ok((!runs.is_null()).then_some(runs))
        })
        .await?;
    ensure!(runs == "5", "{runs}");

    // The rules are loaded. None has an error, and none fires.
    let rules = world
        .until("the rules are evaluated", async || {
            let data = prometheus.get("/api/v1/rules")?;
            let groups = data["groups"].as_array().cloned().unwrap_or_default();
            let rules: Vec<Value> = groups
                .iter()
                .flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default())
                .collect();
            let evaluated = !rules.is_empty() && rules.iter().all(|rule| rule["health"] != "unknown");
            Ok(evaluated.then_some(rules))
        })
        .await?;
    let wrong: Vec<_> = rules
        .iter()
        .filter(|rule| rule["health"] != "ok" || rule["state"] == "firing")
        .collect();
    ensure!(wrong.is_empty(), "{wrong:?}");
    println!(
        "{} documented metrics in {} series names scraped without an error, {} rules evaluated",
        metrics.len(),
        names.len(),
        rules.len()
    );
    Ok(())
}
