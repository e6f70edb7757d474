//! Data bindings from volumes and web servers.

use std::os::unix::fs::symlink;
use std::sync::mpsc;

use legion_protocol::digest;
use legion_protocol::reason::StepReason;
use legion_protocol::task::{DataTask, FetchTask, SourceTask, WireStore};

use crate::harness::{self, Pod, answer};

fn binding(name: &str, store: WireStore, remote: &str, local: &str) -> DataTask {
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
    FetchTask {
        data,
        ..pod.fetch_task(SourceTask::Volume { path: String::new() })
    }
}

fn volume() -> WireStore {
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
fn errors_of_a_web_server_have_specific_reasons() {
    let pod = Pod::new();
    for (status, headers, reason, words) in [
        ("404 Not Found", "", StepReason::DataNotFound, "404"),
        ("401 Unauthorized", "", StepReason::DataAccessDenied, "401"),
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
