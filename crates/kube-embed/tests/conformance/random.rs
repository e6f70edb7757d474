//! Random histories of operations on a few objects. Both servers must respond in the same way.
//!
//! A history is a case of random steps, and runs against both servers. If a response differs, the test searches for the
//! shortest history with a difference and reports it. `SEED=number` selects other histories, and `HISTORIES=number`
//! sets their number.

use std::io::Write as _;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, RngSeed, TestRng, TestRunner};
use serde_json::Value;

use crate::run;
use crate::transcript::Case;

/// The default number of histories. `HISTORIES` overrides it.
const HISTORIES: usize = 500;
/// The number of histories in a sample: with `LEGION_SEED`, and without `SEED` and `HISTORIES`. A sample is of the same
/// histories as a whole run, so that a change does not fail because of a difference that was always there.
const SAMPLE: usize = 40;
const SEED: u64 = 20_261_126;
/// The maximum number of shorter histories to try after a difference. Each takes about two seconds.
const SHRINKING: usize = 100;

/// Parts of a widget's spec. Some are invalid. A history uses at most one part per field.
const SPECS: &[&[&str]] = &[
    &["size: 1", "size: 7", "size: 95", "size: 0", "size: null", "size: big"],
    &["colour: red", "colour: blue", "colour: green", "colour: null"],
    &["replicas: 2", "replicas: -1", "replicas: null"],
    &["label: abc", "label: A"],
    &["ratio: 1.5", "ratio: 2"],
    &["maybe: null", "maybe: x"],
    &["tags: [a, b]", "tags: [b, c]", "tags: [a, a]", "tags: []", "tags: null"],
    &[
        "ports: [{name: x, port: 1}, {name: y}]",
        "ports: [{name: y, port: 2}]",
        "ports: [{name: x}, {name: x}]",
        "ports: [{port: 3}]",
        "ports: null",
    ],
    &["steps: [s, t]", "steps: [t]"],
    &[
        "limits: {cpu: 1}",
        "limits: {cpu: 2, gpu: 3}",
        "limits: {cpu: null}",
        "limits: {}",
    ],
    &["whole: {a: x}", "whole: {b: y}", "whole: null"],
    &["free: {x: [1, {y: z}]}", "free: {x: null, w: {v: 1}}", "free: {}"],
    &["either: 50%", "either: 3", "either: true"],
    &["fixed: f", "fixed: g", "fixed: null"],
    &["low: 3", "low: 1"],
    &["high: 1", "high: 9"],
    &["unknown: 1", "unknown: {a: b}"],
];

/// Parts of a widget's status.
const STATUSES: &[&[&str]] = &[
    &["seen: 1", "seen: 2", "seen: null", "seen: x"],
    &["replicas: 3"],
    &["selector: a=b"],
    &[
        "conditions: [{type: Ready, status: 'True'}]",
        "conditions: [{type: Ready, status: 'False'}, {type: Stalled, status: 'True'}]",
        "conditions: [{type: Ready}]",
    ],
    &["unknown: 1"],
];

/// Parts of a Secret's data.
const DATA: &[&[&str]] = &[
    &["k: dg==", "k: dw=="],
    &["l: dg==", "l: ''"],
    &["'a/b': dg==", "'..': dg=="],
];

/// Parts of metadata.
const METADATA: &[&[&str]] = &[
    &[
        "labels: {a: b}",
        "labels: {a: c, d: e}",
        "labels: {a: null}",
        "labels: null",
        "labels: {'-': x}",
    ],
    &["annotations: {n: m}", "annotations: {n: null, o: p}"],
    &["finalizers: [conformance.test/x]", "finalizers: null"],
    &["generation: 9", "uid: 00000000-0000-0000-0000-000000000000"],
];

