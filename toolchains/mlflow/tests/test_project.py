"""The declarations of an MLproject, and refusals before anything is built."""

import json
from pathlib import Path

import pytest
from harness import document

from legion_mlflow import project
from legion_mlflow.protocol import Context, Events
from legion_mlflow.refusal import Refusal

ML_PROJECT = """
name: p
entry_points:
  main:
    parameters:
      rate: float
      rounds: {type: int, default: 3}
      data: {type: path, default: train.py}
      where: {type: uri, default: "s3://b/k"}
    command: "python train.py"
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    directory = tmp_path / "source"
    directory.mkdir()
    (directory / "MLproject").write_text(ML_PROJECT)
    (directory / "train.py").write_text("")
    return directory


def check(root: Path, **fields) -> list[dict]:
    """Checks a training of the project and returns its events."""
    out = root.parent
    context = Context(document(**fields), root, out / "output", out / "events", out / "result", out)
    project.check(project.load(root), context, Events(context.events))
    return [json.loads(line) for line in context.events.read_text().splitlines()]


def refusal(root: Path, **fields) -> Refusal:
    with pytest.raises(Refusal) as caught:
        check(root, **fields)
    return caught.value


def test_declared_values_pass_in_every_spelling(root: Path) -> None:
    for rate in ("1", "0.50", "1e-3", "-2.5", "inf"):
        assert check(root, hyperParameters={"rate": rate, "rounds": "-4", "data": "train.py"}) == []


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("rate", "half", "a float"),
        ("rate", "", "a float"),
        ("rate", "1,5", "a float"),
        ("rounds", "3.0", "an int"),
        ("rounds", "three", "an int"),
        ("data", "no-such-file", "a path"),
        ("where", "just-a-name", "a uri"),
    ],
)
def test_a_wrong_value_names_field_value_and_type(root: Path, name: str, value: str, words: str) -> None:
    refused = refusal(root, hyperParameters={"rate": "1", name: value})
    assert refused.reason == "InvalidHyperParameter"
    assert refused.field == f"spec.hyperParameters.{name}"
    assert repr(value) in refused.message and words in refused.message and refused.remedy


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gro\u0308\u00dfe", "COMBINING DIAERESIS"),
        ("lr (start)", "LEFT PARENTHESIS"),
        ("a//b", "empty part"),
        ("../a", "begins with"),
        ("x" * 251, "251 characters"),
    ],
)
def test_a_name_that_mlflow_cannot_log_is_refused_with_its_character(root: Path, name: str, words: str) -> None:
    refused = refusal(root, hyperParameters={"rate": "1", name: "5"})
    assert refused.field == f"spec.hyperParameters.{name}" and words in refused.message
    assert check(root, hyperParameters={"rate": "1", "gr\u00f6\u00dfe": "5", "a/b c-d_e.f:g": "6"})


def test_an_undeclared_hyperparameter_is_a_notice(root: Path) -> None:
    (event,) = check(root, hyperParameters={"rate": "1", "color": "red"})
    assert event["level"] == "notice" and event["reason"] == "UndeclaredParameter" and "color" in event["text"]


def test_a_missing_hyperparameter_names_it(root: Path) -> None:
    assert refusal(root).field == "spec.hyperParameters.rate"


@pytest.mark.parametrize("entry", ["nope", "nope.py", "../train.py", "sub/train.py"])
def test_an_unknown_entry_point_lists_the_existing_ones(root: Path, entry: str) -> None:
    (root.parent / "train.py").write_text("outside")
    refused = refusal(root, entrypoint=entry)
    assert refused.field == "spec.entrypoint" and entry in refused.message
    assert refused.message.endswith("main, train.py")


def test_a_file_is_an_entry_point_without_mlproject(root: Path) -> None:
    (root / "MLproject").unlink()
    assert check(root, entrypoint="train.py", hyperParameters={"any": "thing"}) == []


def test_args_and_docker_are_refused_with_a_remedy(root: Path) -> None:
    assert refusal(root, args=["--fast"]).field == "spec.args"
    (root / "MLproject").write_text("docker_env: {image: x}\nentry_points: {main: {command: 'true'}}")
    assert "docker_env" in refusal(root).remedy


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "cannot be read"),
        ("- a list", "not a mapping"),
        ("python_env: a.yaml\nconda_env: b.yaml", "one environment"),
        ("python_env: missing.yaml", "missing.yaml"),
        ("", "MLproject is empty"),
        ("entry_points: [main]", "entry_points: ['main'], but this is not a mapping"),
        ("entry_points: {main: python train.py}", "entry_points.main: 'python train.py'"),
        ("entry_points: {main: {parameters: [c]}}", "entry_points.main.parameters: ['c']"),
        ("entry_points: {main: {parameters: {}}}", "entry_points.main.command: None"),
    ],
)
def test_a_broken_mlproject_is_named(root: Path, text: str, words: str) -> None:
    (root / "MLproject").write_text(text)
    refused = refusal(root)
    assert refused.reason == "InvalidProject" and words in refused.message


def test_environment_files_are_found_as_mlflow_finds_them(root: Path) -> None:
    assert not project.load(root).declares_environment
    (root / "conda.yaml").write_text("dependencies: []")
    assert project.load(root).conda_env == root / "conda.yaml"
    (root / "python_env.yaml").write_text("dependencies: []")
    assert project.load(root).python_env == root / "python_env.yaml"
    assert project.load(root).conda_env is None
    (root / "MLproject").write_text(ML_PROJECT + "conda_env: conda.yaml\n")
    assert project.load(root).conda_env == root / "conda.yaml"
    assert project.load(root).python_env is None


def test_an_unused_entry_point_may_be_broken(root: Path) -> None:
    (root / "MLproject").write_text("entry_points: {main: {command: 'true'}, other: {parameters: {}}}")
    assert check(root) == []
