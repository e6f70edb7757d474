//! The page of cases names tests that exist.

use std::fs;

use xtask::{
    repository,
    suites::cases::{self, Suite, Test},
    tidy::{self, TextFile},
};

/// Returns whether the test is defined somewhere in its suite.
fn exists(test: &Test, files: &[TextFile]) -> bool {
    let Test { suite, name } = test;
    let defined = |place: &str, text: &str| {
        let of_place = |file: &&TextFile| file.path.contains(place) && file.text.contains(text);
        files.iter().find(of_place).is_some()
    };
    match suite {
        Suite::Lib => defined("/src/", &format!("fn {name}(")),
        Suite::It => defined("/tests/it/", &format!("fn {name}(")),
        Suite::Legionctl => defined("tests/legionctl/", &format!("fn {name}(")),
        Suite::HighAvailability => defined("tests/high_availability/", &format!("fn {name}(")),
        Suite::BadInput => defined("tests/bad_input/", &format!("  name: {name}\n")),
        Suite::Toolchain => name.split_once('/').is_some_and(|(toolchain, case)| {
            defined(&format!("toolchains/{toolchain}/conformance/{case}/case.yaml"), "")
        }),
        Suite::Mlflow => name
            .split_once("::")
            .is_some_and(|(file, name)| defined(&format!("toolchains/mlflow/tests/{file}"), &format!("def {name}("))),
    }
}

#[test]
fn every_test_of_every_case_exists() {
    let files = tidy::tracked_files(&repository()).unwrap();
    let page = fs::read_to_string(repository().join(cases::PAGE)).unwrap();
    let cases = cases::cases(&page).unwrap();
    assert!(cases.len() > 50, "{} cases", cases.len());
    let tests = cases.iter().flat_map(|case| &case.tests);
    let missing: Vec<&Test> = tests.filter(|test| !exists(test, &files)).collect();
    assert!(
        missing.is_empty(),
        "{} names tests that do not exist: {missing:#?}",
        cases::PAGE
    );
}
