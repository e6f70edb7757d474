//! Logs of all kinds, as `local run` and `logs` show them and as they are stored.

use std::{fs, path::PathBuf};

use legion_tests::local::{Local, text};

/// Writes the manifest of a training with one script, and returns its path.
fn manifest(local: &Local, name: &str, script: &str, more: &str) -> PathBuf {
    let path = local.path().join(format!("{name}.yaml"));
    let script: String = script.lines().map(|line| format!("    {line}\n")).collect();
    let text = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}-source}}\ndata:\n  train.sh: |\n{script}---\n\
         apiVersion: legion-platform.org/v1alpha1\nkind: ModelTraining\nmetadata: {{name: {name}}}\nspec:\n  \
         model: {{name: {name}, version: \"1\"}}\n  toolchain: script\n  entrypoint: train.sh\n  \
         source: {{configMap: {{name: {name}-source}}}}\n{more}"
    );
    fs::write(&path, text).unwrap();
    path
}

/// Returns the lines of the training's log among what `local run` prints.
fn shown(stderr: &str) -> Vec<&str> {
    stderr
        .lines()
        .filter_map(|line| line.strip_prefix("          | "))
        .collect()
}

/// Returns the bytes of the stored log.
fn stored(training: &serde_json::Value) -> Vec<u8> {
    let uri = training["status"]["log"]["uri"].as_str().unwrap();
    fs::read(uri.strip_prefix("file://").unwrap()).unwrap()
}

#[test]
fn every_line_is_shown_whatever_its_bytes_and_the_stored_log_keeps_them() {
    let local = Local::new().unwrap();
    local.up().unwrap();
    let script = r#"
echo before
printf 'column Gr\366\337e\n'
i=0; while [ $i -lt 3 ]; do
  k=0; while [ $k -le 95 ]; do printf '\rEpoch %d  %3d%%|' $i $k >&2; k=$((k + 5)); done
  printf '\n' >&2; i=$((i + 1))
done
printf '\033[31mred\033[0m\n'
head -c 100000 /dev/zero | tr '\0' x; echo
echo after; exit 7
"#;
    let (code, training, stderr) = local.train(&manifest(&local, "bytes", script, "")).unwrap();
    assert_eq!(code, Some(1), "{stderr}");
    let lines = shown(&stderr);
    // The order of standard output and standard error is not fixed.
    for line in [
        "before",
        "column Gr\u{fffd}\u{fffd}e",
        "Epoch 0   95%|",
        "Epoch 1   95%|",
        "Epoch 2   95%|",
        "red",
        "after",
    ] {
        assert_eq!(
            lines.iter().filter(|shown| **shown == line).count(),
            1,
            "{line}: {stderr}"
        );
    }
    let long = lines.iter().find(|line| line.starts_with("xxx")).unwrap();
    assert!(
        long.ends_with("x ... (83616 more bytes are in the stored log)"),
        "{stderr}"
    );

    let stored = stored(&training);
    for part in [
        &b"Gr\xf6\xdfe\n"[..],
        b"\rEpoch 2   90%|\rEpoch 2   95%|\n",
        b"\x1b[31mred\x1b[0m\n",
    ] {
        assert!(stored.windows(part.len()).any(|window| window == part), "{part:?}");
    }
    assert!(stored.split(|byte| *byte == b'\n').any(|line| line.len() == 100_000));
    let output = local.output(&["logs", "bytes"]).unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let part = b"Gr\xf6\xdfe\n";
    assert!(output.stdout.windows(part.len()).any(|window| window == part));
    let report = local.output(&["get", "mt", "bytes", "-o", "report"]).unwrap();
    assert!(text(&report).contains("  | after\n"), "{}", text(&report));
    local.down().unwrap();
}

#[test]
fn of_a_log_of_100_mb_every_line_is_shown() {
    const LINES: usize = 12_500;
    let local = Local::new().unwrap();
    let script = format!(
        "awk 'BEGIN {{ pad = \"x\"; while (length(pad) < 8192) pad = pad pad; \
         for (i = 0; i < {LINES}; i++) print i, pad }}'\n\
         mkdir -p \"$LEGION_OUTPUT/model\"; echo ok > \"$LEGION_OUTPUT/model/m.txt\""
    );
    let (code, training, stderr) = local.train(&manifest(&local, "large", &script, "")).unwrap();
    assert_eq!(code, Some(0), "{}", stderr.lines().next_back().unwrap_or_default());
    let mut expected = 0_usize;
    for (number, pad) in shown(&stderr).iter().filter_map(|line| line.split_once(' ')) {
        assert_eq!(number.parse::<usize>().unwrap(), expected, "lines are missing");
        assert_eq!(pad.len(), 8192);
        expected += 1;
    }
    assert_eq!(expected, LINES);
    assert!(training["status"]["log"]["uri"].is_string(), "{training:#}");
    local.deserted().unwrap();
}

#[test]
fn after_a_third_change_only_pods_and_lines_of_the_new_run_are_shown() {
    let local = Local::new().unwrap();
    let script =
        "echo \"I am $LEGION_PARAM_TAG\"; mkdir -p \"$LEGION_OUTPUT/model\"; echo ok > \"$LEGION_OUTPUT/model/m\"";
    for tag in ["one", "two", "three", "four"] {
        let more = format!("  hyperParameters: {{tag: {tag}}}\n");
        let (code, training, stderr) = local.train(&manifest(&local, "changed", script, &more)).unwrap();
        assert_eq!(code, Some(0), "{stderr}");
        assert_eq!(shown(&stderr), [format!("I am {tag}")], "{stderr}");
        let pods: Vec<&str> = stderr
            .lines()
            .filter_map(|line| Some(line.split_once("  pod ")?.1))
            .collect();
        let run = training["status"]["run"]["id"].as_str().unwrap();
        assert_eq!(pods, [format!("changed-{run}-1")], "{stderr}");
    }
    local.deserted().unwrap();
}
