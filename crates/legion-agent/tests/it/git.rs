//! Sources in real git repositories, over files and over a real ssh server.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use legion_protocol::reason::StepReason;
use legion_protocol::task::SourceTask;

use crate::harness::{Pod, fixture, server_packages, sh};

pub(crate) fn source(uri: &str, reference: &str) -> SourceTask {
    SourceTask::Git {
        uri: uri.into(),
        reference: reference.into(),
        commit: String::new(),
        submodules: false,
        secret: String::new(),
        known_hosts: String::new(),
    }
}

pub(crate) const AS: &str = "export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@e GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@e \
                  GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1;";

/// A repository with two commits on `main`, a tag on the first, and a branch.
pub(crate) fn repository(pod: &Pod) -> (String, String, String) {
    let at = pod.at("origin");
    std::fs::create_dir(&at).unwrap();
    let script = "git init -q -b main . && echo 1 > train.py && git add . && git commit -qm one && git tag v1 && git tag -am x v1-annotated
        git rev-parse HEAD; echo 2 > train.py; git commit -qam two; git rev-parse HEAD
        git checkout -qb feature/x; echo 3 > train.py; git commit -qam three; git checkout -q main";
    let out = sh(&at, &format!("{AS} {script}"));
    let (first, second) = out.split_once('\n').unwrap();
    (format!("file://{}", at.display()), first.into(), second.into())
}

#[test]
fn branches_tags_and_commits_are_fetched() {
    let pod = Pod::new();
    let (uri, first, second) = repository(&pod);
    for (reference, content, commit) in [
        ("", "2", Some(&second)),
        ("main", "2", Some(&second)),
        ("v1", "1", Some(&first)),
        ("refs/tags/v1", "1", Some(&first)),
        ("v1-annotated", "1", Some(&first)),
        ("feature/x", "3", None),
        (first.as_str(), "1", Some(&first)),
        (&first[..8], "1", Some(&first)),
    ] {
        let task = pod.fetch_task(source(&uri, reference));
        let fetched = pod.fetch(&task);
        let facts = fetched
            .message
            .head
            .source
            .unwrap_or_else(|| panic!("{reference}: {}", fetched.stderr));
        assert_eq!(pod.read("work/source/train.py").trim(), content, "{reference}");
        if let Some(commit) = commit {
            assert_eq!(&facts.commit, commit, "{reference}");
        }
        assert_eq!(pod.training().source.commit, facts.commit);
    }
    // Attempt 2 uses the commit of attempt 1, although the branch has changed.
    let mut pinned = source(&uri, "main");
    if let SourceTask::Git { commit, .. } = &mut pinned {
        commit.clone_from(&first);
    }
    pod.fetch_ok(&pod.fetch_task(pinned));
    assert_eq!(pod.read("work/source/train.py").trim(), "1");
}

#[test]
fn a_missing_reference_or_repository_is_reported() {
    let pod = Pod::new();
    let (uri, ..) = repository(&pod);
    for reference in [
        "no-such-branch",
        "deadbeef",
        "0123456789012345678901234567890123456789",
        "--upload-pack=x",
    ] {
        let error = pod.fetch_error(
            &pod.fetch_task(source(&uri, reference)),
            StepReason::GitRefNotFound,
            &[reference, "feature/x", "main", "v1"],
        );
        assert_eq!(error.field, "spec.source.git.ref");
    }
    let nowhere = format!("file://{}", pod.at("nowhere").display());
    pod.fetch_error(
        &pod.fetch_task(source(&nowhere, "main")),
        StepReason::SourceNotFound,
        &["nowhere"],
    );
    pod.fetch_error(
        &pod.fetch_task(source("ext::sh -c id", "")),
        StepReason::SourceNotFound,
        &["https://"],
    );
}

