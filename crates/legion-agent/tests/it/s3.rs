//! An S3-compatible server as source, data and output.

use crate::harness::{Pod, exit_code, s3_endpoint};
use crate::publish::good;
use legion_protocol::digest;
use legion_protocol::message::PublishOutcome;
use legion_protocol::reason::StepReason;
use legion_protocol::task::{DataTask, FetchTask, SourceTask, Store};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{ObjectStoreExt as _, PutPayload};

/// A pod whose output, source and data lie below a prefix of the test's own.
struct Remote {
    pod: Pod,
    client: AmazonS3,
    runtime: tokio::runtime::Runtime,
    prefix: &'static str,
    endpoint: &'static str,
}

impl Remote {
    fn new(prefix: &'static str) -> Option<Self> {
        let endpoint = s3_endpoint()?;
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
        Some(Self {
            pod,
            client,
            runtime,
            prefix,
            endpoint,
        })
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

    fn store(&self) -> Store {
        store(self.endpoint, "models", self.prefix)
    }
}

fn store(endpoint: &str, bucket: &str, prefix: &str) -> Store {
    Store::S3 {
        bucket: bucket.into(),
        prefix: prefix.into(),
        endpoint: endpoint.into(),
        region: "us-east-1".into(),
        secret: "s3-keys".into(),
    }
}

#[test]
fn a_run_is_published_to_a_bucket_and_found_again() {
    let Some(remote) = Remote::new("published") else { return };
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
        // Several parts, the last one short.
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
    // A record whose artifact is gone proves nothing: the run is done again, and its record replaced.
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
fn an_output_bucket_that_is_not_there_fails_before_the_training() {
    let Some(mut remote) = Remote::new("missing") else {
        return;
    };
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
fn a_prefix_and_an_archive_are_sources() {
    let Some(remote) = Remote::new("sources") else { return };
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
fn data_is_one_object_or_all_below_a_prefix() {
    let Some(remote) = Remote::new("data") else { return };
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
