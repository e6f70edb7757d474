//! Hostile output of a trainer. `publish` has credentials and must not be tricked by it.

use std::fs::File;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use legion_protocol::message::PublishOutcome;
use legion_protocol::reason::StepReason;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::harness::{Pod, exit_code};
use crate::publish::good;

const SECRET: &str = "AKIA-the-credential";

/// Runs a trainer with a hostile model, and checks the error.
#[track_caller]
fn model(reason: StepReason, words: &str, leave: impl FnOnce(&Pod)) {
    let pod = Pod::new();
    pod.secret("output", "AWS_SECRET_ACCESS_KEY", SECRET);
    let begun = Instant::now();
    let published = pod.run(&exit_code(0), |pod| {
        good(pod);
        leave(pod);
    });
    published.error(reason, words);
    assert!(begun.elapsed() < Duration::from_secs(30), "it does not hang");
    assert!(!pod.stored("model.tar").exists(), "nothing of it is stored");
    assert!(!published.stderr.contains(SECRET) && !pod.read("termination-log").contains(SECRET));
}

#[test]
fn a_link_to_a_credential() {
    model(StepReason::OutputHostile, "model/leak", |pod| {
        symlink(
            pod.at("secrets/output/AWS_SECRET_ACCESS_KEY"),
            pod.at("work/output/model/leak"),
        )
        .unwrap();
    });
}

#[test]
fn a_model_directory_that_is_a_link() {
    model(StepReason::OutputHostile, "\"model\"", |pod| {
        std::fs::rename(pod.at("work/output/model"), pod.at("work/output/other")).unwrap();
        symlink(pod.at("secrets"), pod.at("work/output/model")).unwrap();
    });
}

#[test]
fn an_output_directory_that_is_a_link_to_the_credentials() {
    model(StepReason::OutputHostile, "symbolic link", |pod| {
        std::fs::remove_dir_all(pod.at("work/output")).unwrap();
        symlink(pod.at("secrets/output"), pod.at("work/output")).unwrap();
        pod.write(
            "run/result.json",
            r#"{"protocol":1,"model":{"path":"AWS_SECRET_ACCESS_KEY"}}"#,
        );
    });
}

