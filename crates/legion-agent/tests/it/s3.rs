//! An S3-compatible server as source, data and output, and the errors of such servers.

use legion_protocol::digest;
use legion_protocol::message::PublishOutcome;
use legion_protocol::reason::StepReason;
use legion_protocol::task::{DataTask, FetchTask, SourceTask, WireStore};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{ObjectStoreExt as _, PutPayload};

use crate::harness::{Pod, answer, exit_code, s3_endpoint, serve};
use crate::publish::good;

/// A pod with its output, source and data below a prefix of the test's own.
struct Remote {
    pod: Pod,
    client: AmazonS3,
    runtime: tokio::runtime::Runtime,
    prefix: &'static str,
    endpoint: &'static str,
}

impl Remote {
    fn new(prefix: &'static str) -> Self {
        let endpoint = s3_endpoint();
        let mut pod = Pod::new();
        pod.store = store(endpoint, "models", prefix);
        for slot in ["output", "source", "data-0"] {
            pod.secret(slot, "AWS_ACCESS_KEY_ID", "test");
            pod.secret(slot, "AWS_SECRET_ACCESS_KEY", "test");
        }
        let client = AmazonS3Builder::new()
            .with_bucket_name("models")
            .with_region("us-east-1")
            .with_endpoint(endpoint)
            .with_allow_http(true)
            .with_access_key_id("test")
            .with_secret_access_key("test")
            .build()
            .unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        Self {
            pod,
            client,
            runtime,
            prefix,
            endpoint,
        }
    }

    fn put(&self, key: &str, content: Vec<u8>) {
        let key = Path::from(format!("{}/{key}", self.prefix));
        self.runtime
            .block_on(self.client.put(&key, PutPayload::from(content)))
            .unwrap();
    }

    fn get(&self, key: &str) -> Option<Vec<u8>> {
        let key = Path::from(format!("{}/{key}", self.prefix));
        let object = self
            .runtime
            .block_on(async { self.client.get(&key).await?.bytes().await });
        object.ok().map(|bytes| bytes.to_vec())
    }

    fn store(&self) -> WireStore {
        store(self.endpoint, "models", self.prefix)
    }
}

fn store(endpoint: &str, bucket: &str, prefix: &str) -> WireStore {
    WireStore::S3 {
        bucket: bucket.into(),
        prefix: prefix.into(),
        endpoint: endpoint.into(),
        region: "us-east-1".into(),
        secret: "s3-keys".into(),
    }
}

#[test]
#[ignore = "installs an S3-compatible server from PyPI: cargo test -p legion-agent -- --ignored"]
fn a_run_is_published_to_a_bucket_and_found_again() {
    let remote = Remote::new("published");
    let pod = &remote.pod;
    pod.write("storage/source/train.py", "");
    let mut task = pod.fetch_task(SourceTask::Volume { path: String::new() });
    pod.fetch_ok(&task);
    assert!(
        remote.get("default/wine/7f3a1c9e/.probe-1").is_none(),
        "the probe is removed"
    );

    let published = pod.run(&exit_code(0), |pod| {
        good(pod);
        // Several parts. The last one is smaller.
        pod.write("work/output/model/weights", vec![9; 20 << 20]);
    });
    assert_eq!(
        published.message.head.outcome,
        PublishOutcome::Published,
        "{}",
        published.stderr
    );
    let artifact = published.message.head.artifact.clone().unwrap();
    let stored = remote.get("default/wine/7f3a1c9e/model.tar").unwrap();
    assert_eq!(
        (stored.len() as u64, digest::of_bytes(&stored)),
        (artifact.size_bytes, artifact.digest)
    );
    assert_eq!(
        remote.get("default/wine/7f3a1c9e/log.txt").unwrap(),
        b"epoch 1\nepoch 2\n"
    );
    let record = remote.get(".legion/6f1a/7f3a1c9e.json").unwrap();

    let second = pod.run(&exit_code(0), good);
    assert_eq!(
        second.message.head.outcome,
        PublishOutcome::Skipped,
        "{}",
        second.stderr
    );
    assert_eq!(
        remote.get(".legion/6f1a/7f3a1c9e.json").unwrap(),
        record,
        "the first record stays"
    );
    assert_eq!(
        remote.get("default/wine/7f3a1c9e/model.tar").unwrap(),
        stored,
        "and so does its artifact"
    );
    task.training.attempt = 2;
    pod.fetch_ok(&task);
    assert!(pod.at("run/skip").exists());
    std::fs::remove_file(pod.at("run/skip")).unwrap();
    // A record without its artifact does not count: the run is repeated, and its record is replaced.
    remote.put("default/wine/7f3a1c9e/model.tar", b"cut".to_vec());
    pod.fetch_ok(&task);
    assert!(!pod.at("run/skip").exists());
    let third = pod.run(&exit_code(0), good);
    assert_eq!(
        third.message.head.outcome,
        PublishOutcome::Published,
        "{}",
        third.stderr
    );
    assert_ne!(remote.get(".legion/6f1a/7f3a1c9e.json").unwrap(), record);
}

