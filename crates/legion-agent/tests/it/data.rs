//! Data bindings from volumes and web servers.

use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::sync::mpsc;

use legion_protocol::digest;
use legion_protocol::message::FetchMessage;
use legion_protocol::reason::{StepClass, StepReason};
use legion_protocol::task::{DataTask, FetchTask, SourceTask, WireStore};

use crate::harness::{self, Pod, answer, sh};

pub(crate) fn binding(name: &str, store: WireStore, remote: &str, local: &str) -> DataTask {
    DataTask {
        name: name.into(),
        slot: "data-0".into(),
        store,
        remote_path: remote.into(),
        local_path: local.into(),
        digest: String::new(),
        uri: format!("file:///data/{remote}"),
    }
}

fn with(pod: &Pod, data: Vec<DataTask>) -> FetchTask {
    pod.write("storage/source/train.py", "");
    pod.write("storage/source/data/.keep", "");
    with_source_of(pod, data)
}

/// Returns a task with the source that the pod already has.
fn with_source_of(pod: &Pod, data: Vec<DataTask>) -> FetchTask {
    FetchTask {
        data,
        ..pod.fetch_task(SourceTask::Volume { path: String::new() })
    }
}

pub(crate) fn volume() -> WireStore {
    WireStore::Volume { path: String::new() }
}

#[test]
fn files_and_directories_are_placed_at_their_local_path() {
    let pod = Pod::new();
    pod.write("storage/data-0/wine.csv", "a,b\n");
    pod.write("storage/data-0/images/1.png", "1");
    for (remote, local, found) in [
        ("wine.csv", "", "work/data/d"),
        ("wine.csv", "input/renamed.csv", "work/source/input/renamed.csv"),
        ("wine.csv", "data/", "work/source/data/wine.csv"),
        ("images", "data", "work/source/data/1.png"),
        ("images", "", "work/data/d/1.png"),
    ] {
        let task = with(&pod, vec![binding("d", volume(), remote, local)]);
        let tail = pod.fetch_ok(&task);
        assert!(pod.at(found).is_file(), "{remote} -> {local:?}");
        assert!(
            pod.at("work/data/d").exists(),
            "the name of the binding always points to it"
        );
        assert_eq!((tail.data[0].name.as_str(), tail.data[0].files), ("d", 1));
        assert!(digest::is_digest(&tail.data[0].digest));
        assert_eq!(pod.training().data[0].digest, tail.data[0].digest);
        assert!(std::path::Path::new(&pod.training().data[0].path).exists());
        if local == "data" {
            assert!(
                pod.at("work/source/data/.keep").exists(),
                "existing files of the project remain"
            );
        }
    }
}

#[test]
fn invalid_bindings_are_reported() {
    let pod = Pod::new();
    pod.write("storage/data-0/wine.csv", "a,b\n");
    symlink("/etc", pod.at("storage/data-0/etc")).unwrap();
    let error = |data: DataTask, reason, words: &[&str]| {
        let error = pod.fetch_error(&with(&pod, vec![data]), reason, words);
        assert!(error.field.starts_with("spec.data[d]"), "{error:?}");
    };
    error(
        binding("d", volume(), "nothing.csv", ""),
        StepReason::DataNotFound,
        &["nothing.csv"],
    );
    error(
        binding("d", volume(), "wine.csv", "../out.csv"),
        StepReason::PathEscapes,
        &["../out.csv"],
    );
    error(
        binding("d", volume(), "wine.csv", "/etc/passwd"),
        StepReason::PathEscapes,
        &["/etc/passwd"],
    );
    error(
        binding("d", volume(), "../../secrets", ""),
        StepReason::PathEscapes,
        &["../../secrets"],
    );
    error(
        binding("d", volume(), "etc/hostname", ""),
        StepReason::PathEscapes,
        &["etc/hostname", "points outside"],
    );
    let mut wrong = binding("d", volume(), "wine.csv", "");
    wrong.digest = digest::of_bytes(b"other");
    error(
        wrong.clone(),
        StepReason::DigestMismatch,
        &[&wrong.digest, &digest::of_bytes(b"a,b\n")],
    );
    wrong.digest = digest::of_bytes(b"a,b\n");
    pod.fetch_ok(&with(&pod, vec![wrong]));
    // A link of the project must not move the data out of it.
    symlink("data", pod.at("storage/source/linked")).unwrap();
    error(
        binding("d", volume(), "wine.csv", "linked/x.csv"),
        StepReason::PathEscapes,
        &["linked/x.csv"],
    );
}

