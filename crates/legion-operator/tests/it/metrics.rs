//! What the operator tells about itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use legion_runtime::telemetry::Telemetry;
use legion_testkit::{cluster::Cluster, manifests};

use crate::support::{LIMIT, logs, operator_with, settings, succeeded};

/// A scrape, by series.
struct Scrape {
    text: String,
    series: BTreeMap<String, f64>,
}

impl Scrape {
    fn of(telemetry: &Telemetry) -> Self {
        let text = telemetry.metrics.encode().expect("metrics can be written");
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let series = samples
            .map(|line| {
                let (name, value) = line.rsplit_once(' ').expect("a sample has a value");
                (name.to_owned(), value.parse().expect("a value is a number"))
            })
            .collect();
        Self { text, series }
    }

    #[track_caller]
    fn value(&self, series: &str) -> f64 {
        let value = self.series.get(&format!("legion_operator_{series}"));
        *value.unwrap_or_else(|| panic!("no {series} in\n{}", self.text))
    }
}

#[tokio::test(start_paused = true)]
async fn a_training_leaves_its_traces_in_the_metrics() {
    logs();
    let telemetry = Telemetry::default();
    let mut settings = settings();
    settings.telemetry = Some(telemetry.clone());
    let mut cluster = Cluster::new(operator_with(settings)).await;
    cluster.furnish().await;
    assert!(telemetry.health.ready().is_err(), "not started yet");
    cluster.start();
    cluster.settle(Duration::from_secs(1)).await;
    telemetry.health.ready().expect("the caches are complete");
    let before = Scrape::of(&telemetry);
    assert_eq!(before.value("runs_finished_total{reason=\"RunSucceeded\"}"), 0.0);
    assert_eq!(before.value("leader"), 1.0);
    assert_eq!(before.value("relists_total{resource=\"pods\"}"), 1.0);

    cluster.create(&manifests::training("wine")).await;
    succeeded(cluster.wait_for("wine", "True", LIMIT).await);
    cluster.settle(Duration::from_secs(1)).await;
    let after = Scrape::of(&telemetry);
    let grown = |series: &str| after.value(series) - before.value(series);
    let requests = |verb: &str, resource: &str, code: u16| {
        let series = format!("legion_operator_api_requests_total{{verb=\"{verb}\",{resource},code=\"{code}\"}}");
        let of = |scrape: &Scrape| scrape.series.get(&series).copied().unwrap_or_default();
        of(&after) - of(&before)
    };
    assert_eq!(requests("create", "resource=\"pods\",subresource=\"\"", 201), 1.0);
    let status = "resource=\"modeltrainings\",subresource=\"status\"";
    assert_eq!(requests("patch", status, 200), 2.0, "running, finished");
    assert_eq!(grown("pods_created_total"), 1.0);
    assert_eq!(grown("runs_finished_total{reason=\"RunSucceeded\"}"), 1.0);
    assert_eq!(grown("runs_finished_total{reason=\"TrainerFailed\"}"), 0.0);
    assert_eq!(grown("run_duration_seconds_count"), 1.0);
    assert!(grown("run_duration_seconds_sum") >= 1.0);
    assert_eq!(after.value("trainings{reason=\"RunSucceeded\"}"), 1.0);
    assert_eq!(after.value("trainings{reason=\"Training\"}"), 0.0);
    let kind = "kind=\"ModelTraining\"";
    let looks = grown(&format!("reconciles_total{{{kind},result=\"done\"}}"));
    assert!(looks >= 3.0, "{looks}");
    for histogram in ["reconcile_duration", "queue_wait"] {
        assert_eq!(
            grown(&format!("{histogram}_seconds_count{{{kind}}}")),
            looks,
            "{histogram}"
        );
    }
    for gauge in ["queue_depth", "queue_oldest_seconds", "busy_workers", "failing_objects"] {
        assert_eq!(after.value(&format!("{gauge}{{{kind}}}")), 0.0, "{gauge}");
    }
    assert_eq!(after.value("cache_objects{resource=\"modeltrainings\"}"), 1.0);
    assert_eq!(after.value("cache_objects{resource=\"pods\"}"), 1.0);
    assert_eq!(grown("watch_failures_total{resource=\"pods\"}"), 0.0);
    assert!(grown("watch_events_total{resource=\"pods\"}") >= 2.0);
    telemetry.health.live().expect("nothing is wrong");

    // Without a server, watches fail and are retried. That is reported, and is no reason for a restart.
    cluster.chaos.cut_off();
    cluster.settle(Duration::from_secs(1200)).await;
    telemetry.health.live().expect("a restart would not help");
    cluster.shutdown().await;
}

/// The table of the metrics in the docs is what a running operator says.
#[tokio::test(start_paused = true)]
async fn the_table_in_the_docs_is_true() {
    let telemetry = Telemetry::default();
    let mut settings = settings();
    settings.telemetry = Some(telemetry.clone());
    let mut cluster = Cluster::new(operator_with(settings)).await;
    cluster.furnish().await;
    cluster.start();
    cluster.create(&manifests::training("wine")).await;
    succeeded(cluster.wait_for("wine", "True", LIMIT).await);
    let expected = table(&Scrape::of(&telemetry));
    cluster.shutdown().await;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guides/observability.md");
    let docs = std::fs::read_to_string(path).expect("the docs are there");
    let found: Vec<&str> = docs.lines().filter(|line| line.starts_with("| `")).collect();
    assert_eq!(
        found.join("\n"),
        expected.join("\n"),
        "the table in docs/guides/observability.md should be:\n{}",
        expected.join("\n")
    );
}

fn table(scrape: &Scrape) -> Vec<String> {
    let comments = |kind: &str| -> BTreeMap<String, String> {
        let prefix = format!("# {kind} ");
        let lines = scrape.text.lines().filter_map(|line| line.strip_prefix(&prefix));
        lines
            .filter_map(|line| line.split_once(' '))
            .map(|(name, rest)| (name.to_owned(), rest.to_owned()))
            .collect()
    };
    let types = comments("TYPE");
    let rows = comments("HELP").into_iter().map(|(family, help)| {
        let kind = types[&family].clone();
        let name = match kind.as_str() {
            "counter" => format!("{family}_total"),
            "info" => format!("{family}_info"),
            _ => family.clone(),
        };
        let sample = match kind.as_str() {
            "histogram" => format!("{family}_count"),
            _ => name.clone(),
        };
        let labels = scrape.series.keys().find_map(|series| {
            let (of, labels) = series.split_once('{').unwrap_or((series, "}"));
            (of == sample).then(|| labels.trim_end_matches('}').to_owned())
        });
        let labels = labels.unwrap_or_else(|| panic!("{sample} has no series"));
        let names: BTreeSet<&str> = labels
            .split(',')
            .filter_map(|label| Some(label.split_once('=')?.0))
            .collect();
        let names = Vec::from_iter(names).join(", ");
        format!("| `{name}` | {kind} | {names} | {help} |")
    });
    rows.collect()
}
