//! An S3-compatible server as source, data and output, and the errors of such servers.

use legion_protocol::digest;
use legion_protocol::message::PublishOutcome;
use legion_protocol::reason::{StepClass, StepReason};
use legion_protocol::task::{DataTask, FetchTask, SourceTask, WireStore};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{ObjectStoreExt as _, PutPayload};

use crate::harness::{Pod, answer, exit_code, s3_endpoint, serve, server_packages};
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

    /// Calls a method of the server's own client. It keeps keys as they are. The Rust client changes some.
    fn boto(&self, call: &str) {
        let client = "boto3.client('s3', region_name='us-east-1', aws_access_key_id='test', \
                      aws_secret_access_key='test', endpoint_url=";
        let script = format!("import boto3; {client}'{}').{call}", self.endpoint);
        let done = std::process::Command::new("python3")
            .args(["-c", &script])
            .env("PYTHONPATH", server_packages())
            .output()
            .unwrap();
        assert!(
            done.status.success(),
            "{call}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
    }

    /// Creates an object with exactly this key below the prefix of the test.
    fn put_key(&self, key: &str, content: &str) {
        self.boto(&format!(
            "put_object(Bucket='models', Key='{}/{key}', Body=b'{content}')",
            self.prefix
        ));
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
    let error = remote.pod.fetch_error(
        &task,
        StepReason::OutputNotFound,
        &["s3://no-such-bucket does not exist", "create the bucket"],
    );
    assert_eq!(error.field, "spec.output");
    assert_ne!(error.class(), StepClass::User, "the bucket may be created meanwhile");
    // The remedy works.
    remote.boto("create_bucket(Bucket='no-such-bucket')");
    remote.pod.fetch_ok(&task);
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
    // Parallel compressors write one gzip member for each part.
    crate::harness::sh(
        &directory,
        "tar -cf ../whole.tar . && split -b 1024 ../whole.tar ../part. && for part in ../part.*; do gzip -c \"$part\"; done > ../m.tgz",
    );
    let members = std::fs::read(pod.at("work/m.tgz")).unwrap();
    remote.put("m.tgz", members.clone());
    pod.fetch_ok(&pod.fetch_task(source("m.tgz")));
    assert_eq!(pod.training().source.digest, of_prefix);
    remote.put("cut.tgz", members[..members.len() / 2].to_vec());
    let error = pod.fetch_error(
        &pod.fetch_task(source("cut.tgz")),
        StepReason::ContentRefused,
        &["not complete", "store the archive again"],
    );
    assert_eq!(error.class(), StepClass::User);
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
fn markers_of_directories_are_no_objects_at_any_depth() {
    let remote = Remote::new("markers");
    let pod = &remote.pod;
    for marker in ["proj/", "proj/data/", "proj/data/deep/", "proj/empty/"] {
        remote.put_key(marker, "");
    }
    remote.put("proj/train.py", b"1".to_vec());
    remote.put("proj/data/__init__.py", Vec::new());
    remote.put("proj/data/deep/2.csv", b"2".to_vec());
    let mut task = pod.fetch_task(SourceTask::ObjectStore {
        store: remote.store(),
        path: "proj".into(),
    });
    pod.fetch_ok(&task);
    assert_eq!(pod.read("work/source/data/deep/2.csv"), "2");
    assert_eq!(
        pod.read("work/source/data/__init__.py"),
        "",
        "an empty object is a file"
    );
    assert!(pod.at("work/source/empty").is_dir());
    task.data = vec![data(&remote, "proj/data")];
    let tail = pod.fetch_ok(&task);
    assert_eq!(
        (tail.data[0].files, pod.read("work/data/d/deep/2.csv")),
        (2, "2".into())
    );
    // A directory with markers only has no project.
    let task = pod.fetch_task(SourceTask::ObjectStore {
        store: remote.store(),
        path: "proj/empty".into(),
    });
    pod.fetch_error(&task, StepReason::SourceNotFound, &["proj/empty"]);
}

#[test]
#[ignore = "installs an S3-compatible server from PyPI: cargo test -p legion-agent -- --ignored"]
fn keys_that_cannot_be_files_end_the_run_and_are_named() {
    let remote = Remote::new("keys");
    let pod = &remote.pod;
    pod.write("storage/source/train.py", "");
    let long = format!("long/{}", "x".repeat(300));
    for key in ["slashes/a//b.csv", "dots/../b.csv", &long, "conflict/a/b.csv"] {
        remote.put_key(key, "x");
    }
    remote.put_key("conflict/a", "a file");
    for (path, words) in [
        ("slashes", "slashes/a//b.csv"),
        ("slashes/a//b.csv", "slashes/a//b.csv"),
        ("dots", "dots/../b.csv"),
        ("long", "File name too long"),
        ("conflict", "conflict/a/b.csv"),
    ] {
        let source = pod.fetch_task(SourceTask::ObjectStore {
            store: remote.store(),
            path: path.into(),
        });
        let mut task = pod.fetch_task(SourceTask::Volume { path: String::new() });
        task.data = vec![data(&remote, path)];
        for (task, field) in [(source, "spec.source.objectStore"), (task, "spec.data[d]")] {
            let fetched = pod.fetch(&task);
            let error = fetched
                .message
                .error()
                .unwrap_or_else(|| panic!("{path}: {}", fetched.stderr));
            assert_eq!(
                (error.field.as_str(), error.class()),
                (field, StepClass::User),
                "{error}"
            );
            assert!(error.message.contains(words), "{words}: {error}");
            assert!(!fetched.stderr.contains("retrying"), "{}", fetched.stderr);
        }
    }
}

#[test]
#[ignore = "installs an S3-compatible server from PyPI: cargo test -p legion-agent -- --ignored"]
fn a_path_that_is_no_project_is_reported_with_what_it_is() {
    let remote = Remote::new("forms");
    let pod = &remote.pod;
    for name in ["p.zip", "p.tar.xz", "P.TAR.GZ", "train.py", "team/wine/train.py"] {
        remote.put(name, b"1".to_vec());
    }
    for (path, words) in [
        ("p.zip", ["\"p.zip\" is a zip archive", ".tar, .tar.gz or .tgz"]),
        ("p.tar.xz", ["compressed with xz", ".tar, .tar.gz or .tgz"]),
        ("P.TAR.GZ", ["lower-case", ".tar, .tar.gz or .tgz"]),
        ("train.py", ["\"train.py\" is one object", "name a prefix"]),
        ("team/wein", ["no object below \"team/wein\"", "\"team\" has wine/"]),
        ("p.tar.gz", ["p.tar.gz", "p.tar.xz, p.zip, team/, train.py"]),
    ] {
        let task = pod.fetch_task(SourceTask::ObjectStore {
            store: remote.store(),
            path: path.into(),
        });
        let error = pod.fetch_error(&task, StepReason::SourceNotFound, &words);
        assert_eq!(error.field, "spec.source.objectStore");
    }
}

/// Returns a binding for a path in the bucket.
fn data(remote: &Remote, path: &str) -> DataTask {
    DataTask {
        name: "d".into(),
        slot: "data-0".into(),
        store: remote.store(),
        remote_path: path.into(),
        local_path: String::new(),
        digest: String::new(),
        uri: format!("s3://models/{}/{path}", remote.prefix),
    }
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
            digest: expected.into(),
            ..data(&remote, remote_path)
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
            "404 Not Found",
            "NoSuchPage",
            "this is no store",
            "cannot be used: NoSuchPage: this is no store",
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
