//! `legion-entry` with real processes.

#![allow(clippy::unwrap_used, reason = "a test ends by panicking")]

mod harness;

use std::time::{Duration, Instant};

use harness::{Entry, Run, sh};
use legion_protocol::reason::StepReason;

#[test]
fn the_exit_code_is_that_of_the_command() {
    let run = Run::of(sh("echo out; echo err >&2; exit 3"));
    assert_eq!(run.code, Some(3));
    assert_eq!((run.out.as_str(), run.err.as_str()), ("out\n", "err\n"));
    let record = run.record();
    assert_eq!(
        (record.exit_code, record.signal, record.outside_signal, record.timed_out),
        (Some(3), None, None, false)
    );
    assert!(record.max_rss_bytes.unwrap() > 100_000);
    assert!(record.started_at <= record.finished_at && !record.started_at.is_empty());
    assert!(run.log().contains("out\n") && run.log().contains("err\n"));
    let delay = record.exec_delay_ms.unwrap();
    println!("from the start of legion-entry to the start of the command: {delay} ms (unoptimized)");
    assert!(delay < 200);
}

#[test]
fn arguments_are_never_read_by_a_shell() {
    let run = Run::of(Entry::new(["printf", "%s|", "$HOME", "a b", "*", ""]));
    assert_eq!(run.out, "$HOME|a b|*||");
}

#[test]
fn the_command_runs_in_the_project_with_its_environment() {
    let run = Run::of(sh("pwd; echo $PWD; echo $LEGION_TRAINING_EXTRA").env("LEGION_TRAINING_EXTRA", "x"));
    let lines: Vec<_> = run.out.lines().collect();
    assert_eq!(
        lines[0],
        run.dir.path().join("source").canonicalize().unwrap().to_str().unwrap()
    );
    assert_eq!(lines[2], "x");
}

#[test]
fn an_end_by_a_signal_is_recorded() {
    let run = Run::of(sh("kill -SEGV $$"));
    assert_eq!(run.code, Some(128 + libc::SIGSEGV));
    assert_eq!(
        (run.record().exit_code, run.record().signal),
        (None, Some(libc::SIGSEGV))
    );
    assert!(!run.record().succeeded());
}

#[test]
fn a_command_that_traps_term_and_exits_0_was_interrupted() {
    let mut entry = sh("trap 'echo got it; exit 0' TERM; echo ready; while :; do sleep 0.01; done").start();
    entry.wait_for("ready");
    entry.signal(libc::SIGTERM);
    let run = entry.end();
    assert_eq!(run.code, Some(0));
    assert!(run.out.contains("got it"));
    assert_eq!(run.record().outside_signal, Some(libc::SIGTERM));
    assert!(!run.record().succeeded());
}

#[test]
fn other_signals_reach_only_the_command() {
    let script = "trap 'echo usr1' USR1; trap 'echo hup' HUP; trap 'echo usr2; exit 7' USR2
        sleep 1000 & echo ready; while :; do wait; done";
    for entry in [sh(script), sh(script).with_signals_ignored_by_parent("HUP USR1")] {
        let mut entry = entry.start();
        entry.wait_for("ready");
        for (signal, word) in [(libc::SIGUSR1, "usr1"), (libc::SIGHUP, "hup"), (libc::SIGUSR2, "usr2")] {
            entry.signal(signal);
            entry.wait_for(word);
        }
        let run = entry.end();
        assert_eq!(run.code, Some(7));
        assert_eq!(run.record().outside_signal, None);
    }
}

#[test]
fn stray_children_are_ended_without_a_wait_for_their_pipes() {
    for stray in [
        "sleep 1000 & echo $!",
        "setsid sleep 1000 & echo $!",
        "(sleep 1000 & echo $!) &\nsleep 0.1",
    ] {
        let begun = Instant::now();
        let run = Run::of(sh(&format!("{stray}\nexit 5")));
        assert_eq!(run.code, Some(5), "{stray}");
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "{stray}: the pipe was waited for"
        );
        let pid = run.out.trim();
        assert!(!harness::is_alive(pid), "{stray}: {pid} is still running");
    }
}

#[test]
fn a_stray_child_that_ignores_term_is_killed_and_cannot_flood_the_end() {
    let script = "sh -c 'trap \"\" TERM; echo $$ >&2; while :; do echo noise; done' & sleep 0.2; exit 0";
    let run = Run::of(sh(script));
    assert_eq!(run.code, Some(0));
    assert!(!harness::is_alive(run.err.lines().next().unwrap()));
}