/// Selects some of the fields, with one part of each.
fn fields(of: &'static [&'static [&'static str]], most: usize) -> impl Strategy<Value = String> {
    subsequence(of, 0..=most.min(of.len())).prop_flat_map(|fields| {
        let parts: Vec<_> = fields.into_iter().map(select).collect();
        parts.prop_map(|parts| parts.join(", "))
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Widget,
    Secret,
}

impl Kind {
    fn path(self) -> &'static str {
        match self {
            Self::Widget => "widgets",
            Self::Secret => "secrets",
        }
    }
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![3 => Just(Kind::Widget), 1 => Just(Kind::Secret)]
}

/// Generates metadata and content of an object, as a body without braces.
fn content(kind: Kind) -> BoxedStrategy<String> {
    let metadata = prop_oneof![2 => Just(String::new()), 1 => fields(METADATA, 2)];
    let rest = match kind {
        Kind::Widget => (
            fields(SPECS, 4),
            prop_oneof![3 => Just(String::new()), 1 => fields(STATUSES, 2)],
        )
            .prop_map(|(spec, status)| {
                let status = if status.is_empty() {
                    status
                } else {
                    format!(", status: {{{status}}}")
                };
                format!("spec: {{{spec}}}{status}")
            })
            .boxed(),
        Kind::Secret => fields(DATA, 2)
            .prop_map(|data| format!("data: {{{}}}", if data.is_empty() { "z: dg==" } else { &data }))
            .boxed(),
    };
    (metadata, rest)
        .prop_map(|(metadata, rest)| {
            if metadata.is_empty() {
                rest
            } else {
                format!("metadata: {{{metadata}}}, {rest}")
            }
        })
        .boxed()
}

/// Generates the same for an apply, but without null and empty lists. Their differences are listed already.
fn without_nulls(kind: Kind) -> impl Strategy<Value = String> {
    content(kind).prop_filter("null and []", |body| !body.contains("null") && !body.contains("[]"))
}

fn name() -> impl Strategy<Value = &'static str> {
    prop_oneof![3 => Just("a"), 1 => Just("b")]
}

/// Generates the query of a write: field manager and options.
fn options() -> impl Strategy<Value = String> {
    let manager = select(&["one", "two"][..]);
    let more = prop_oneof![
        6 => Just(""),
        1 => Just("&dryRun=All"),
        1 => Just("&fieldValidation=Strict"),
        1 => Just("&fieldValidation=Ignore"),
    ];
    (manager, more).prop_map(|(manager, more)| format!("?fieldManager={manager}{more}"))
}

/// Generates the steps of one operation. `OBJECT` stands for the path of the object, and `OPTIONS` for the query.
fn operation() -> impl Strategy<Value = Vec<String>> {
    (kind(), name(), options()).prop_flat_map(|(kind, name, options)| {
        let path = kind.path();
        let force = select(&["", "&force=true"][..]);
        let subresource = select(&["", "/status"][..]);
        let pointer = select(
            &[
                "[{op: add, path: /metadata/labels, value: {x: y}}]",
                "[{op: remove, path: /spec/colour}]",
                "[{op: test, path: /metadata/name, value: b}, {op: remove, path: /metadata/labels}]",
                "[{op: replace, path: /spec/size, value: 5}, {op: add, path: /spec/steps/-, value: u}]",
                "[{op: copy, from: /spec/size, path: /spec/replicas}]",
            ][..],
        );
        let deletion = select(
            &[
                "",
                "{propagationPolicy: Background}",
                "{preconditions: {uid: 00000000-0000-0000-0000-000000000000}}",
                "{preconditions: {resourceVersion: '1'}}",
                "{dryRun: [All]}",
            ][..],
        );
        let listing = select(
            &[
                "",
                "?labelSelector=a%3Db",
                "?labelSelector=a",
                "?labelSelector=!a",
                "?labelSelector=a%20notin%20(b)",
                "?fieldSelector=metadata.name%3Da",
                "?limit=1",
            ][..],
        );
        let strategic = kind == Kind::Secret;
        prop_oneof![
            4 => content(kind).prop_map(move |body| vec![format!("POST {path}OPTIONS {{{}}} | +managed", with_name(&body, name))]),
            2 => content(kind).prop_map(move |body| vec![
                format!("GET OBJECT | -"),
                "SAVE read".to_owned(),
                format!("PUT OBJECTOPTIONS @read {{{body}}} | +managed"),
            ]),
            // Without a resourceVersion. For widgets, this is refused.
            1 => content(kind).prop_map(move |body| vec![
                format!("PUT OBJECTOPTIONS {{{body}}} | +managed"),
            ]),
            3 => (content(kind), subresource, any::<bool>()).prop_map(move |(body, subresource, merge)| {
                let how = if strategic && !merge { "strategic" } else { "merge" };
                let subresource = if kind == Kind::Widget { subresource } else { "" };
                vec![format!("PATCH OBJECT{subresource}OPTIONS {how} {{{body}}} | +managed")]
            }),
            4 => (without_nulls(kind), force, prop_oneof![4 => Just(""), 1 => Just("/status")]).prop_map(move |(body, force, subresource)| {
                let subresource = if kind == Kind::Widget { subresource } else { "" };
                vec![format!("PATCH OBJECT{subresource}OPTIONS{force} apply {{{body}}} | +managed")]
            }),
            1 => pointer.prop_map(move |patch| vec![format!("PATCH OBJECT json {patch} | +managed")]),
            2 => deletion.prop_map(move |body| vec![format!("DELETE OBJECT {body}").trim_end().to_owned()]),
            1 => listing.prop_map(move |query| vec![format!("GET {path}{query}")]),
            1 => Just(vec![format!("GET OBJECT | +managed")]),
            1 => Just(vec![format!("GET widgets/{name}/scale")]),
        ]
        .prop_map(move |steps: Vec<String>| {
            let object = format!("{path}/{name}");
            let fill = |step: &String| step.replace("OBJECT", &object).replace("OPTIONS", &options);
            steps.iter().map(fill).collect()
        })
    })
}

/// Adds a name to the metadata of a body.
fn with_name(body: &str, name: &str) -> String {
    match body.strip_prefix("metadata: {") {
        Some(rest) => format!("metadata: {{name: {name}, {rest}"),
        None => format!("metadata: {{name: {name}}}, {body}"),
    }
}

/// Returns a whole history: the operations, and the events of two watches.
fn history(operations: &[Vec<String>]) -> Case {
    let mut steps = vec![
        "OPEN widgets widgets?watch=1".to_owned(),
        "OPEN secrets secrets?watch=1".to_owned(),
    ];
    steps.extend(operations.iter().flatten().cloned());
    steps.extend(
        [
            "GET widgets | +managed",
            "GET secrets | +managed",
            "POST widgets {metadata: {name: last}, spec: {size: 1}} | -",
            "POST secrets {metadata: {name: last}} | -",
            "DRAIN widgets last",
            "DRAIN secrets last",
        ]
        .map(str::to_owned),
    );
    Case::of("a random history", steps)
}

/// Returns a response without the known differences: messages of errors, and empty fields.
fn essence(line: &str) -> String {
    let words = |n: usize| line.split(' ').take(n).collect::<Vec<_>>().join(" ");
    if line.starts_with("details ") || line.starts_with("warning: ") {
        return String::new();
    }
    let Some((code, json)) = line.split_once(' ') else {
        return line.to_owned();
    };
    match serde_json::from_str::<Value>(json) {
        Ok(mut value) => {
            for item in value
                .get_mut("items")
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
            {
                // In Kubernetes, items of a list have no kind.
                if let Some(fields) = item.as_object_mut() {
                    fields.remove("apiVersion");
                    fields.remove("kind");
                }
            }
            format!("{code} {}", without_empty(value).unwrap_or_default())
        }
        Err(_) => words(3),
    }
}

fn without_empty(value: Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::Object(fields) => {
            let fields: serde_json::Map<_, _> = fields
                .into_iter()
                .filter_map(|(name, value)| {
                    // In managedFields, every owned field is an empty object.
                    let value = if name == "fieldsV1" {
                        value
                    } else {
                        without_empty(value)?
                    };
                    Some((name, value))
                })
                .collect();
            (!fields.is_empty()).then_some(Value::Object(fields))
        }
        Value::Array(items) => {
            let items: Vec<_> = items.into_iter().filter_map(without_empty).collect();
            (!items.is_empty()).then_some(Value::Array(items))
        }
        other => Some(other),
    }
}

