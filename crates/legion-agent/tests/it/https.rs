//! Sources over https: git's own HTTP backend behind real TLS, with a certificate of the test's own authority.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use legion_protocol::message::FetchMessage;
use legion_protocol::reason::StepReason;
use legion_protocol::task::{DataTask, FetchTask, SourceTask, WireStore};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::git::{AS, repository, source};
use crate::harness::{Fetched, Pod, fixture, sh};

/// A git server for the pod's repository `origin`. Dropping it stops the server.
struct Server {
    child: Child,
    address: String,
    log: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Server {
    fn start(pod: &Pod, name: &str, moved_to: &str) -> Self {
        let log = format!("{name}.log");
        pod.write(&log, "");
        let mut child = Command::new("python3")
            .arg(fixture("git_server.py"))
            .args([pod.at(""), pod.at("server.pem"), pod.at("server.key"), pod.at(&log)])
            .arg(moved_to)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is needed");
        let mut address = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut address)
            .unwrap();
        assert!(address.starts_with("https://"), "the git server did not start");
        Self {
            child,
            address: address.trim().to_owned(),
            log,
        }
    }

    fn uri(&self, path: &str) -> String {
        format!("{}/{path}", self.address)
    }
}

/// Creates a pod with a repository, an authority in `authority.pem` and its certificate for `localhost`. Returns the
/// pod and two commits.
fn pod() -> (Pod, String, String) {
    let pod = Pod::new();
    let (_, first, second) = repository(&pod);
    sh(&pod.at(""), "mv origin/.git origin.git");
    let mut authority = CertificateParams::new(vec![]).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec!["localhost".to_owned()])
        .unwrap()
        .signed_by(&key, &authority)
        .unwrap();
    pod.write("authority.pem", authority.pem());
    pod.write("server.pem", server.pem());
    pod.write("server.key", key.serialize_pem());
    (pod, first, second)
}