#[test]
#[ignore = "installs an S3-compatible server from PyPI: cargo test -p legion-agent -- --ignored"]
fn a_missing_output_bucket_fails_before_the_training() {
    let mut remote = Remote::new("missing");
    remote.pod.store = store(remote.endpoint, "no-such-bucket", "");
    remote.pod.write("storage/source/train.py", "");
    let task = remote.pod.fetch_task(SourceTask::Volume { path: String::new() });
    remote
        .pod
        .fetch_error(&task, StepReason::OutputNotWritable, &["s3://no-such-bucket/"]);
    remote.pod.store = remote.store();
    std::fs::remove_file(remote.pod.at("secrets/output/AWS_SECRET_ACCESS_KEY")).unwrap();
    let task = remote.pod.fetch_task(SourceTask::Volume { path: String::new() });
    remote
        .pod
        .fetch_error(&task, StepReason::SecretMissing, &["s3-keys", "AWS_SECRET_ACCESS_KEY"]);
}

#[test]
#[ignore = "installs an S3-compatible server from PyPI: cargo test -p legion-agent -- --ignored"]
fn a_prefix_and_an_archive_are_sources() {
    let remote = Remote::new("sources");
    let pod = &remote.pod;
    remote.put("project/train.py", b"1".to_vec());
    remote.put("project/lib/a b.py", b"2".to_vec());
    let source = |path: &str| SourceTask::ObjectStore {
        store: remote.store(),
        path: path.into(),
    };
    pod.fetch_ok(&pod.fetch_task(source("project")));
    assert_eq!(
        (pod.read("work/source/train.py"), pod.read("work/source/lib/a b.py")),
        ("1".into(), "2".into())
    );
    let of_prefix = pod.training().source.digest;

    let directory = pod.at("work/source");
    for (name, flags) in [("p.tar", "-cf"), ("p.tar.gz", "-czf"), ("p.tgz", "-czf")] {
        crate::harness::sh(&directory, &format!("tar {flags} ../{name} ."));
        remote.put(name, std::fs::read(pod.at("work").join(name)).unwrap());
        pod.fetch_ok(&pod.fetch_task(source(name)));
        assert_eq!(pod.read("work/source/lib/a b.py"), "2", "{name}");
        assert_eq!(
            pod.training().source.digest,
            of_prefix,
            "the same files have the same digest"
        );
    }
    remote.put("broken.tar", b"no archive".to_vec());
    pod.fetch_error(
        &pod.fetch_task(source("broken.tar")),
        StepReason::ContentRefused,
        &["archive"],
    );
    pod.fetch_error(
        &pod.fetch_task(source("nothing")),
        StepReason::SourceNotFound,
        &["nothing"],
    );
    pod.fetch_error(
        &pod.fetch_task(source("nothing.tar")),
        StepReason::SourceNotFound,
        &["nothing.tar"],
    );
}

#[test]
#[ignore = "installs an S3-compatible server from PyPI: cargo test -p legion-agent -- --ignored"]
fn data_is_one_object_or_all_objects_below_a_prefix() {
    let remote = Remote::new("data");
    let pod = &remote.pod;
    remote.put("wine.csv", b"a,b\n".to_vec());
    remote.put("images/1.png", b"1".to_vec());
    remote.put("images/deep/2.png", b"2".to_vec());
    pod.write("storage/source/train.py", "");
    let task = |remote_path: &str, expected: &str| FetchTask {
        data: vec![DataTask {
            name: "d".into(),
            slot: "data-0".into(),
            store: remote.store(),
            remote_path: remote_path.into(),
            local_path: String::new(),
            digest: expected.into(),
            uri: format!("s3://models/data/{remote_path}"),
        }],
        ..pod.fetch_task(SourceTask::Volume { path: String::new() })
    };
    let tail = pod.fetch_ok(&task("wine.csv", &digest::of_bytes(b"a,b\n")));
    assert_eq!(
        (pod.read("work/data/d").as_str(), tail.data[0].size_bytes),
        ("a,b\n", 4)
    );
    let tail = pod.fetch_ok(&task("images/", ""));
    assert_eq!(
        (pod.read("work/data/d/deep/2.png").as_str(), tail.data[0].files),
        ("2", 2)
    );
    pod.fetch_error(
        &task("wine.csv", &digest::of_bytes(b"x")),
        StepReason::DigestMismatch,
        &["s3://models/data/wine.csv"],
    );
    pod.fetch_error(&task("nothing", ""), StepReason::DataNotFound, &["nothing"]);
}

