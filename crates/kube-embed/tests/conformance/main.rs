//! The conformance suite runs the same cases against kube-embed and a real Kubernetes.
//!
//! `cases/*.txt` contain requests and the responses of a real Kubernetes 1.37. To check them against a real server:
//!
//! ```console
//! $ cargo xtask cluster up
//! $ cargo xtask cluster run -- cargo test -p kube-embed --test conformance -- --ignored --nocapture
//! ```
//!
//! With `UPDATE=1` before `cargo test`, this writes the responses to the files instead.
//!
//! kube-embed must respond in the same way. `differences.rs` lists the exceptions with their reasons. The page
//! `docs/reference/kube-embed-differences.md` is generated from that list:
//!
//! ```console
//! $ UPDATE=1 cargo test -p kube-embed --test conformance
//! ```
//!
//! `CASE=text` selects the cases with this text in their title, and `FILE=text` the files with this text in their name.
//! The step `TIMES n STEP` runs a step n times and hides its responses. Random histories run against both servers, too
//! (`random.rs`).

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test stops at the first unexpected value, and prints its duration"
)]

mod backend;
#[path = "../shared/built.rs"]
mod built;
mod differences;
mod kubectl;
mod normal;
mod random;
mod request;
mod run;
mod transcript;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::Value;

use crate::backend::Embed;
use crate::differences::{DIFFERENCES, Differing, KUBECTL_DIFFERENCES};
use crate::kubectl::Kubectl;
use crate::transcript::{Case, Transcript};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance")
}

fn updating() -> bool {
    std::env::var_os("UPDATE").is_some()
}

/// Reads the selected files, either those for kubectl or all others.
fn transcripts(with_kubectl: bool) -> Vec<Transcript> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(directory().join("cases"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_stem().unwrap().to_string_lossy();
            name.starts_with("kubectl") == with_kubectl && name.contains(&std::env::var("FILE").unwrap_or_default())
        })
        .collect();
    paths.sort();
    let mut transcripts: Vec<Transcript> = paths.iter().map(|path| Transcript::read(path)).collect();
    let mut titles = BTreeSet::new();
    let only = std::env::var("CASE").unwrap_or_default();
    for transcript in &mut transcripts {
        for case in &transcript.cases {
            assert!(
                titles.insert(case.title.clone()),
                "two cases have the title {:?}",
                case.title
            );
        }
        assert!(only.is_empty() || !updating(), "CASE and UPDATE exclude each other");
        transcript.cases.retain(|case| case.title.contains(&only));
    }
    transcripts
}