/// Runs `fetch` with trust in the test's authority, and with a wrapper of `git` that records its arguments.
fn fetch(pod: &Pod, task: &FetchTask) -> Fetched {
    let real = sh(&pod.at(""), "command -v git");
    let calls = pod.at("calls");
    let script = format!(
        "#!/bin/sh\n{{ echo \"$@\"; env; }} >>{}\nexec {real} \"$@\"\n",
        calls.display()
    );
    let program = pod.write("path/git", script);
    std::fs::set_permissions(program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", pod.at("path").display(), std::env::var("PATH").unwrap());
    let output = pod
        .agent("fetch", task)
        .env("PATH", path)
        .env("SSL_CERT_FILE", pod.at("authority.pem"))
        .output()
        .unwrap();
    Fetched {
        stderr: String::from_utf8(output.stderr).unwrap(),
        message: FetchMessage::decode(&pod.read("termination-log")).unwrap(),
    }
}

fn with_secret(uri: &str, reference: &str) -> SourceTask {
    let mut task = source(uri, reference);
    if let SourceTask::Git { secret, .. } = &mut task {
        *secret = "git-login".into();
    }
    task
}

#[track_caller]
fn refused(fetched: &Fetched, reason: StepReason, words: &[&str]) {
    let error = fetched.message.error().unwrap_or_else(|| panic!("{}", fetched.stderr));
    assert_eq!(error.reason, reason, "{error}");
    for word in words {
        let text = format!("{} {} {}", error.field, error.message, error.remedy);
        assert!(text.contains(word), "{word:?} is missing in {error:?}");
    }
}

#[test]
fn a_public_repository_needs_no_credentials() {
    let (pod, first, second) = pod();
    let server = Server::start(&pod, "server", "");
    let uri = server.uri("open/origin.git");
    for (reference, commit) in [
        ("main", &second),
        ("v1", &first),
        (first.as_str(), &first),
        (&first[..8], &first),
    ] {
        let fetched = fetch(&pod, &pod.fetch_task(source(&uri, reference)));
        let facts = fetched.message.head.source.expect(&fetched.stderr);
        assert_eq!(&facts.commit, commit, "{reference}");
    }
    assert_eq!(pod.read("work/source/train.py").trim(), "1");
    refused(
        &fetch(&pod, &pod.fetch_task(source(&uri, "no-such-branch"))),
        StepReason::GitRefNotFound,
        &["no-such-branch", "feature/x, main, v1"],
    );
    refused(
        &fetch(&pod, &pod.fetch_task(source(&server.uri("open/nothing.git"), "main"))),
        StepReason::SourceNotFound,
        &["open/nothing.git"],
    );
}

#[test]
fn a_private_repository_is_fetched_with_its_secret_which_appears_nowhere() {
    let (pod, _, second) = pod();
    let server = Server::start(&pod, "server", "");
    let uri = server.uri("private/origin.git");
    // Neither a credential helper of the user nor curl's .netrc is used.
    let helper = format!("!touch {}; echo password=s3cr3t", pod.at("canary").display());
    pod.write("scratch/.gitconfig", format!("[credential]\n\thelper = \"{helper}\"\n"));
    pod.write("scratch/.netrc", "machine localhost login me password s3cr3t\n");
    refused(
        &fetch(&pod, &pod.fetch_task(source(&uri, "main"))),
        StepReason::SourceAccessDenied,
        &["spec.source.git.connection", "secretRef"],
    );
    assert!(!pod.at("canary").exists());
    sh(&pod.at("scratch"), "rm .gitconfig .netrc");
    refused(
        &fetch(&pod, &pod.fetch_task(with_secret(&uri, "main"))),
        StepReason::SecretMissing,
        &["\"git-login\"", "\"password\""],
    );
    pod.secret("source", "username", "me\n");
    pod.secret("source", "password", "wr0ng");
    let wrong = fetch(&pod, &pod.fetch_task(with_secret(&uri, "main")));
    refused(&wrong, StepReason::SourceAccessDenied, &["Authentication failed"]);
    assert!(!wrong.stderr.contains("wr0ng") && !pod.read("termination-log").contains("wr0ng"));

    pod.secret("source", "password", "s3cr3t\n");
    let fetched = fetch(&pod, &pod.fetch_task(with_secret(&uri, "main")));
    assert_eq!(fetched.message.head.source.expect(&fetched.stderr).commit, second);
    assert!(
        pod.read(&server.log).contains("me:s3cr3t"),
        "the server must receive the password, or this test proves nothing"
    );
    let (calls, config) = (pod.read("calls"), pod.read("work/source/.git/config"));
    assert!(calls.contains("ls-remote") && config.contains(&uri));
    for seen in [&calls, &config, &fetched.stderr, &pod.read("termination-log")] {
        assert!(!seen.contains("s3cr3t") && !seen.contains("wr0ng"), "{seen}");
    }
    assert_eq!(std::fs::read_dir(pod.at("scratch")).unwrap().count(), 0);
}

#[test]
fn another_host_does_not_receive_the_password() {
    let (pod, ..) = pod();
    let other = Server::start(&pod, "other", "");
    let server = Server::start(&pod, "server", &other.uri("private"));
    pod.secret("source", "username", "me");
    pod.secret("source", "password", "s3cr3t");
    let task = pod.fetch_task(with_secret(&server.uri("moved/origin.git"), "main"));
    refused(&fetch(&pod, &task), StepReason::SourceAccessDenied, &[]);
    let log = pod.read(&other.log);
    assert!(log.contains("/private/origin.git"), "it was asked: {log}");
    assert!(!log.contains("s3cr3t"), "{log}");

    // The same for a submodule on the other host.
    let outer = format!(
        "{AS} git clone -q origin.git outer; cd outer; printf '[submodule \"s\"]\\n path = s\\n url = {}\\n' >.gitmodules
         git update-index --add --cacheinfo 160000,$(git rev-parse HEAD),s; git add .gitmodules; git commit -qm sub; mv .git ../outer.git",
        other.uri("private/origin.git")
    );
    sh(&pod.at(""), &outer);
    let mut task = pod.fetch_task(with_secret(&server.uri("private/outer.git"), "main"));
    if let SourceTask::Git { submodules, .. } = &mut task.source {
        *submodules = true;
    }
    refused(&fetch(&pod, &task), StepReason::SourceAccessDenied, &[]);
    assert!(
        pod.read(&server.log)
            .contains("/private/outer.git/git-upload-pack me:s3cr3t")
    );
    assert!(!pod.read(&other.log).contains("s3cr3t"));

    // A repository from the network cannot reach files of this machine either.
    let local = format!(
        "{AS} git clone -q outer.git local; cd local; git config -f .gitmodules submodule.s.url file://{}
         git commit -qam local; mv .git ../local.git",
        pod.at("origin.git").display()
    );
    sh(&pod.at(""), &local);
    let SourceTask::Git { uri, .. } = &mut task.source else {
        unreachable!()
    };
    *uri = server.uri("private/local.git");
    refused(
        &fetch(&pod, &task),
        StepReason::ContentRefused,
        &["transport 'file' not allowed"],
    );
}

#[test]
fn an_untrusted_certificate_is_refused_and_reported() {
    let (pod, ..) = pod();
    let server = Server::start(&pod, "server", "");
    let uri = server.uri("open/origin.git");
    let error = pod.fetch_error(
        &pod.fetch_task(source(&uri, "main")),
        StepReason::CertificateUnverified,
        &[&uri, "certificate", "trust store"],
    );
    assert_eq!(error.field, "spec.source.git");
    // The authority is trusted, but the certificate belongs to another host.
    let by_number = uri.replace("localhost", "127.0.0.1");
    refused(
        &fetch(&pod, &pod.fetch_task(source(&by_number, "main"))),
        StepReason::CertificateUnverified,
        &["127.0.0.1"],
    );

    // The same for data and for an S3-compatible store. Both work without git.
    pod.write("storage/source/train.py", "");
    let mut task = pod.fetch_task(SourceTask::Volume { path: String::new() });
    let data = |store| DataTask {
        name: "d".into(),
        slot: "data-0".into(),
        store,
        remote_path: "wine.csv".into(),
        local_path: String::new(),
        digest: String::new(),
        uri: server.address.clone(),
    };
    let http = WireStore::Http {
        uri: server.address.clone(),
        secret: String::new(),
    };
    let s3 = WireStore::S3 {
        bucket: "b".into(),
        prefix: String::new(),
        endpoint: server.address.clone(),
        region: String::new(),
        secret: String::new(),
    };
    for store in [&http, &s3] {
        task.data = vec![data(store.clone())];
        pod.fetch_error(
            &task,
            StepReason::CertificateUnverified,
            &["certificate", "trust store"],
        );
    }
    // With a trusted authority, the request reaches the server. It has no such file.
    task.data = vec![data(http)];
    refused(&fetch(&pod, &task), StepReason::DataNotFound, &["404"]);
}