#[test]
fn data_that_meets_the_source_at_its_local_path_ends_the_run() {
    let pod = Pod::new();
    pod.write("storage/data-0/wine.csv", "a,b\n");
    pod.write("storage/data-0/images/deep/1.png", "1");
    pod.write("storage/source/notes", "see the wiki\n");
    pod.write("storage/source/wine.csv/part1", "x\n");
    pod.write("storage/source/pictures/deep", "a file\n");
    pod.write("storage/source/sample.csv", "sample\n");
    let task = |remote: &str, local: &str| with(&pod, vec![binding("rows", volume(), remote, local)]);
    for (remote, local, words) in [
        (
            "images",
            "notes",
            ["\"notes\"", "a file of the source", "the data is a directory"],
        ),
        (
            "wine.csv",
            "wine.csv",
            [
                "\"wine.csv\"",
                "a directory of the source",
                "set localPath to \"wine.csv/\"",
            ],
        ),
        (
            "wine.csv",
            "notes/wine.csv",
            ["\"notes\"", "a file of the source", "needs a directory"],
        ),
        (
            "images",
            "pictures",
            ["\"pictures/deep\"", "a file of the source", "the data is a directory"],
        ),
    ] {
        let error = pod.fetch_error(&task(remote, local), StepReason::LocalPathOccupied, &words);
        assert_eq!(error.field, "spec.data[rows].localPath");
        assert_eq!(error.class(), StepClass::User, "another attempt cannot help");
    }
    // The remedy works.
    pod.fetch_ok(&task("wine.csv", "wine.csv/"));
    assert_eq!(pod.read("work/source/wine.csv/wine.csv"), "a,b\n");
    // Data replaces a file of the source, as a sample that is in the repository.
    pod.fetch_ok(&task("wine.csv", "sample.csv"));
    assert_eq!(pod.read("work/source/sample.csv"), "a,b\n");
}

#[test]
fn files_of_a_volume_that_cannot_be_read_or_named_end_the_run() {
    let pod = Pod::new();
    pod.write("storage/data-0/wine.csv", "a,b\n");
    symlink("b", pod.at("storage/data-0/a")).unwrap();
    symlink("a", pod.at("storage/data-0/b")).unwrap();
    let long = "x".repeat(300);
    for (remote, reason, words) in [
        ("wine.csv/below", StepReason::ContentRefused, "wine.csv/below"),
        ("a", StepReason::ContentRefused, "\"a\""),
        (long.as_str(), StepReason::ContentRefused, "File name too long"),
    ] {
        let error = pod.fetch_error(&with(&pod, vec![binding("d", volume(), remote, "")]), reason, &[words]);
        assert_eq!((error.field.as_str(), error.class()), ("spec.data[d]", StepClass::User));
    }
    // Root could read every file.
    sh(
        &pod.at(""),
        "rm storage/data-0/[ab] && chmod -R a+rwX . && chmod 000 storage/data-0/wine.csv",
    );
    for remote in ["wine.csv", ""] {
        let task = with_source_of(&pod, vec![binding("d", volume(), remote, "")]);
        let mut agent = pod.copied_agent("fetch", &task);
        if rustix::process::geteuid().is_root() {
            agent.uid(65534).gid(65534);
        }
        let output = agent.output().unwrap();
        let message = FetchMessage::decode(&pod.read("termination-log")).unwrap();
        let error = message
            .error()
            .unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        assert_eq!(error.reason, StepReason::DataAccessDenied, "{error}");
        assert!(error.message.contains("wine.csv"), "{error}");
        assert!(error.remedy.contains("permission to read"), "{error:?}");
    }
}

/// Starts a web server with these answers, one per connection.
fn serve(answers: Vec<Vec<u8>>) -> (String, mpsc::Receiver<String>) {
    harness::serve(move |n, _| answers.get(n).cloned())
}

fn http(uri: &str, secret: &str) -> DataTask {
    binding(
        "d",
        WireStore::Http {
            uri: uri.into(),
            secret: secret.into(),
        },
        "sets/wine.csv",
        "",
    )
}

#[test]
fn an_interrupted_download_continues_where_it_stopped() {
    let pod = Pod::new();
    let (uri, requests) = serve(vec![
        answer("200 OK", "ETag: \"v1\"\r\nContent-Length: 10\r\n", "0123"),
        answer(
            "206 Partial Content",
            "ETag: \"v1\"\r\nContent-Range: bytes 4-9/10\r\nContent-Length: 6\r\n",
            "456789",
        ),
    ]);
    let tail = pod.fetch_ok(&with(&pod, vec![http(&uri, "")]));
    assert_eq!(pod.read("work/data/d"), "0123456789");
    assert_eq!(
        (tail.data[0].size_bytes, &tail.data[0].digest),
        (10, &digest::of_bytes(b"0123456789"))
    );
    assert!(requests.recv().unwrap().starts_with("get /sets/wine.csv"));
    let second = requests.recv().unwrap();
    assert!(
        second.contains("range: bytes=4-") && second.contains("if-range: \"v1\""),
        "{second}"
    );
}

