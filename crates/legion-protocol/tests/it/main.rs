//! Termination messages within the limits of the kubelet, and the published schemas.

#![allow(clippy::unwrap_used, reason = "a test ends by panicking")]

use legion_protocol::events::ToolEvent;
use legion_protocol::exit::{ExitError, ExitRecord};
use legion_protocol::message::*;
use legion_protocol::reason::{StepError, StepReason};
use legion_protocol::result::{WireExternalRun, WireNotice};
use legion_protocol::success::SuccessRecord;
use legion_protocol::summary::{MetricSummary, NamedValue};
use legion_protocol::{digest, task::message_budget, time};
use proptest::prelude::*;

/// Returns a pseudorandom number with all digits (splitmix64). It depends only on the seed.
fn noise(seed: u64) -> f64 {
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

fn named(prefix: &str, n: u64) -> Vec<NamedValue> {
    (0..n)
        .map(|i| NamedValue {
            name: format!("{prefix}_{i}"),
            value: format!("value {i}"),
        })
        .collect()
}

/// Returns the message of a large autologged training: 64 metrics, 40 parameters, 10 tags, most values with 16 digits.
fn large() -> PublishMessage {
    let places = ["fold_1", "fold_2", "fold_3", "fold_4", "fold_5", "mean", "std", "best"];
    let kinds = [
        "accuracy",
        "f1_score",
        "log_loss",
        "precision",
        "recall",
        "roc_auc",
        "train_loss",
        "val_loss",
    ];
    let metrics = (0..64u64)
        .map(|i| {
            let value = format!("{:?}", noise(i));
            let single = i % 8 > 4;
            let bound = |k: u64| {
                if single {
                    value.clone()
                } else {
                    format!("{:?}", noise(i + k))
                }
            };
            MetricSummary {
                name: format!("{}_{}", kinds[(i / 8) as usize], places[(i % 8) as usize]),
                step: if single { 0 } else { 99 },
                timestamp: Some(1_795_453_297_042 + i as i64 * 37),
                count: if single { 1 } else { 100 },
                min: bound(1000),
                max: bound(2000),
                value,
            }
        })
        .collect::<Vec<_>>();
    let at = time::rfc3339_millis(1_795_453_297_042);
    let uri = "s3://models-of-the-team/production/default/wine-quality/7f3a1c9e/model.tar".to_owned();
    let stored = |name: &str| {
        Some(WireStoredFile {
            uri: uri.replace("model.tar", name),
            size_bytes: 48_213,
            truncated: false,
            points: None,
        })
    };
    PublishMessage {
        head: PublishHead {
            outcome: PublishOutcome::Published,
            exit: Some(ExitRecord {
                version: 1,
                exit_code: Some(0),
                started_at: at.clone(),
                finished_at: at,
                exec_delay_ms: Some(2),
                max_rss_bytes: Some(1_234_567_890),
                ..ExitRecord::default()
            }),
            artifact: Some(WireArtifact {
                digest: digest::of_bytes(b"model"),
                size_bytes: 123_456_789,
                uri: uri.clone(),
            }),
            objective: Some(metrics[0].value.clone()),
            counts: Counts {
                metrics: 64,
                parameters: 40,
                tags: 10,
            },
            error: None,
        },
        tail: PublishTail {
            artifact_uri: uri.clone(),
            format: "gppi/v1".into(),
            model: "model".into(),
            signature: Some(true),
            log: stored("log.txt"),
            series: stored("series.jsonl"),
            files: stored("files.tar"),
            metrics,
            parameters: named("parameter", 40),
            tags: named("tag", 10),
            external: Some(WireExternalRun {
                system: "mlflow".into(),
                version: "3.17.2".into(),
                ..WireExternalRun::default()
            }),
            environment: [("python".to_owned(), "3.11.7".to_owned())].into(),
            notices: vec![WireNotice {
                reason: "NoSignature".into(),
                message: "the model declares no inputs".into(),
            }],
            ..PublishTail::default()
        },
    }
}

#[test]
fn the_message_of_a_large_training_is_complete_with_three_containers() {
    let message = large();
    let text = message.encode(message_budget(3));
    println!("64 metrics, 40 parameters, 10 tags: {} of 4096 bytes", text.len());
    assert!(text.len() <= 4096);
    let read = PublishMessage::decode(&text).unwrap();
    assert_eq!(read.head, message.head);
    assert_eq!(read.tail, Tail::Whole(message.tail));
}

#[test]
fn smaller_budgets_omit_in_the_documented_order_and_count_the_omissions() {
    let mut message = large();
    message.tail.metrics[7].name = "system/cpu".into();
    for containers in [3, 5, 8, 12] {
        let text = message.encode(message_budget(containers));
        assert!(
            text.len() <= message_budget(containers),
            "{containers} containers: {}",
            text.len()
        );
        let read = PublishMessage::decode(&text).unwrap();
        assert_eq!(read.head, message.head);
        let tail = read.tail.whole().expect("some of the tail fits into every share");
        println!(
            "{containers} containers, {} bytes: {} metrics, {} parameters, {} tags",
            text.len(),
            tail.metrics.len(),
            tail.parameters.len(),
            tail.tags.len()
        );
        assert_eq!(tail.metrics.len() as u64 + tail.omitted.metrics, 64);
        assert_eq!(tail.parameters.len() as u64 + tail.omitted.parameters, 40);
        assert_eq!(tail.tags.len() as u64 + tail.omitted.tags, 10);
        assert_eq!(
            tail.metrics[0].name, message.tail.metrics[0].name,
            "the objective stays"
        );
        if tail.omitted.metrics > 0 {
            assert!(
                tail.metrics
                    .iter()
                    .all(|m| m.timestamp.is_none() && m.name != "system/cpu")
            );
        }
        if tail.omitted.tags > 0 {
            assert!(tail.parameters.is_empty(), "parameters go before tags");
        }
        if tail.omitted.metrics > 1 {
            assert!(tail.tags.is_empty(), "tags go before metrics of the project");
        }
    }
}

#[test]
fn every_budget_keeps_the_error() {
    let error = StepError::new(
        StepReason::OutputHostile,
        "the model holds a link at model/data.bin ".repeat(20),
    )
    .field("status.artifact");
    let mut message = large();
    message.head.outcome = PublishOutcome::Error;
    message.head.error = Some(HeadError::of(&error));
    message.head.exit.as_mut().unwrap().error = Some(ExitError {
        reason: StepReason::CommandNotFound,
        message: "\"\\\u{1}".repeat(300),
    });
    message.tail.error = Some(error.clone());
    let read = PublishMessage::decode(&message.encode(4096)).unwrap();
    assert_eq!(read.error().unwrap(), error);
    let text = message.encode(0);
    assert!(text.len() <= HEAD_LIMIT, "{}", text.len());
    let read = PublishMessage::decode(&text).unwrap();
    assert_eq!(read.tail, Tail::Absent);
    assert_eq!(read.error().unwrap().reason, StepReason::OutputHostile);
    assert!(read.error().unwrap().message.starts_with("the model holds a link"));
}

#[test]
fn fetch_keeps_its_error_and_counts_omitted_data() {
    let data = (0..60u64).map(|i| FetchedData {
        name: format!("part-{i}"),
        digest: digest::of_bytes(&i.to_be_bytes()),
        files: i,
        size_bytes: i << 20,
    });
    let message = FetchMessage {
        head: FetchHead {
            outcome: FetchOutcome::Ready,
            source: Some(FetchedSource {
                commit: "0123456789abcdef0123456789abcdef01234567".into(),
                ..Default::default()
            }),
            error: None,
        },
        tail: FetchTail {
            data: data.collect(),
            notices: vec![WireNotice {
                reason: "SubmodulesNotFetched".into(),
                message: "the repository has submodules".into(),
            }],
            elapsed_ms: 17,
            ..FetchTail::default()
        },
    };
    for containers in [3, 5, 8] {
        let text = message.encode(message_budget(containers));
        assert!(text.len() <= message_budget(containers));
        let read = FetchMessage::decode(&text).unwrap();
        assert_eq!(read.head, message.head);
        let tail = read.tail.whole().unwrap();
        assert_eq!(tail.data.len() as u64 + tail.omitted_data, 60);
        assert_eq!(tail.data[..], message.tail.data[..tail.data.len()]);
        assert_eq!(tail.notices, message.tail.notices, "data is left out before a notice");
    }
    let error =
        StepError::new(StepReason::SecretMissing, "Secret \"git\" has no key \"password\"").field("spec.source");
    let failed = FetchMessage::failed(error.clone(), 3);
    assert_eq!(FetchMessage::decode(&failed.encode(1536)).unwrap().error(), Some(error));
}

#[test]
fn every_document_has_a_schema_with_descriptions() {
    let schemas = legion_protocol::schemas();
    let names: std::collections::BTreeSet<_> = schemas.iter().map(|(name, _)| *name).collect();
    assert_eq!(names.len(), schemas.len());
    for (name, schema) in &schemas {
        assert!(schema.get("description").is_some(), "{name} says what it is");
        assert!(
            schema.get("properties").or_else(|| schema.get("oneOf")).is_some(),
            "{name} has content"
        );
    }
}

fn json(value: &impl serde::Serialize) -> serde_json::Value {
    serde_json::to_value(value).unwrap()
}

/// Validates a document with the published schema of this name.
#[track_caller]
fn validate(name: &str, document: &serde_json::Value) {
    let schemas = legion_protocol::schemas();
    let (_, schema) = schemas.iter().find(|(known, _)| *known == name).unwrap();
    let validator = jsonschema::validator_for(schema).unwrap();
    let problems: Vec<_> = validator
        .iter_errors(document)
        .map(|e| format!("{}: {e}", e.instance_path()))
        .collect();
    assert!(problems.is_empty(), "{name}: {problems:?} in {document}");
    // A schema that accepts everything would prove nothing.
    assert!(!validator.is_valid(&serde_json::json!({"outcome": 1, "type": "x", "omitted": "y", "exitCode": "z"})));
}

#[test]
fn written_documents_match_the_published_schemas() {
    let mut message = large();
    for budget in [0, 1536, 2457, 4096] {
        let line = |text: String| serde_json::from_str(text.lines().next().unwrap()).unwrap();
        validate("publish-message-head", &line(message.encode(budget)));
        let error = StepError::new(StepReason::SecretMissing, "x".repeat(900)).field("spec.source");
        validate(
            "fetch-message-head",
            &line(FetchMessage::failed(error, 3).encode(budget)),
        );
    }
    validate("publish-message-tail", &json(&message.tail));
    validate("exit-record", &json(message.head.exit.as_ref().unwrap()));
    let record = SuccessRecord {
        version: 1,
        namespace: "default".into(),
        name: "wine".into(),
        uid: "6f1a".into(),
        run_id: "7f3a1c9e".into(),
        sequence: 1,
        attempt: 1,
        path: "default/wine/7f3a1c9e".into(),
        created_at: time::rfc3339_millis(0),
        head: message.head.clone(),
        facts: message.tail.clone(),
    };
    validate("success-record", &json(&record));
    message.tail.metrics.clear();
    message.head.exit.as_mut().unwrap().error = Some(ExitError {
        reason: StepReason::CommandNotFound,
        message: "no such command".into(),
    });
    validate("publish-message-tail", &json(&message.tail));
    validate("exit-record", &json(message.head.exit.as_ref().unwrap()));
    for line in [
        r#"{"type":"metric","name":"loss","value":NaN,"step":3,"timestamp":1764000000000}"#,
        r#"{"type":"param","name":"c","value":"0.5","child":"c1"}"#,
        r#"{"type":"child","id":"c1"}"#,
    ] {
        validate("event", &json(&ToolEvent::parse(line.as_bytes()).unwrap()));
    }
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        ".{0,40}",
        proptest::collection::vec(any::<char>(), 0..600).prop_map(String::from_iter)
    ]
}