#[test]
fn orphans_are_reaped_while_the_command_runs() {
    // The inner shell ends before its child, so the child becomes ours. A zombie would stay in /proc and block this
    // test.
    let run = Run::of(sh(
        "p=$(sh -c 'sleep 0.05 >/dev/null & echo $!'); while [ -e /proc/$p ]; do sleep 0.01; done; echo reaped",
    ));
    assert_eq!(run.out, "reaped\n");
}

#[test]
fn a_hundred_megabytes_of_output_cost_neither_memory_nor_disk() {
    let limit = 1 << 20;
    let script = "yes 0123456789abcde | head -c 100000000; echo; echo the last line; grep VmHWM /proc/$PPID/status >&2";
    let run = Run::of(
        sh(script)
            .env("LEGION_LOG_LIMIT_BYTES", &limit.to_string())
            .discard_out(),
    );
    assert_eq!(run.code, Some(0));
    let peak: u64 = run.err.split_whitespace().nth(1).unwrap().parse().unwrap();
    println!("peak resident memory of legion-entry after 100 MB of output: {peak} KiB");
    assert!(peak < 8 * 1024, "{peak} KiB");
    let log = run.log();
    println!("size of the stored log: {} bytes", log.len());
    assert!(log.len() as u64 <= limit + 100);
    assert!(log.starts_with("0123456789abcde\n") && log.contains("bytes of output left out here]"));
    assert!(log.contains("the last line\n"));
}

#[test]
fn a_command_that_outlives_its_timeout_gets_term_and_then_kill() {
    let limits = |entry: Entry| {
        entry
            .env("LEGION_TIMEOUT_SECONDS", "1")
            .env("LEGION_GRACE_SECONDS", "1")
    };
    let run = Run::of(limits(sh(
        "trap 'echo term' TERM; sh -c 'trap \"\" TERM; echo $$; while :; do sleep 0.05; done' & while :; do wait; done",
    )));
    assert_eq!(run.code, Some(124));
    let record = run.record();
    assert!(record.timed_out && record.signal == Some(libc::SIGKILL) && record.outside_signal.is_none());
    assert!(run.out.contains("term\n") && run.err.contains("timeout of 1 s"));
    assert!(
        !harness::is_alive(run.out.lines().next().unwrap()),
        "the whole group ends"
    );

    let run = Run::of(limits(sh("trap 'exit 0' TERM; while :; do sleep 0.05; done")));
    assert_eq!(
        (run.code, run.record().exit_code, run.record().timed_out),
        (Some(124), Some(0), true)
    );
}

#[test]
fn a_command_that_cannot_be_started_is_reported_with_a_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let plain = dir.path().join("plain");
    std::fs::write(&plain, "no program").unwrap();
    let script = dir.path().join("script");
    std::fs::write(&script, "#!/no/such/interpreter\n").unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let (plain, script) = (plain.to_str().unwrap(), script.to_str().unwrap());
    for (command, code, reason, words) in [
        (
            "no-such-command",
            127,
            StepReason::CommandNotFound,
            "was not found in PATH",
        ),
        ("./no/such/command", 127, StepReason::CommandNotFound, "was not found"),
        (plain, 126, StepReason::CommandNotExecutable, "may not be executed"),
        (script, 126, StepReason::CommandNotExecutable, "interpreter"),
    ] {
        let run = Run::of(Entry::new([command]));
        assert_eq!(run.code, Some(code), "{command}");
        let error = run.record().error.unwrap();
        assert_eq!(error.reason, reason, "{command}");
        assert!(
            error.message.contains(words) && error.message.contains(command),
            "{}",
            error.message
        );
        assert!(
            run.err.contains(&error.message),
            "stderr shows the same message: {}",
            run.err
        );
    }
    let run = Run::of(sh("true").env("LEGION_SOURCE", "/no/such/directory"));
    assert_eq!(run.code, Some(127));
    let error = run.record().error.unwrap();
    assert_eq!(error.reason, StepReason::WorkDirMissing);
    assert!(error.message.contains("/no/such/directory") && error.message.contains("spec.workDir"));
}