/// Returns an error answer of S3, in XML.
fn error(status: &str, code: &str, message: &str, rest: &str) -> Vec<u8> {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{message}</Message>{rest}</Error>");
    answer(status, &format!("Content-Length: {}\r\n", body.len()), &body)
}

#[test]
fn an_outage_of_the_store_loses_no_result() {
    let mut pod = Pod::new();
    // More failures than the S3 client retries on its own.
    let (address, requests) = serve(|n, head| {
        Some(match head {
            _ if (1..=7).contains(&n) => answer("503 Slow Down", "Content-Length: 0\r\n", ""),
            head if head.starts_with("get") => error("404 Not Found", "NoSuchKey", "no such key", ""),
            _ => answer("200 OK", "ETag: \"1\"\r\nContent-Length: 0\r\n", ""),
        })
    });
    pod.store = anonymous(&address);
    let published = pod.run(&exit_code(0), good);
    assert_eq!(
        published.message.head.outcome,
        PublishOutcome::Published,
        "{}",
        published.stderr
    );
    assert!(published.stderr.contains("retrying in 1 s"), "{}", published.stderr);
    let last = requests.try_iter().last().unwrap();
    assert!(
        last.starts_with("put /b/.legion/6f1a/7f3a1c9e.json"),
        "the record comes last: {last}"
    );
    assert!(last.contains("if-none-match: *"), "and only if there is none: {last}");
}

#[test]
fn an_interrupted_download_starts_over() {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(5);
    archive.append_data(&mut header, "train.py", &b"print"[..]).unwrap();
    let archive = archive.into_inner().unwrap();
    let length = archive.len();
    let pod = Pod::new();
    for half in [10, length / 2] {
        let bytes = archive.clone();
        let (address, _requests) = serve(move |n, _| {
            let mut answer = answer("200 OK", &format!("Content-Length: {length}\r\n"), "");
            answer.extend_from_slice(if n == 0 { &bytes[..half] } else { &bytes });
            Some(answer)
        });
        let task = pod.fetch_task(SourceTask::ObjectStore {
            store: anonymous(&address),
            path: "p.tar".into(),
        });
        pod.fetch_ok(&task);
        assert_eq!(pod.read("work/source/train.py"), "print");
    }
}

#[test]
fn errors_of_a_store_are_reported_without_secrets_of_the_request() {
    const TOKEN: &str = "FwoGZXIvYXdzEXAMPLE";
    let mut pod = Pod::new();
    pod.write("storage/source/train.py", "");
    for (key, value) in [
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI"),
        ("AWS_SESSION_TOKEN", TOKEN),
    ] {
        pod.secret("output", key, value);
    }
    for (status, code, message, words) in [
        (
            "400 Bad Request",
            "ExpiredToken",
            "The token has expired.",
            "refuses the credentials: ExpiredToken: The token has",
        ),
        (
            "403 Forbidden",
            "AccessDenied",
            &format!("not with {TOKEN}"),
            "refuses the credentials: AccessDenied: not with ***",
        ),
        (
            "400 Bad Request",
            "AuthorizationHeaderMalformed",
            "the region 'us-east-1' is wrong",
            "region of the connection",
        ),
        (
            "501 Not Implemented",
            "NotImplemented",
            "A header ...",
            "conditional writes",
        ),
    ] {
        let given = error(status, code, message, &format!("<Token-0>{TOKEN}</Token-0>"));
        let missing = error("404 Not Found", "NoSuchKey", "no such key", "");
        let (address, requests) = serve(move |_, head| {
            Some(if head.starts_with("get") {
                missing.clone()
            } else {
                given.clone()
            })
        });
        pod.store = WireStore::S3 {
            bucket: "b".into(),
            prefix: String::new(),
            endpoint: address,
            region: String::new(),
            secret: "s3-keys".into(),
        };
        let task = pod.fetch_task(SourceTask::Volume { path: String::new() });
        let fetched = pod.fetch(&task);
        let error = fetched.message.error().unwrap();
        assert_eq!(error.reason, StepReason::OutputNotWritable, "{error}");
        let text = format!("{} {}", error.message, error.remedy);
        assert!(text.contains(words) && text.contains("\"models\""), "{text}");
        let sent = requests.try_iter().collect::<String>();
        assert!(
            sent.contains(&TOKEN.to_lowercase()),
            "the token must be sent, or this test proves nothing: {sent}"
        );
        for seen in [&fetched.stderr, &pod.read("termination-log"), &text] {
            assert!(!seen.contains(TOKEN) && !seen.contains("wJalrXUtnFEMI"), "{seen}");
        }
    }
}

fn anonymous(endpoint: &str) -> WireStore {
    WireStore::S3 {
        bucket: "b".into(),
        prefix: String::new(),
        endpoint: endpoint.into(),
        region: String::new(),
        secret: String::new(),
    }
}