prop_compose! {
    fn messages()(
        texts in proptest::collection::vec(text(), 8),
        metrics in proptest::collection::vec((text(), any::<f64>(), any::<i64>(), any::<Option<i64>>()), 0..70),
        pairs in proptest::collection::vec((text(), text()), 0..60),
        code: Option<i32>, size: u64, reason in proptest::sample::select(StepReason::ALL),
        with_error: bool,
    ) -> PublishMessage {
        let error = StepError::new(reason, texts[0].clone()).field(texts[1].clone()).remedy(texts[2].clone());
        PublishMessage {
            head: PublishHead {
                outcome: PublishOutcome::Error,
                exit: Some(ExitRecord {
                    version: 1, exit_code: code, signal: code, outside_signal: code, timed_out: true,
                    started_at: texts[3].clone(), finished_at: time::rfc3339_millis(code.unwrap_or(0).into()),
                    exec_delay_ms: Some(u32::MAX), max_rss_bytes: Some(size),
                    error: Some(ExitError { reason, message: texts[4].clone() }),
                }),
                artifact: Some(WireArtifact { digest: texts[5].clone(), size_bytes: size, uri: texts[6].clone() }),
                objective: Some(texts[7].clone()),
                counts: Counts { metrics: size, parameters: size, tags: size },
                error: with_error.then(|| HeadError::of(&error)),
            },
            tail: PublishTail {
                metrics: metrics.into_iter().map(|(name, value, step, timestamp)| MetricSummary {
                    name, step, timestamp, count: 1, value: format!("{value:?}"), min: "0.0".into(), max: "1.0".into(),
                }).collect(),
                parameters: pairs.iter().map(|(n, v)| NamedValue { name: n.clone(), value: v.clone() }).collect(),
                error: with_error.then_some(error),
                ..PublishTail::default()
            },
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_head_parses_alone_in_700_bytes_and_every_cut_is_detected(message in messages(), budget in 0usize..5000) {
        let text = message.encode(budget);
        prop_assert!(text.len() <= budget.max(HEAD_LIMIT), "{} > {budget}", text.len());
        let head = text.lines().next().unwrap();
        prop_assert!(head.len() <= HEAD_LIMIT, "{}", head.len());
        let whole = PublishMessage::decode(&text).unwrap();
        prop_assert!(!whole.tail.is_lost());
        prop_assert_eq!(whole.head.exit.as_ref().unwrap().exit_code, message.head.exit.as_ref().unwrap().exit_code);
        prop_assert_eq!(whole.head.error.is_some(), message.head.error.is_some());
        // Cut at every byte in and around the head, and at a sample of the bytes of the tail.
        let tail = (head.len() + 3..text.len()).step_by(97).chain([text.len() - 1]);
        for end in (0..text.len().min(head.len() + 3)).chain(tail) {
            let Some(cut) = text.get(..end) else { continue };
            match PublishMessage::decode(cut) {
                Err(error) => prop_assert!(end < head.len(), "{error} at {end}"),
                Ok(read) => {
                    prop_assert!(end >= head.len());
                    prop_assert_eq!(&read.head, &whole.head);
                    prop_assert_eq!(read.tail, Tail::Cut);
                }
            }
        }
    }

    #[test]
    fn an_altered_tail_is_detected(message in messages(), at: prop::sample::Index) {
        let text = message.encode(4096);
        let head = text.lines().next().unwrap().len();
        prop_assume!(text.len() > head + 1);
        let mut bytes = text.into_bytes();
        let tail = head + 1 + at.index(bytes.len() - head - 1);
        bytes[tail] ^= 1;
        // The API server would not accept a message that is not UTF-8.
        if let Ok(altered) = String::from_utf8(bytes) {
            prop_assert!(PublishMessage::decode(&altered).unwrap().tail.is_lost());
        }
    }

    #[test]
    fn no_text_makes_the_decoder_panic(text in ".{0,300}") {
        let _ = PublishMessage::decode(&text);
        let _ = FetchMessage::decode(&text);
    }
}