#[test]
fn an_invalid_setup_is_reported() {
    for (entry, words) in [
        (Entry::raw(["true"]), "usage"),
        (Entry::raw(["--"]), "usage"),
        (sh("true").env("LEGION_RUN", ""), "LEGION_RUN"),
        (sh("true").env("LEGION_RUN", "/no/such"), "/no/such/lock"),
        (
            sh("true").env("LEGION_TIMEOUT_SECONDS", "15m"),
            "LEGION_TIMEOUT_SECONDS",
        ),
    ] {
        let run = Run::of(entry);
        assert_eq!(run.code, Some(125));
        assert!(run.err.contains(words), "{}", run.err);
    }
}

#[test]
fn the_lock_is_held_for_as_long_as_the_command_runs_and_is_not_inherited() {
    let mut entry = sh("setsid sleep 1000 & echo $!; echo $$; echo ready; while :; do sleep 0.01; done").start();
    entry.wait_for("ready");
    assert!(
        entry.started().contains("\"pid\""),
        "the start mark is there before the command runs"
    );
    assert!(!entry.lock_is_free());
    let second = Run::in_dir(sh("echo twice"), entry.dir.path());
    assert_eq!((second.code, second.out.as_str()), (Some(125), ""));
    assert!(second.err.contains("another legion-entry"));
    // The kernel kills like this when memory runs out: no handler runs and no record is written. The lock is free
    // anyway, although a stray process survives. The command itself ends before the lock is free for `publish`.
    entry.signal(libc::SIGKILL);
    entry.wait_for_lock();
    assert!(!entry.dir.path().join("run/exit.json").exists());
    let printed = std::fs::read_to_string(entry.dir.path().join("run/log")).unwrap();
    let pids: Vec<_> = printed.lines().take(2).collect();
    harness::wait_for_end(pids[1]);
    assert!(harness::is_alive(pids[0]));
    harness::kill(pids[0]);
}

#[test]
fn a_run_that_has_published_is_not_run_again() {
    let entry = sh("echo again");
    std::fs::create_dir_all(entry.dir.path().join("run")).unwrap();
    std::fs::write(entry.dir.path().join("run/skip"), "").unwrap();
    let run = Run::of(entry);
    assert_eq!((run.code, run.out.as_str()), (Some(0), ""));
    assert!(run.err.contains("already published"));
    assert!(!run.dir.path().join("run/exit.json").exists());
}

#[test]
fn a_reader_that_closes_or_sleeps_does_not_disturb_the_command() {
    let mut entry = sh("echo ready; while [ ! -e go ]; do sleep 0.01; done; yes | head -c 300000; exit 4").start();
    entry.wait_for("ready");
    entry.close_out();
    std::fs::write(entry.dir.path().join("source/go"), "").unwrap();
    let run = entry.end();
    assert_eq!(run.code, Some(4));
    assert_eq!(run.log().len(), 300_006);

    // The output fits into the pipes, so the command ends. Its end is recorded although there is no reader.
    let entry = sh("yes | head -c 100000; exit 4").start();
    assert_eq!(entry.end_unread().code, Some(4));
}

#[test]
fn the_binary_needs_nothing_from_the_image() {
    let program = std::fs::read(env!("CARGO_BIN_EXE_legion-entry")).unwrap();
    let kinds = harness::elf_segments(&program);
    const LOAD: u32 = 1;
    const INTERPRETER: u32 = 3;
    assert!(kinds.contains(&LOAD), "{kinds:?}");
    assert!(
        !kinds.contains(&INTERPRETER),
        "legion-entry is not linked statically: install the C library's archive, libc.a (see .cargo/rustc)"
    );
    // Runs in a root directory without other files. The command is legion-entry again, which prints its usage.
    let Some(run) = Entry::new(["/legion-entry"]).run_alone() else {
        println!("SKIPPED: this user may not change the root directory");
        return;
    };
    assert_eq!(run.code, Some(125), "{}", run.err);
    assert!(run.err.contains("usage: legion-entry"), "{}", run.err);
    assert_eq!(run.record().exit_code, Some(125));
}

#[test]
fn legion_entry_works_as_pid_1() {
    let entry = sh(
        "test $PPID = 1 && p=$(sh -c 'sleep 0.05 >/dev/null & echo $!'); while [ -e /proc/$p ]; do sleep 0.01; done; exit 9",
    );
    let Some(run) = entry.run_as_pid_1() else {
        println!("SKIPPED: this user may not make a pid namespace");
        return;
    };
    assert_eq!(run.code, Some(9), "{}", run.err);
    assert_eq!(run.record().exit_code, Some(9));
}