/// Creates the shared resources of all cases, and waits until they are served.
async fn prepare(client: &kube::Client) {
    let text = std::fs::read_to_string(directory().join("resources.yaml")).unwrap();
    for document in text.split("\n---\n") {
        let crd: Value = run::yaml(document);
        let path = format!(
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{}?fieldManager=conformance&force=true",
            crd["metadata"]["name"].as_str().unwrap()
        );
        let apply = [("content-type", "application/apply-patch+yaml".to_owned())];
        let response = run::send(client, "PATCH", &path, crd.to_string(), &apply).await;
        let status = response.status();
        let answer = response.into_body().collect_bytes().await.unwrap();
        assert!(
            status.is_success(),
            "{path}: {status} {}",
            String::from_utf8_lossy(&answer)
        );
        let path = format!(
            "/apis/{}/v1/{}",
            crd["spec"]["group"].as_str().unwrap(),
            crd["spec"]["names"]["plural"].as_str().unwrap()
        );
        let began = Instant::now();
        while run::send(client, "GET", &path, String::new(), &[]).await.status() != 200 {
            assert!(began.elapsed().as_secs() < 60, "{path} is not served");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
}

/// Returns the responses by file, case and step, and the duration in seconds.
async fn answers(
    client: &kube::Client,
    transcripts: &[Transcript],
    kubectl: Option<&Kubectl>,
) -> (Vec<Vec<Vec<Vec<String>>>>, f64) {
    prepare(client).await;
    let began = Instant::now();
    let cases: Vec<&Case> = transcripts.iter().flat_map(|t| &t.cases).collect();
    let mut flat = run::all(client, &cases, kubectl).await.into_iter();
    let split = transcripts
        .iter()
        .map(|t| flat.by_ref().take(t.cases.len()).collect())
        .collect();
    (split, began.elapsed().as_secs_f64())
}

/// Returns the steps whose response differs from the recorded one.
fn differing(transcripts: &[Transcript], answers: &[Vec<Vec<Vec<String>>>]) -> Vec<Differing> {
    let mut found = Vec::new();
    for (transcript, answers) in transcripts.iter().zip(answers) {
        for (case, answers) in transcript.cases.iter().zip(answers) {
            for (step, answer) in case.steps.iter().zip(answers) {
                if step.answer != *answer {
                    found.push(Differing {
                        case: case.title.clone(),
                        request: step.text.clone(),
                        real: step.answer.clone(),
                        embed: answer.clone(),
                    });
                }
            }
        }
    }
    found
}

fn report(differing: &[&Differing], who: &str) -> String {
    let mut out = String::new();
    for d in differing {
        out += &format!("\n== {}\n{}\n", d.case, d.request);
        for line in &d.real {
            out += &format!("  recorded   {line}\n");
        }
        for line in &d.embed {
            out += &format!("  {who} {line}\n");
        }
    }
    out
}

/// Checks or updates the recorded responses on a real server.
async fn check_kubernetes(with_kubectl: bool) {
    let transcripts = transcripts(with_kubectl);
    let client = backend::real().await;
    let kubectl = if with_kubectl {
        let path = std::env::var("KUBECONFIG").unwrap();
        Some(Kubectl::new(&std::fs::read_to_string(path).unwrap()).await)
    } else {
        None
    };
    let (answers, seconds) = answers(&client, &transcripts, kubectl.as_ref()).await;
    let count: usize = transcripts.iter().map(|t| t.cases.len()).sum();
    println!("real Kubernetes: {count} cases in {seconds:.1} s");
    if updating() {
        for (transcript, answers) in transcripts.iter().zip(&answers) {
            std::fs::write(&transcript.path, transcript.with_answers(answers)).unwrap();
        }
        return;
    }
    let found = differing(&transcripts, &answers);
    let all: Vec<&Differing> = found.iter().collect();
    assert!(
        found.is_empty(),
        "the real server responded differently to {} steps:\n{}",
        found.len(),
        report(&all, "real      ")
    );
}

/// Checks that kube-embed responds as recorded, except in the listed cases. Returns the number of cases and the
/// differences.
async fn check_kube_embed(with_kubectl: bool) -> (usize, Vec<Differing>) {
    let transcripts = transcripts(with_kubectl);
    let embed = Embed::start().await;
    let client = embed.embedded.client("default");
    let kubectl = if with_kubectl {
        let endpoint = embed
            .embedded
            .listen("127.0.0.1:0".parse().unwrap(), None)
            .await
            .unwrap();
        Some(Kubectl::new(&endpoint.kubeconfig("kube-embed", "default")).await)
    } else {
        None
    };
    let (answers, seconds) = answers(&client, &transcripts, kubectl.as_ref()).await;
    embed.stop().await;
    let count: usize = transcripts.iter().map(|t| t.cases.len()).sum();
    let found = differing(&transcripts, &answers);
    let cases: BTreeSet<&str> = found.iter().map(|d| d.case.as_str()).collect();
    println!(
        "kube-embed: {count} cases in {seconds:.1} s; {} differ, for {} reasons",
        cases.len(),
        if with_kubectl { KUBECTL_DIFFERENCES } else { DIFFERENCES }.len()
    );
    let listed: BTreeSet<&str> = DIFFERENCES
        .iter()
        .chain(KUBECTL_DIFFERENCES)
        .flat_map(|d| d.cases)
        .copied()
        .collect();
    let unlisted: Vec<&Differing> = found.iter().filter(|d| !listed.contains(d.case.as_str())).collect();
    assert!(
        unlisted.is_empty(),
        "{} steps have another response than in Kubernetes. Fix them, or list their cases in differences.rs:\n{}",
        unlisted.len(),
        report(&unlisted, "kube-embed")
    );
    for transcript in &transcripts {
        for case in &transcript.cases {
            let title = case.title.as_str();
            assert!(
                !listed.contains(title) || cases.contains(title),
                "{title:?} is listed in differences.rs, but no longer differs. Remove it from the list"
            );
        }
    }
    (count, found)
}

#[tokio::test(flavor = "multi_thread")]
async fn kube_embed_responds_as_kubernetes() {
    let (count, found) = check_kube_embed(false).await;
    if ["CASE", "FILE"].iter().any(|only| std::env::var_os(only).is_some()) {
        return;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/kube-embed-differences.md");
    let page = differences::page(count, &found);
    if updating() {
        std::fs::write(&path, page).unwrap();
        return;
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "docs/reference/kube-embed-differences.md is out of date. Run UPDATE=1 cargo test -p kube-embed --test conformance"
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real Kubernetes: cargo xtask cluster run -- cargo test -p kube-embed --test conformance -- --ignored"]
async fn kubernetes_responds_as_recorded() {
    check_kubernetes(false).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Go, to build kubectl: cargo test -p kube-embed --test conformance -- --ignored kubectl_with_kube_embed"]
async fn kubectl_with_kube_embed() {
    check_kube_embed(true).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real Kubernetes, and Go: cargo xtask cluster run -- cargo test -p kube-embed --test conformance -- --ignored"]
async fn kubectl_with_kubernetes() {
    check_kubernetes(true).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real Kubernetes: cargo xtask cluster run -- cargo test -p kube-embed --test conformance -- --ignored"]
async fn random_histories_have_the_same_responses() {
    let real = backend::real().await;
    let embed = Embed::start().await;
    let client = embed.embedded.client("default");
    prepare(&real).await;
    prepare(&client).await;
    random::histories(&real, &client).await;
    embed.stop().await;
}
