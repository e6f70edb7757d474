//! Generated files are what the generators say.

use legion_generators as generate;
use xtask::repository;

#[test]
fn generated_files_are_up_to_date() {
    let drift = generate::run(&repository(), false).unwrap();
    let text: String = drift.iter().map(|entry| format!("{entry}\n")).collect();
    assert!(drift.is_empty(), "run `cargo xtask gen`; what differs:\n{text}");
}

#[test]
fn drift_is_found_written_and_gone_and_left_over_files_are_removed() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("examples")).unwrap();
    std::fs::create_dir_all(root.path().join("crds")).unwrap();
    std::fs::write(root.path().join("crds/gone.yaml"), "old\n").unwrap();

    let found = generate::run(root.path(), false).unwrap();
    assert!(
        found
            .iter()
            .any(|drift| drift.path.ends_with("crds/modeltrainings.yaml"))
    );
    assert!(
        !root.path().join("crds/modeltrainings.yaml").exists(),
        "a check writes nothing"
    );

    generate::run(root.path(), true).unwrap();
    assert!(!root.path().join("crds/gone.yaml").exists());
    assert_eq!(generate::run(root.path(), false).unwrap(), []);

    let crd = root.path().join("crds/modeltrainings.yaml");
    let changed = std::fs::read_to_string(&crd)
        .unwrap()
        .replacen("shortNames", "shortNaems", 1);
    std::fs::write(&crd, changed).unwrap();
    let found = generate::run(root.path(), false).unwrap();
    assert_eq!(found.len(), 1);
    assert!(
        found[0].diff.contains("-    shortNaems") && found[0].diff.contains("+    shortNames"),
        "{}",
        found[0].diff
    );
}