/// Returns the first step with different responses, with both responses.
fn difference(case: &Case, real: &[Vec<String>], embed: &[Vec<String>]) -> Option<String> {
    let essences = |answer: &[String]| -> Vec<String> {
        answer
            .iter()
            .map(|line| essence(line))
            .filter(|line| !line.is_empty())
            .collect()
    };
    case.steps
        .iter()
        .zip(real)
        .zip(embed)
        .find_map(|((step, real), embed)| {
            (essences(real) != essences(embed)).then(|| {
                let lines = |who: &str, answer: &[String]| -> String {
                    answer.iter().map(|line| format!("  {who} {line}\n")).collect()
                };
                format!(
                    "{}\n{}{}",
                    step.text,
                    lines("Kubernetes", real),
                    lines("kube-embed", embed)
                )
            })
        })
}

async fn both(real: &kube::Client, embed: &kube::Client, cases: &[&Case]) -> Vec<Option<String>> {
    let (real, embed) = (run::all(real, cases, None).await, run::all(embed, cases, None).await);
    cases
        .iter()
        .zip(real.iter().zip(&embed))
        .map(|(case, (real, embed))| difference(case, real, embed))
        .collect()
}

/// Runs random histories on both servers. Fails with the shortest history with a difference.
pub(crate) async fn histories(real: &kube::Client, embed: &kube::Client) {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().expect("a number"))
    };
    let index = |number: u64| usize::try_from(number).expect("a small number");
    let (given, all) = (number("SEED"), number("HISTORIES").map(index));
    let sample = number("LEGION_SEED").filter(|_| given.is_none() && all.is_none());
    let seed = given.unwrap_or(SEED);
    let generated = all.unwrap_or(HISTORIES);
    let config = Config {
        rng_seed: RngSeed::Fixed(seed),
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let strategy = prop::collection::vec(operation(), 1..24);
    let mut trees: Vec<_> = (0..generated)
        .map(|_| strategy.new_tree(&mut runner).expect("a history"))
        .collect();
    if let Some(sample) = sample {
        trees.rotate_left(index(sample % generated as u64));
        trees.truncate(SAMPLE);
    }
    let count = trees.len();
    // Written directly, because the test harness captures `println!`.
    let left_out = generated - count;
    let _ = writeln!(
        std::io::stderr(),
        "{count} histories run (seed {seed}), {left_out} are skipped"
    );
    let cases: Vec<Case> = trees.iter().map(|tree| history(&tree.current())).collect();
    let steps: usize = cases.iter().map(|case| case.steps.len()).sum();
    let cases: Vec<&Case> = cases.iter().collect();
    let found = both(real, embed, &cases).await;
    let differing = found.iter().flatten().count();
    println!("{count} random histories of {steps} steps (seed {seed}): {differing} have different responses");
    let Some(index) = found.iter().position(Option::is_some) else {
        return;
    };
    for difference in found.iter().flatten() {
        println!("\n{difference}");
    }
    let (mut shortest, mut shortest_difference) = (history(&trees[index].current()), found[index].clone());
    let tree = &mut trees[index];
    let mut simpler = tree.simplify();
    for _ in 0..SHRINKING {
        if !simpler {
            break;
        }
        let case = history(&tree.current());
        match both(real, embed, &[&case]).await.remove(0) {
            Some(difference) => {
                (shortest, shortest_difference) = (case, Some(difference));
                simpler = tree.simplify();
            }
            None => simpler = tree.complicate(),
        }
    }
    let steps: Vec<&str> = shortest.steps.iter().map(|step| step.text.as_str()).collect();
    panic!(
        "after\n{}\nthe responses differ for\n{}",
        steps.join("\n"),
        shortest_difference.unwrap_or_default()
    );
}
