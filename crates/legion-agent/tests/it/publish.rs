//! Publishing to a directory: stored files, messages, and the cost of the wait.

use std::process::Command;
use std::time::{Duration, Instant};

use legion_protocol::digest;
use legion_protocol::exit::ExitRecord;
use legion_protocol::message::PublishOutcome;
use legion_protocol::reason::{StepClass, StepReason};
use legion_protocol::success::SuccessRecord;
use legion_protocol::task::{SourceTask, WireStore};

use crate::harness::{Pod, exit_code};

const EVENTS: &str = r#"{"type":"param","name":"c","value":"0.5"}
{"type":"metric","name":"val_accuracy","value":0.9166666666666666,"step":0,"timestamp":1795453297000}
{"type":"metric","name":"val_accuracy","value":0.9722222222222222,"step":1,"timestamp":1795453298000}
{"type":"metric","name":"loss","value":NaN,"step":1,"timestamp":1795453298000}
{"type":"tag","name":"dataset","value":"wine"}
{"type":"message","level":"notice","reason":"NoSignature","text":"the model declares no inputs"}
{"type":"metric","na"#;

const RESULT: &str = r#"{"protocol":1,"model":{"path":"model","format":"gppi/v1","name":"model","signature":false},
 "files":[{"name":"plots/roc.png","path":"roc.png"}],"external":{"system":"mlflow","version":"3.17.2"},
 "environment":{"python":"3.11.7"}}"#;

/// Writes the output of a successful trainer.
pub(crate) fn good(pod: &Pod) {
    pod.write("work/output/model/MLmodel", "flavors: {}\n");
    pod.write("work/output/model/data/model.bin", [7; 1000]);
    pod.write("work/output/roc.png", "png");
    pod.write("run/events.jsonl", EVENTS);
    pod.write("run/result.json", RESULT);
    pod.write("run/log", "epoch 1\nepoch 2\n");
}