#[test]
fn an_object_that_changed_meanwhile_is_downloaded_from_its_beginning() {
    let pod = Pod::new();
    let (uri, _requests) = serve(vec![
        answer("200 OK", "ETag: \"v1\"\r\nContent-Length: 10\r\n", "0123"),
        answer("200 OK", "ETag: \"v2\"\r\nContent-Length: 3\r\n", "new"),
    ]);
    pod.fetch_ok(&with(&pod, vec![http(&uri, "")]));
    assert_eq!(pod.read("work/data/d"), "new");
}

#[test]
fn a_download_that_broke_off_behind_its_last_byte_starts_over() {
    let pod = Pod::new();
    let (uri, requests) = serve(vec![
        answer(
            "200 OK",
            "ETag: \"v1\"\r\nTransfer-Encoding: chunked\r\n",
            "3\r\na,b\r\n",
        ),
        answer("416 Range Not Satisfiable", "Content-Length: 0\r\n", ""),
        answer("200 OK", "ETag: \"v1\"\r\nContent-Length: 3\r\n", "a,b"),
    ]);
    pod.fetch_ok(&with(&pod, vec![http(&uri, "")]));
    assert_eq!(pod.read("work/data/d"), "a,b");
    let ranges: Vec<bool> = requests
        .iter()
        .take(3)
        .map(|head| head.contains("range: bytes=3-"))
        .collect();
    assert_eq!(ranges, [false, true, false]);
}

#[test]
fn errors_of_a_web_server_have_specific_reasons() {
    let pod = Pod::new();
    for (status, headers, reason, words) in [
        ("404 Not Found", "", StepReason::DataNotFound, "404"),
        ("401 Unauthorized", "", StepReason::DataAccessDenied, "401"),
        ("410 Gone", "", StepReason::DataNotFound, "410"),
        ("501 Not Implemented", "", StepReason::DataNotFound, "501"),
        (
            "302 Found",
            "Location: ftp://e.org/x\r\n",
            StepReason::DataAccessDenied,
            "redirect",
        ),
    ] {
        let (uri, _requests) = serve(vec![answer(status, headers, "")]);
        pod.fetch_error(&with(&pod, vec![http(&uri, "")]), reason, &[words, &uri]);
    }
    // A server without TLS behind an https address.
    let (uri, _requests) = serve(vec![answer("200 OK", "Content-Length: 0\r\n", "")]);
    let secure = uri.replace("http://", "https://");
    pod.fetch_error(
        &with(&pod, vec![http(&secure, "")]),
        StepReason::DataNotFound,
        &["InvalidContentType"],
    );
    let mut task = with(&pod, vec![]);
    task.limits.max_bytes = 5;
    let (uri, _requests) = serve(vec![answer("200 OK", "Content-Length: 6\r\n", "123456")]);
    task.data = vec![http(&uri, "")];
    pod.fetch_error(&task, StepReason::TooLarge, &["5 bytes"]);
}

#[test]
fn a_token_is_sent_but_never_shown() {
    let pod = Pod::new();
    let error = pod.fetch_error(
        &with(&pod, vec![http("http://127.0.0.1:1", "web")]),
        StepReason::SecretMissing,
        &["\"web\"", "token"],
    );
    assert!(error.remedy.contains("create the Secret"));
    pod.secret("data-0", "token", "t0ken\n");
    let (uri, requests) = serve(vec![answer("403 Forbidden", "", "")]);
    let fetched = pod.fetch(&with(&pod, vec![http(&uri, "web")]));
    assert!(requests.recv().unwrap().contains("authorization: bearer t0ken"));
    assert!(!fetched.stderr.contains("t0ken") && !pod.read("termination-log").contains("t0ken"));
}

#[test]
fn another_host_does_not_receive_the_token() {
    let pod = Pod::new();
    pod.secret("data-0", "token", "t0ken-of-the-first");
    let (other, asked) = serve(vec![answer("200 OK", "Content-Length: 3\r\n", "a,b")]);
    let location = format!("Location: {other}/elsewhere\r\nContent-Length: 0\r\n");
    let (uri, requests) = serve(vec![answer("302 Found", &location, "")]);
    pod.fetch_ok(&with(&pod, vec![http(&uri, "web")]));
    assert_eq!(pod.read("work/data/d"), "a,b");
    assert!(requests.recv().unwrap().contains("t0ken-of-the-first"));
    let seen = asked.recv().unwrap();
    assert!(seen.starts_with("get /elsewhere") && !seen.contains("t0ken"), "{seen}");
}
