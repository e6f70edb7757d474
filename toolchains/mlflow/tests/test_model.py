"""Which model is taken, how it is locked, and what GPPI v1 refuses."""

import hashlib
from pathlib import Path

import pytest
import yaml
from harness import document

from legion_mlflow import gppi
from legion_mlflow.inside import lock, models
from legion_mlflow.protocol import Context
from legion_mlflow.refusal import Refusal


def context(**arguments) -> Context:
    nowhere = Path("/nonexistent")
    return Context(document(arguments=arguments), nowhere, nowhere, nowhere, nowhere, nowhere)


def candidate(name: str, number: int, status: str = "READY", run: str = "r1") -> models.Candidate:
    return models.Candidate(name, f"m-{number}", run, status, f"/models/{number}", number)


def test_one_model_is_taken() -> None:
    assert models.choose([candidate("a", 1)], context()).id == "m-1"


def test_the_newest_of_equal_names_wins() -> None:
    found = [candidate("a", 1), candidate("a", 2), candidate("b", 3)]
    assert models.choose(found, context(model="a")).id == "m-2"
    assert models.choose(found[:2], context()).id == "m-2"


def test_without_a_choice_all_are_listed() -> None:
    with pytest.raises(Refusal) as caught:
        models.choose([candidate("a", 1), candidate("b", 2, "PENDING"), candidate("c", 3)], context())
    assert caught.value.field == "spec.arguments.model"
    for words in ("a (id m-1, run r1, READY)", "b (id m-2, run r1, PENDING)", "c (id m-3"):
        assert words in caught.value.message


def test_a_model_that_was_not_finished_does_not_count() -> None:
    with pytest.raises(Refusal, match="not finished: a"):
        models.choose([candidate("a", 1, "PENDING")], context())
    assert models.choose([candidate("a", 1, "FAILED"), candidate("b", 2)], context()).name == "b"


def test_an_unknown_choice_says_what_there_is() -> None:
    with pytest.raises(Refusal, match="'z', and the run logged a"):
        models.choose([candidate("a", 1)], context(model="z"))


def test_same_name_in_two_runs_is_a_choice_to_make() -> None:
    with pytest.raises(Refusal) as caught:
        models.choose([candidate("a", 1), candidate("a", 2, run="r2")], context())
    assert caught.value.reason == "SeveralModels"


def test_the_lock_holds_the_closure_and_keeps_what_is_not_installed() -> None:
    locked = lock.closure(["pytest", "no-such-package==1.0", "# a comment", "--extra-index-url x", "./local dir"])
    names = [line.split("==")[0] for line in locked]
    assert {"pytest", "pluggy", "iniconfig"} <= set(names)
    assert "no-such-package==1.0" in locked and "./local dir" in locked
    assert len(names) == len(set(names))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "MLmodel").write_text("flavors: {}\n")
    (tmp_path / "lock").mkdir()
    (tmp_path / "lock" / "requirements.txt").write_text("a==1\n")
    files = ("lock/requirements.txt", "model/MLmodel")
    digest = {name: "sha256:" + hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in files}
    change(tmp_path, format="gppi/v1", identity={"name": "m"}, files=digest)
    change(tmp_path, loader={"type": "mlflow-pyfunc", "path": "model"}, lock={"path": "lock/requirements.txt"})
    return tmp_path


def change(root: Path, **fields) -> None:
    path = root / "legion.model.yaml"
    document = yaml.safe_load(path.read_text()) if path.exists() else {}
    path.write_text(yaml.safe_dump({**document, **fields}))


def test_a_good_directory_has_no_problem(root: Path) -> None:
    assert gppi.validate(root) == []


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"format": "gppi/v2"}, "format: is 'gppi/v2'"),
        ({"identity": {}}, "identity.name: is missing"),
        ({"colour": "red"}, "colour: is not a field"),
        ({"loader": {"type": "pickle"}}, "loader.type: is 'pickle'"),
        ({"loader": {"type": "mlflow-pyfunc", "path": "../x"}}, "loader.path: '../x'"),
        ({"loader": {"type": "module", "path": "model"}}, "loader.entrypoint: is missing"),
        ({"schema": {"inputs": 3}}, "schema.inputs: is not a list"),
        ({"lock": {"path": "elsewhere"}}, "lock.path: 'elsewhere'"),
        ({"files": {"../x": "sha256:0"}}, "files.../x: leaves the directory"),
    ],
)
def test_a_bad_descriptor_names_the_field(root: Path, fields: dict, problem: str) -> None:
    change(root, **fields)
    assert any(found.startswith(problem) for found in gppi.validate(root)), gppi.validate(root)


def test_changed_added_and_linked_files_are_found(root: Path) -> None:
    (root / "lock" / "requirements.txt").write_text("a==2\n")
    (root / "added").write_text("")
    (root / "link").symlink_to("/etc/passwd")
    problems = "\n".join(gppi.validate(root))
    assert "files.lock/requirements.txt: is sha256:" in problems
    assert "files: added is not listed" in problems
    assert "files: link is a link" in problems


def test_no_descriptor(tmp_path: Path) -> None:
    assert gppi.validate(tmp_path) == [f"legion.model.yaml: there is no such file in {tmp_path}"]