#[test]
fn a_successful_run_is_stored_and_reported() {
    let pod = Pod::new();
    let published = pod.run(&exit_code(0), good);
    let (head, tail) = (&published.message.head, published.tail());
    assert_eq!(
        (head.outcome, published.code),
        (PublishOutcome::Published, Some(0)),
        "{}",
        published.stderr
    );
    assert_eq!(head.objective.as_deref(), Some("0.9722222222222222"));
    assert_eq!(
        (head.counts.metrics, head.counts.parameters, head.counts.tags),
        (2, 1, 1)
    );
    let artifact = head.artifact.as_ref().unwrap();
    let stored = std::fs::read(pod.stored("model.tar")).unwrap();
    assert_eq!(
        (artifact.size_bytes, &artifact.digest),
        (stored.len() as u64, &digest::of_bytes(&stored))
    );
    assert_eq!(artifact.uri, "file:///models/default/wine/7f3a1c9e/model.tar");

    assert_eq!(tail.metrics[0].name, "val_accuracy");
    assert_eq!(
        (tail.metrics[0].min.as_str(), tail.metrics[0].count),
        ("0.9166666666666666", 2)
    );
    assert_eq!(tail.metrics[1].value, "NaN");
    assert_eq!((tail.signature, tail.format.as_str()), (Some(false), "gppi/v1"));
    assert_eq!(tail.notices[0].reason, "NoSignature");
    assert_eq!(tail.external.unwrap().version, "3.17.2");
    assert_eq!(tail.series.unwrap().points, Some(3));

    // The system's tar can read it. The entries are sorted by name.
    let list = Command::new("tar")
        .arg("-tf")
        .arg(pod.stored("model.tar"))
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8(list.stdout).unwrap(),
        "MLmodel\ndata\ndata/model.bin\n"
    );
    let list = Command::new("tar")
        .arg("-tf")
        .arg(pod.stored("files.tar"))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(list.stdout).unwrap(), "plots/roc.png\n");
    assert_eq!(
        std::fs::read_to_string(pod.stored("log.txt")).unwrap(),
        "epoch 1\nepoch 2\n"
    );
    let series = std::fs::read_to_string(pod.stored("series.jsonl")).unwrap();
    assert_eq!(series.lines().count(), 6);
    assert!(series.contains(r#""value":"NaN""#), "what is stored is JSON: {series}");

    let record: SuccessRecord = serde_json::from_str(&pod.read("storage/output/.legion/6f1a/7f3a1c9e.json")).unwrap();
    assert!(record.is_about("6f1a", "7f3a1c9e"));
    assert_eq!(&record.head, head);
}

#[test]
fn a_command_without_result_document_can_be_a_trainer() {
    let pod = Pod::new();
    let published = pod.run(&exit_code(0), |pod| {
        pod.write("work/output/model/weights", "1");
    });
    assert_eq!(
        published.message.head.outcome,
        PublishOutcome::Published,
        "{}",
        published.stderr
    );
    assert_eq!(published.tail().format, "gppi/v1", "the toolchain's own");
    assert!(published.tail().metrics.is_empty());

    // A toolchain may report that there is no model. Without a report, a missing model is a failure.
    let pod = Pod::new();
    let published = pod.run(&exit_code(0), |pod| {
        pod.write("run/result.json", r#"{"protocol":1}"#);
    });
    assert_eq!(published.message.head.outcome, PublishOutcome::Published);
    assert!(published.message.head.artifact.is_none() && pod.at("storage/output/.legion").exists());
    let pod = Pod::new();
    pod.run(&exit_code(0), |_| {})
        .error(StepReason::ModelMissing, "\"model\"");
}

#[test]
fn equal_files_give_equal_archives() {
    let digests = [3, 1].map(|n| {
        let pod = Pod::new();
        let published = pod.run(&exit_code(0), |pod| {
            good(pod);
            let names = ["a", "b", "c/d", &"long".repeat(40)];
            // Times, order and permission bits differ. They must not matter.
            for i in 0..names.len() {
                pod.write(&format!("work/output/model/{}", names[(i * n) % names.len()]), "x");
            }
            let mode = std::os::unix::fs::PermissionsExt::from_mode(if n == 1 { 0o640 } else { 0o606 });
            std::fs::set_permissions(pod.at("work/output/model/a"), mode).unwrap();
        });
        published.message.head.artifact.unwrap().digest
    });
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn the_next_attempt_repeats_what_the_first_published() {
    let pod = Pod::new();
    let first = pod.run(&exit_code(0), good);
    pod.write("storage/source/train.py", "");
    let mut task = pod.fetch_task(SourceTask::Volume { path: String::new() });
    task.training.attempt = 2;
    std::fs::remove_file(pod.at("run/started")).unwrap();
    pod.fetch_ok(&task);
    assert!(pod.at("run/skip").exists());
    let again = pod.published(pod.start_publish(&pod.publish_task()));
    assert_eq!(again.message.head.outcome, PublishOutcome::Skipped);
    assert_eq!(again.message.head.artifact, first.message.head.artifact);
    assert_eq!(again.tail(), first.tail());

    // A record without its artifact does not count.
    std::fs::remove_file(pod.at("run/skip")).unwrap();
    std::fs::write(pod.stored("model.tar"), "cut").unwrap();
    pod.fetch_ok(&task);
    assert!(!pod.at("run/skip").exists());
}

#[test]
fn an_output_without_write_access_is_a_final_error() {
    // No user can create a directory there.
    let unwritable = "/sys/kernel";
    let pod = Pod::new();
    std::fs::remove_dir(pod.at("storage/output")).unwrap();
    std::os::unix::fs::symlink(unwritable, pod.at("storage/output")).unwrap();
    let published = pod.run(&exit_code(0), good);
    published.error(
        StepReason::OutputNotWritable,
        "the connection \"models\": cannot create",
    );
    let error = published.message.error().unwrap();
    assert_eq!(error.class(), StepClass::User, "trying again gives the same answer");
    assert_eq!(error.field, "spec.output");
    assert!(
        error.message.contains("file:///models/default/wine/7f3a1c9e"),
        "{error}"
    );
    assert!(error.remedy.contains("spec.output"), "{}", error.remedy);
    // The end of the command is reported anyway.
    assert_eq!(published.message.head.exit, Some(exit_code(0)));

    // A file that conflicts with the record is found only at the end.
    let pod = Pod::new();
    pod.write("storage/output/.legion", "a file");
    let published = pod.run(&exit_code(0), good);
    published.error(
        StepReason::OutputNotWritable,
        "file:///models/.legion/6f1a/7f3a1c9e.json",
    );
}

#[test]
fn the_first_of_two_published_results_counts() {
    let pod = Pod::new();
    let first = pod.run(&exit_code(0), good);
    let second = pod.run(&exit_code(0), |pod| {
        good(pod);
        pod.write("run/events.jsonl", "");
    });
    assert_eq!(second.message.head.outcome, PublishOutcome::Skipped);
    assert_eq!(second.tail(), first.tail());
}

#[test]
fn a_failed_trainer_has_log_and_metrics_but_no_artifact() {
    let interrupted = ExitRecord {
        outside_signal: Some(15),
        ..exit_code(0)
    };
    let timed_out = ExitRecord {
        timed_out: true,
        signal: Some(9),
        exit_code: None,
        ..exit_code(0)
    };
    for record in [exit_code(3), interrupted, timed_out] {
        let pod = Pod::new();
        let published = pod.run(&record, |pod| {
            good(pod);
            pod.write(
                "run/log",
                format!("{}Traceback\nValueError: bad data\n", "noise\n".repeat(1000)),
            );
        });
        let head = &published.message.head;
        assert_eq!((head.outcome, published.code), (PublishOutcome::Failed, Some(0)));
        assert_eq!(head.exit.as_ref(), Some(&record));
        assert!(head.artifact.is_none() && !pod.stored("model.tar").exists());
        assert!(!pod.at("storage/output/.legion").exists(), "no proof of success");
        let tail = published.tail();
        assert!(tail.log_tail.ends_with("ValueError: bad data") && tail.log_tail.starts_with("noise\n"));
        assert_eq!(tail.metrics.len(), 2);
        assert!(
            std::fs::read_to_string(pod.stored("log.txt"))
                .unwrap()
                .contains("ValueError")
        );
    }
}

#[test]
fn a_trainer_that_the_kernel_killed_is_detected_without_a_record() {
    let pod = Pod::new();
    let trainer = pod.trainer();
    let child = pod.start_publish(&pod.publish_task());
    trainer.start();
    good(&pod);
    pod.write("run/log.tail.old", "older\n");
    pod.write("run/log.tail", "newest\n");
    trainer.end(None);
    let published = pod.published(child);
    assert_eq!(
        (published.message.head.outcome, published.message.head.exit.is_none()),
        (PublishOutcome::Failed, true)
    );
    let tail = published.tail();
    assert_eq!(tail.log_tail, "newest");
    assert!(tail.log.unwrap().truncated);
    let log = std::fs::read_to_string(pod.stored("log.txt")).unwrap();
    assert_eq!(
        log,
        "epoch 1\nepoch 2\n\n[legion: output left out here]\nolder\nnewest\n"
    );
}

#[test]
fn a_command_that_could_not_be_started_is_reported() {
    let pod = Pod::new();
    let trainer = pod.trainer();
    let child = pod.start_publish(&pod.publish_task());
    let error = legion_protocol::exit::ExitError {
        reason: StepReason::WorkDirMissing,
        message: "no directory".into(),
    };
    trainer.end(Some(&ExitRecord {
        version: 1,
        error: Some(error.clone()),
        ..ExitRecord::default()
    }));
    let published = pod.published(child);
    assert_eq!(published.message.head.outcome, PublishOutcome::Failed);
    assert_eq!(published.message.head.exit.unwrap().error, Some(error));
}

#[test]
fn waiting_costs_little_and_ends_immediately() {
    let pod = Pod::new();
    let trainer = pod.trainer();
    let child = pod.start_publish(&pod.publish_task());
    trainer.start();
    good(&pod);
    // The kernel's list of locks shows which process waits for a lock.
    let waits = format!(" {} ", child.id());
    let waiting = || {
        let locks = std::fs::read_to_string("/proc/locks").unwrap();
        locks.lines().any(|l| l.contains("->") && l.contains(&waits))
    };
    while !waiting() {
        std::thread::yield_now();
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let kib = |name: &str| -> u64 {
        status
            .split(name)
            .nth(1)
            .unwrap()
            .split_whitespace()
            .next()
            .unwrap()
            .parse()
            .unwrap()
    };
    let (resident, own) = (kib("VmRSS:"), kib("RssAnon:"));
    println!("publish while it waits: {resident} KiB resident, {own} KiB of them its own");
    // Most of it is the code of the program. An unoptimized build has twice as much of it: 8.8 MiB here, 4.3 MiB with
    // --release. The allocated memory is the same in both, and it would grow first.
    let limit = if cfg!(debug_assertions) { 12 } else { 8 };
    assert!(resident < limit * 1024, "{resident} KiB");
    assert!(own < 1536, "{own} KiB of its own");
    assert_eq!(kib("Threads:"), 2, "no runtime is created for the wait");
    let ended = Instant::now();
    trainer.end(Some(&exit_code(0)));
    let published = pod.published(child);
    println!(
        "from the trainer's end to publish's end: {} ms",
        ended.elapsed().as_millis()
    );
    assert_eq!(published.message.head.outcome, PublishOutcome::Published);
    assert!(ended.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_large_model_is_packed_in_little_memory() {
    let pod = Pod::new();
    let trainer = pod.trainer();
    trainer.start();
    good(&pod);
    std::fs::File::create(pod.at("work/output/model/weights"))
        .unwrap()
        .set_len(256 << 20)
        .unwrap();
    trainer.end(Some(&exit_code(0)));
    let agent = pod.agent("publish", &pod.publish_task());
    // The kernel measures it. Python reads it, because GNU time may not be installed.
    let mut command = Command::new("python3");
    command.args(["-c", "import resource,subprocess,sys; c=subprocess.run(sys.argv[1:]).returncode; print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(c)"]);
    command.arg(agent.get_program()).args(agent.get_args());
    command.envs(agent.get_envs().filter_map(|(k, v)| Some((k, v?))));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let peak: u64 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    println!("peak resident memory while packing 256 MiB: {peak} KiB");
    assert!(peak < 32 * 1024, "{peak} KiB");
    assert!(std::fs::metadata(pod.stored("model.tar")).unwrap().len() > 256 << 20);
}

#[test]
fn a_signal_before_the_start_of_the_trainer_stops_publish() {
    let pod = Pod::new();
    let trainer = pod.trainer();
    let child = pod.start_publish(&pod.publish_task());
    // The signal mask shows whether it handles TERM: bit 14 of SigBlk.
    let blocks_term = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let mask = status
            .split("SigBlk:")
            .nth(1)
            .unwrap()
            .split_whitespace()
            .next()
            .unwrap()
            .to_owned();
        u64::from_str_radix(&mask, 16).unwrap() & (1 << 14) != 0
    };
    while !blocks_term() {
        std::thread::yield_now();
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM).unwrap();
    let published = pod.published(child);
    assert_eq!(published.code, Some(143));
    assert_eq!(published.message.error().unwrap().reason, StepReason::Interrupted);
    drop(trainer);
}

#[test]
fn a_signal_while_the_store_does_not_answer_reports_the_known_results() {
    let mut pod = Pod::new();
    // A store that accepts connections but never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    pod.store = WireStore::S3 {
        bucket: "models".into(),
        prefix: String::new(),
        endpoint: format!("http://{}", silent.local_addr().unwrap()),
        region: String::new(),
        secret: String::new(),
    };
    let trainer = pod.trainer();
    trainer.start();
    good(&pod);
    let mut task = pod.publish_task();
    task.grace_seconds = 1;
    let child = pod.start_publish(&task);
    trainer.end(Some(&exit_code(0)));
    let connection = silent.accept().unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM).unwrap();
    let published = pod.published(child);
    assert_eq!(published.code, Some(143));
    assert_eq!(published.message.error().unwrap().reason, StepReason::Interrupted);
    assert_eq!(
        published.message.head.exit,
        Some(exit_code(0)),
        "known results are reported"
    );
    drop(connection);
}

#[test]
fn a_signal_while_the_trainer_ends_lets_publish_finish() {
    let pod = Pod::new();
    let trainer = pod.trainer();
    trainer.start();
    good(&pod);
    let child = pod.start_publish(&pod.publish_task());
    let waits = format!(" {} ", child.id());
    while !std::fs::read_to_string("/proc/locks")
        .unwrap()
        .lines()
        .any(|l| l.contains("->") && l.contains(&waits))
    {
        std::thread::yield_now();
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM).unwrap();
    trainer.end(Some(&ExitRecord {
        outside_signal: Some(15),
        ..exit_code(143)
    }));
    let published = pod.published(child);
    assert_eq!(published.message.head.outcome, PublishOutcome::Failed);
    assert!(pod.stored("log.txt").exists());
}
