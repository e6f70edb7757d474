//! Sources from ConfigMaps and volumes, and the parts that every fetch has in common.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Instant;

use legion_protocol::digest;
use legion_protocol::message::FetchOutcome;
use legion_protocol::reason::StepReason;
use legion_protocol::task::{SourceTask, WireStore};

use crate::harness::Pod;

const FILES: [(&str, &[u8]); 2] = [("MLproject", b"name: wine\n"), ("src/train.py", b"print('hi')\n")];

/// Creates a ConfigMap as the kubelet mounts it: links to the directory of a version.
fn mounted() -> (Pod, SourceTask) {
    let pod = Pod::new();
    for (path, content) in FILES {
        pod.write(&format!("source-config/..2026_11_23/{path}"), content);
    }
    symlink("..2026_11_23", pod.at("source-config/..data")).unwrap();
    symlink("..data/MLproject", pod.at("source-config/MLproject")).unwrap();
    symlink("..data/src", pod.at("source-config/src")).unwrap();
    let digest = digest::of_files(FILES);
    (
        pod,
        SourceTask::ConfigMap {
            name: "wine-source".into(),
            digest,
        },
    )
}

#[test]
fn a_config_map_becomes_a_project() {
    let (pod, source) = mounted();
    let task = pod.fetch_task(source);
    let mut best = u128::MAX;
    for _ in 0..5 {
        let begun = Instant::now();
        pod.fetch_ok(&task);
        best = best.min(begun.elapsed().as_millis());
    }
    println!("fetch of a ConfigMap with a local output, process start to end: {best} ms");
    for (path, content) in FILES {
        assert_eq!(pod.read(&format!("work/source/{path}")).as_bytes(), content);
    }
    assert!(!pod.at("work/source/..data").exists());
    let training = pod.training();
    assert_eq!(training.source.digest, digest::of_files(FILES));
    assert_eq!(training.run_id, task.training.run_id);
    assert_ne!(
        std::fs::metadata(pod.at("bin/legion-entry"))
            .unwrap()
            .permissions()
            .mode()
            & 0o111,
        0
    );
    for made in ["run/lock", "work/output", "work/data", "work/home", "work/tmp"] {
        assert!(pod.at(made).exists(), "{made}");
    }
    assert!(!pod.at("run/skip").exists());
}

#[test]
fn a_changed_or_missing_config_map_is_reported() {
    let (pod, source) = mounted();
    pod.write("source-config/..2026_11_23/MLproject", "name: other\n");
    pod.fetch_error(
        &pod.fetch_task(source.clone()),
        StepReason::SourceChanged,
        &["wine-source", "sha256:"],
    );
    let pod = Pod::new();
    pod.fetch_error(
        &pod.fetch_task(source),
        StepReason::SourceNotFound,
        &["wine-source", "create the ConfigMap"],
    );
}

#[test]
fn the_working_directory_must_exist_and_stay_inside() {
    let (pod, source) = mounted();
    let mut task = pod.fetch_task(source);
    task.training.work_dir = "src".into();
    pod.fetch_ok(&task);
    task.training.work_dir = "nowhere".into();
    pod.fetch_error(
        &task,
        StepReason::WorkDirMissing,
        &["\"nowhere\"", "at its top level: src"],
    );
    for path in ["../run", "/etc", "src/../../.."] {
        task.training.work_dir = path.into();
        pod.fetch_error(&task, StepReason::PathEscapes, &[path]);
    }
}

#[test]
fn an_output_that_cannot_be_written_fails_before_the_training() {
    let (mut pod, source) = mounted();
    pod.write("storage/output/default/wine", "a file in the way");
    let error = pod.fetch_error(
        &pod.fetch_task(source.clone()),
        StepReason::OutputNotWritable,
        &["default/wine"],
    );
    assert_eq!(error.field, "spec.output");
    pod.store = WireStore::Http {
        uri: "https://e.org".into(),
        secret: String::new(),
    };
    pod.fetch_error(
        &pod.fetch_task(source),
        StepReason::OutputNotWritable,
        &["http", "s3, pvc or local"],
    );
}

#[test]
fn a_volume_is_copied_and_its_links_stay_inside() {
    let pod = Pod::new();
    pod.write("storage/source/project/train.py", "1");
    pod.write("storage/source/project/run.sh", "#!/bin/sh\n");
    std::fs::set_permissions(
        pod.at("storage/source/project/run.sh"),
        PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    symlink("train.py", pod.at("storage/source/project/main.py")).unwrap();
    let task = pod.fetch_task(SourceTask::Volume { path: "project".into() });
    pod.fetch_ok(&task);
    assert_eq!(pod.read("work/source/main.py"), "1");
    assert_ne!(
        std::fs::metadata(pod.at("work/source/run.sh"))
            .unwrap()
            .permissions()
            .mode()
            & 0o111,
        0
    );
    // As in git: what is no file, directory or link is left out.
    let fifo = pod.at("storage/source/project/fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    let notices = pod.fetch_ok(&task).notices;
    assert_eq!(notices.len(), 1, "{notices:?}");
    assert_eq!(notices[0].reason, "SpecialFilesLeftOut");
    assert!(notices[0].message.contains("fifo") && !pod.at("work/source/fifo").exists());
    let first = pod.training().source.digest;
    pod.write("storage/source/project/train.py", "2");
    pod.fetch_ok(&task);
    assert_ne!(pod.training().source.digest, first);

    symlink("../../../secrets", pod.at("storage/source/project/out")).unwrap();
    pod.fetch_error(&task, StepReason::PathEscapes, &["\"out\""]);
    pod.fetch_error(
        &pod.fetch_task(SourceTask::Volume { path: "no".into() }),
        StepReason::SourceNotFound,
        &["\"no\"", "for example: project"],
    );
    pod.fetch_error(
        &pod.fetch_task(SourceTask::Volume {
            path: "project/train.py".into(),
        }),
        StepReason::SourceNotFound,
        &["\"project/train.py\" of the volume is one file"],
    );
    // The agent's own files are not a source, whatever a link of the volume says.
    symlink("../../secrets", pod.at("storage/source/credentials")).unwrap();
    pod.fetch_error(
        &pod.fetch_task(SourceTask::Volume {
            path: "credentials".into(),
        }),
        StepReason::PathEscapes,
        &["\"credentials\"", "points outside"],
    );
}

#[test]
fn an_invalid_task_is_reported_in_the_message() {
    let pod = Pod::new();
    let output = pod.agent("fetch", &serde_json::json!({"version": 1})).output().unwrap();
    assert!(!output.status.success());
    let message = legion_protocol::message::FetchMessage::decode(&pod.read("termination-log")).unwrap();
    assert_eq!(
        (message.head.outcome, message.error().unwrap().reason),
        (FetchOutcome::Error, StepReason::TaskInvalid)
    );
}