#[test]
fn a_lock_file_that_was_replaced_by_a_fifo_does_not_block_publish() {
    let pod = Pod::new();
    let trainer = pod.trainer();
    std::fs::remove_file(pod.at("run/lock")).unwrap();
    mknodat(CWD, pod.at("run/lock"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    trainer.start();
    let published = pod.published(pod.start_publish(&pod.publish_task()));
    assert_eq!(published.message.head.outcome, PublishOutcome::Failed);
    drop(trainer);
}

#[test]
fn a_hard_link_to_a_file_outside() {
    model(StepReason::OutputHostile, "hard link", |pod| {
        std::fs::hard_link(
            pod.at("secrets/output/AWS_SECRET_ACCESS_KEY"),
            pod.at("work/output/model/leak"),
        )
        .unwrap();
    });
}

#[test]
fn hard_links_within_the_model_are_fine() {
    let pod = Pod::new();
    let published = pod.run(&exit_code(0), |pod| {
        good(pod);
        std::fs::hard_link(pod.at("work/output/model/MLmodel"), pod.at("work/output/model/again")).unwrap();
    });
    assert_eq!(
        published.message.head.outcome,
        PublishOutcome::Published,
        "{}",
        published.stderr
    );
}

#[test]
fn a_fifo_and_a_device() {
    model(StepReason::OutputHostile, "model/fifo", |pod| {
        mknodat(CWD, pod.at("work/output/model/fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    });
    let probe = tempfile::tempdir().unwrap();
    let device = rustix::fs::makedev(1, 5);
    if mknodat(
        CWD,
        probe.path().join("zero"),
        FileType::CharacterDevice,
        Mode::RWXU,
        device,
    )
    .is_err()
    {
        println!("SKIPPED: this user may not make a device");
        return;
    }
    model(StepReason::OutputHostile, "model/zero", |pod| {
        mknodat(
            CWD,
            pod.at("work/output/model/zero"),
            FileType::CharacterDevice,
            Mode::RWXU,
            device,
        )
        .unwrap();
    });
}

#[test]
fn an_endless_sparse_file() {
    model(StepReason::TooLarge, "bytes of files", |pod| {
        File::create(pod.at("work/output/model/endless"))
            .unwrap()
            .set_len(1 << 43)
            .unwrap();
    });
}

#[test]
fn too_many_files_and_too_deep_a_tree() {
    let pod = Pod::new();
    let mut task = pod.publish_task();
    task.limits.entries = 1000;
    let published = pod.run_with(&task, &exit_code(0), |pod| {
        good(pod);
        for i in 0..1001 {
            File::create(pod.at(format!("work/output/model/{i}"))).unwrap();
        }
    });
    published.error(StepReason::TooLarge, "1000 files and directories");
    model(StepReason::TooLarge, "deeper than 64 levels", |pod| {
        std::fs::create_dir_all(pod.at("work/output/model").join("d/".repeat(100))).unwrap();
    });
}

#[test]
fn a_hundred_thousand_files_are_packed_or_refused_in_bounded_time() {
    let pod = Pod::in_memory();
    let begun = std::cell::Cell::new(Instant::now());
    let published = pod.run(&exit_code(0), |pod| {
        good(pod);
        for i in 0..100_000 {
            File::create(pod.at(format!("work/output/model/{i}"))).unwrap();
        }
        begun.set(Instant::now());
    });
    published.error(StepReason::TooLarge, "100000 files and directories");
    println!("100000 files refused after {} ms", begun.get().elapsed().as_millis());
}

#[test]
fn names_that_are_not_utf8_are_packed_unchanged_and_shown_as_text() {
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
    let name = |bytes: &[u8]| std::ffi::OsString::from_vec(bytes.to_vec());
    let odd = b"a\xff\n\x1b[31mb";
    let pod = Pod::new();
    let published = pod.run(&exit_code(0), |pod| {
        good(pod);
        std::fs::write(pod.at("work/output/model").join(name(odd)), "1").unwrap();
        std::fs::write(
            pod.at("work/output/model")
                .join(name(&[b"x".as_slice(), &[0xfe; 200]].concat())),
            "2",
        )
        .unwrap();
    });
    assert_eq!(
        published.message.head.outcome,
        PublishOutcome::Published,
        "{}",
        published.stderr
    );
    let mut archive = tar::Archive::new(File::open(pod.stored("model.tar")).unwrap());
    let names: Vec<Vec<u8>> = archive
        .entries()
        .unwrap()
        .map(|e| e.unwrap().path().unwrap().as_os_str().as_bytes().to_vec())
        .collect();
    assert!(
        names.iter().any(|n| n == odd) && names.iter().any(|n| n.len() == 201),
        "{names:?}"
    );
    // In a message, the name must neither end the line nor control a terminal.
    model(StepReason::OutputHostile, "model/a\u{fffd}  [31mb", |pod| {
        symlink("/etc", pod.at("work/output/model").join(name(odd))).unwrap();
    });
}

#[test]
fn a_file_in_place_of_a_directory_of_the_result_document() {
    model(StepReason::ModelMissing, "model/MLmodel/x", |pod| {
        pod.write(
            "run/result.json",
            r#"{"protocol":1,"model":{"path":"model/MLmodel/x"}}"#,
        );
    });
}

#[test]
fn a_missing_or_empty_model() {
    model(StepReason::ModelMissing, "\"model\"", |pod| {
        std::fs::remove_dir_all(pod.at("work/output/model")).unwrap()
    });
    model(StepReason::ModelMissing, "no file", |pod| {
        std::fs::remove_dir_all(pod.at("work/output/model")).unwrap();
        std::fs::create_dir(pod.at("work/output/model")).unwrap();
    });
}

#[test]
fn paths_of_the_result_document_that_leave_the_output() {
    for path in ["../../secrets/output", "/etc", "model/../../.."] {
        model(StepReason::ProtocolViolation, "leaves the directory", |pod| {
            pod.write(
                "run/result.json",
                format!(r#"{{"protocol":1,"model":{{"path":"{path}"}}}}"#),
            );
        });
    }
}

#[test]
fn control_files_of_the_wrong_type_or_size() {
    for name in ["events.jsonl", "result.json"] {
        for what in ["link", "fifo", "directory", "endless"] {
            let words = if name.starts_with("events") {
                "LEGION_EVENTS"
            } else {
                "LEGION_RESULT"
            };
            model(StepReason::ProtocolViolation, words, |pod| {
                let path = pod.at(format!("run/{name}"));
                std::fs::remove_file(&path).unwrap();
                match what {
                    "link" => symlink(pod.at("secrets/output/AWS_SECRET_ACCESS_KEY"), &path).unwrap(),
                    "fifo" => mknodat(CWD, &path, FileType::Fifo, Mode::RWXU, 0).unwrap(),
                    "directory" => std::fs::create_dir(&path).unwrap(),
                    _ => File::create(&path).unwrap().set_len(1 << 43).unwrap(),
                }
            });
        }
    }
}

#[test]
fn an_invalid_event_is_reported_by_its_line_and_never_quoted() {
    model(StepReason::ProtocolViolation, "line 2", |pod| {
        let events = format!("{{\"type\":\"tag\",\"name\":\"a\",\"value\":\"b\"}}\n{SECRET}\n");
        pod.write("run/events.jsonl", events);
    });
    // A line without an end.
    model(StepReason::ProtocolViolation, "line 1", |pod| {
        pod.write("run/events.jsonl", vec![b'x'; 10 << 20]);
    });
}

#[test]
fn an_error_of_the_toolchain_reaches_the_user_unchanged() {
    model(StepReason::ToolchainError, "PythonNotAvailable: wanted 3.9", |pod| {
        let error = r#"{"reason":"PythonNotAvailable","field":"spec.arguments.python","message":"wanted 3.9","remedy":"install it"}"#;
        pod.write("run/result.json", format!(r#"{{"protocol":1,"error":{error}}}"#));
    });
}

#[test]
fn an_invalid_exit_record_is_not_a_success() {
    for content in ["", "{", "[]", "{\"version\":1,\"exitCode\":\"0\"}"] {
        let pod = Pod::new();
        let trainer = pod.trainer();
        let child = pod.start_publish(&pod.publish_task());
        trainer.start();
        good(&pod);
        pod.write("run/exit.json", content);
        trainer.end(None);
        let published = pod.published(child);
        assert_eq!(published.message.head.outcome, PublishOutcome::Failed);
        assert!(published.message.head.exit.is_none());
    }
}