#[test]
fn nothing_of_a_repository_runs() {
    let pod = Pod::new();
    let (uri, ..) = repository(&pod);
    let origin = pod.at("origin");
    let canary = pod.at("canary");
    let touch = format!("touch {}", canary.display());
    // A filter of the repository that the user's configuration defines, hooks in a template, and a submodule with a
    // helper protocol.
    sh(
        &origin,
        &format!(
            "{AS} printf '*.py filter=evil\n*.bin filter=lfs\n' > .gitattributes; echo pointer > w.bin; git add .; git commit -qm filter"
        ),
    );
    pod.write("scratch/.gitconfig", format!(
        "[filter \"evil\"]\n\tsmudge = {touch}; cat\n\tclean = cat\n[filter \"lfs\"]\n\tprocess = {touch}\n\tsmudge = {touch}\n\trequired = true\n[init]\n\ttemplateDir = {}\n[core]\n\tfsmonitor = {touch}\n",
        pod.at("template").display()
    ));
    let hook = pod.write("template/hooks/post-checkout", format!("#!/bin/sh\n{touch}\n"));
    std::fs::set_permissions(hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let task = pod.fetch_task(source(&uri, "main"));
    let output = pod
        .agent("fetch", &task)
        .env("GIT_TEMPLATE_DIR", pod.at("template"))
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "core.hooksPath")
        .env("GIT_CONFIG_VALUE_0", pod.at("template/hooks"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(pod.read("work/source/train.py").trim(), "2");
    assert_eq!(pod.read("work/source/w.bin").trim(), "pointer");
    assert!(!canary.exists());

    // A submodule with a helper protocol is refused and not run.
    let helper = format!("[submodule \"s\"]\n\tpath = s\n\turl = \"ext::sh -c '{touch}'\"\n");
    std::fs::write(origin.join(".gitmodules"), helper).unwrap();
    sh(
        &origin,
        &format!(
            "{AS} git update-index --add --cacheinfo 160000,$(git rev-parse HEAD),s; git add .gitmodules; git commit -qm sub"
        ),
    );
    let mut with_submodules = source(&uri, "main");
    if let SourceTask::Git { submodules, .. } = &mut with_submodules {
        *submodules = true;
    }
    let fetched = pod.fetch(&pod.fetch_task(with_submodules));
    assert!(fetched.message.error().is_some());
    assert!(!canary.exists());
}

#[test]
fn submodules_are_fetched_on_request() {
    let pod = Pod::new();
    let (uri, ..) = repository(&pod);
    let outer = pod.at("outer");
    std::fs::create_dir(&outer).unwrap();
    sh(
        &outer,
        &format!(
            "{AS} git init -q -b main . && git -c protocol.file.allow=always submodule --quiet add {uri} lib && git commit -qm outer"
        ),
    );
    let outer = format!("file://{}", outer.display());
    let mut task = pod.fetch_task(source(&outer, ""));
    let notices = pod.fetch_ok(&task).notices;
    assert!(!pod.at("work/source/lib/train.py").exists());
    assert_eq!(notices.len(), 1, "{notices:?}");
    assert_eq!(notices[0].reason, "SubmodulesNotFetched");
    assert!(
        notices[0]
            .message
            .contains(": lib. Set spec.source.git.submodules to true"),
        "{notices:?}"
    );
    if let SourceTask::Git { submodules, .. } = &mut task.source {
        *submodules = true;
    }
    let notices = pod.fetch_ok(&task).notices;
    assert_eq!(pod.read("work/source/lib/train.py").trim(), "2");
    assert_eq!(notices, []);
}

#[test]
fn a_submodule_commit_that_its_repository_lacks_ends_the_run() {
    let pod = Pod::new();
    let (uri, ..) = repository(&pod);
    let outer = pod.at("outer");
    std::fs::create_dir(&outer).unwrap();
    sh(
        &outer,
        &format!(
            "{AS} git init -q -b main . && git -c protocol.file.allow=always submodule --quiet add {uri} lib
            git update-index --cacheinfo 160000,0123456789012345678901234567890123456789,lib && git commit -qm outer"
        ),
    );
    let mut task = pod.fetch_task(source(&format!("file://{}", outer.display()), ""));
    if let SourceTask::Git { submodules, .. } = &mut task.source {
        *submodules = true;
    }
    let error = pod.fetch_error(&task, StepReason::GitRefNotFound, &["submodule"]);
    assert_eq!(error.field, "spec.source.git.submodules");
}

#[test]
fn a_head_without_its_branch_is_reported_with_the_branches_that_exist() {
    let pod = Pod::new();
    let (uri, ..) = repository(&pod);
    let bare = pod.at("bare.git");
    sh(
        &pod.at(""),
        &format!("git clone -q --bare {uri} bare.git && git -C bare.git symbolic-ref HEAD refs/heads/master"),
    );
    let uri = format!("file://{}", bare.display());
    let error = pod.fetch_error(
        &pod.fetch_task(source(&uri, "")),
        StepReason::GitRefNotFound,
        &["HEAD", "names a branch that does not exist", "exists: feature/x, main"],
    );
    assert_eq!(error.field, "spec.source.git.ref");
    pod.fetch_ok(&pod.fetch_task(source(&uri, "main")));
    // An empty repository has nothing to name.
    sh(&pod.at(""), "git init -q --bare empty.git");
    let uri = format!("file://{}", pod.at("empty.git").display());
    pod.fetch_error(
        &pod.fetch_task(source(&uri, "")),
        StepReason::GitRefNotFound,
        &["the repository is empty", "push a commit"],
    );
}

#[test]
fn git_lfs_pointers_never_reach_the_training() {
    const OID: &str = "4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393";
    let pointer = format!("version https://git-lfs.github.com/spec/v1\noid sha256:{OID}\nsize 12345\n");
    let pod = Pod::new();
    let (uri, ..) = repository(&pod);
    let origin = pod.at("origin");
    std::fs::create_dir(origin.join("data")).unwrap();
    for path in ["data/train.txt", "data/test.txt", "weights.bin"] {
        std::fs::write(origin.join(path), &pointer).unwrap();
    }
    // A text about pointers is none.
    std::fs::write(origin.join("README.md"), format!("How a pointer looks:\n\n{pointer}")).unwrap();
    sh(
        &origin,
        &format!(
            "{AS} printf '*.txt filter=lfs diff=lfs merge=lfs -text\n' > .gitattributes; git add .; git commit -qm lfs"
        ),
    );
    let task = pod.fetch_task(source(&uri, "main"));
    let notices = pod.fetch_ok(&task).notices;
    assert_eq!(notices.len(), 1, "{notices:?}");
    assert_eq!(notices[0].reason, "LfsContentMissing");
    assert!(
        notices[0].message.contains("3 Git LFS pointers")
            && notices[0]
                .message
                .contains("data/test.txt, data/train.txt, weights.bin"),
        "{notices:?}"
    );
    for path in ["data/train.txt", "data/test.txt", "weights.bin"] {
        let at = pod.at("work/source").join(path);
        let error = std::fs::read(&at).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{path}: reading it fails");
        assert!(at.is_symlink(), "{path}: a listing still shows it");
    }
    assert!(pod.read("work/source/README.md").contains(OID));

    // A data binding puts the content in the place of a pointer.
    pod.write("storage/data-0/train.txt", "1,2\n");
    let mut task = pod.fetch_task(source(&uri, "main"));
    task.data = vec![crate::data::binding(
        "d",
        crate::data::volume(),
        "train.txt",
        "data/train.txt",
    )];
    let notices = pod.fetch_ok(&task).notices;
    assert_eq!(pod.read("work/source/data/train.txt"), "1,2\n");
    assert!(notices[0].message.contains("2 Git LFS pointers"), "{notices:?}");

    // A pointer in data is always a mistake, also one among many files.
    for (remote, words) in [
        ("train.txt", "the data is a Git LFS pointer"),
        ("", "pointers: train.txt"),
    ] {
        pod.write("storage/data-0/train.txt", &pointer);
        pod.write("storage/data-0/other.txt", "1,2\n");
        task.data = vec![crate::data::binding("d", crate::data::volume(), remote, "")];
        let error = pod.fetch_error(&task, StepReason::ContentRefused, &[words, "git lfs pull"]);
        assert_eq!(error.field, "spec.data[d]");
    }
}

/// Fetches a repository to which these shell commands have added links, and checks its refusal.
#[track_caller]
fn refused_with_links(links: &str, reason: StepReason, words: &[&str]) {
    let pod = Pod::new();
    let (uri, ..) = repository(&pod);
    sh(
        &pod.at("origin"),
        &format!("{AS} {links}; git add .; git commit -qm links"),
    );
    pod.fetch_error(&pod.fetch_task(source(&uri, "main")), reason, words);
}

#[test]
fn a_loop_of_links_is_reported_as_a_loop() {
    refused_with_links(
        "ln -s pong ping; ln -s ping pong",
        StepReason::ContentRefused,
        &["\"ping\"", "loop of links"],
    );
}

#[test]
fn a_link_out_of_the_repository_is_refused() {
    refused_with_links(
        "ln -s ../../secrets leak",
        StepReason::PathEscapes,
        &["\"leak\"", "points outside"],
    );
}

/// An ssh server for the pod's repositories, on a free port of the loopback device. Dropping it stops the server.
struct Sshd {
    child: Child,
    port: u16,
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Sshd {
    fn start(pod: &Pod) -> Self {
        let at = pod.at("sshd");
        std::fs::create_dir(&at).unwrap();
        sh(
            &at,
            "ssh-keygen -q -t ed25519 -N '' -f host; ssh-keygen -q -t ed25519 -N '' -f user",
        );
        let mut child = Command::new("python3")
            .arg(fixture("ssh_server.py"))
            .args([at.join("host"), at.join("user.pub")])
            .env("PYTHONPATH", server_packages())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut port = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut port)
            .unwrap();
        let port = port.trim().parse().expect("the ssh server does not start");
        Self { child, port }
    }
}

#[test]
#[ignore = "installs an ssh server from PyPI: cargo test -p legion-agent -- --ignored"]
fn over_ssh_with_a_key_and_a_known_host() {
    let pod = Pod::new();
    let (_, _, second) = repository(&pod);
    let sshd = Sshd::start(&pod);
    let user = sh(&pod.at(""), "id -un");
    let uri = format!("ssh://{user}@127.0.0.1:{}{}", sshd.port, pod.at("origin").display());
    let host_key = pod.read("sshd/host.pub");
    let known = format!("[127.0.0.1]:{} {host_key}", sshd.port);
    let task = |secret: &str, known: &str| {
        pod.fetch_task(SourceTask::Git {
            uri: uri.clone(),
            reference: "main".into(),
            commit: String::new(),
            submodules: false,
            secret: secret.into(),
            known_hosts: known.into(),
        })
    };
    pod.fetch_error(
        &task("", ""),
        StepReason::HostKeyUnverified,
        &["known_hosts", "ssh-keyscan"],
    );
    pod.fetch_error(&task("", &known), StepReason::SourceAccessDenied, &["secretRef"]);
    pod.fetch_error(
        &task("git-key", &known),
        StepReason::SecretMissing,
        &["git-key", "ssh-privatekey"],
    );
    // The key is readable by its group, as with an fsGroup, and has no final line feed. ssh itself would refuse both.
    pod.secret("source", "ssh-privatekey", pod.read("sshd/user").trim_end());
    std::fs::set_permissions(
        pod.at("secrets/source/ssh-privatekey"),
        std::os::unix::fs::PermissionsExt::from_mode(0o644),
    )
    .unwrap();
    let fetched = pod.fetch(&task("git-key", &known));
    assert_eq!(fetched.message.head.source.expect(&fetched.stderr).commit, second);
    assert_eq!(
        std::fs::read_dir(pod.at("scratch")).unwrap().count(),
        0,
        "no copy of the key remains"
    );

    let other = known.replace(
        host_key.split(' ').nth(1).unwrap(),
        pod.read("sshd/user.pub").split(' ').nth(1).unwrap(),
    );
    pod.fetch_error(
        &task("git-key", &other),
        StepReason::HostKeyUnverified,
        &["Host key verification failed"],
    );
    sh(&pod.at("sshd"), "ssh-keygen -q -t ed25519 -N '' -f other");
    pod.secret("source", "ssh-privatekey", &pod.read("sshd/other"));
    pod.secret("source", "known_hosts", &known);
    pod.fetch_error(
        &task("git-key", ""),
        StepReason::SourceAccessDenied,
        &["Permission denied"],
    );
}
