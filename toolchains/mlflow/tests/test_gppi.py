"""Refusals of GPPI v1: the same cases for this validator, the one in Rust and the JSON Schema."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from harness import REPOSITORY

from legion_mlflow import gppi

CASES = yaml.safe_load((Path(__file__).parent / "gppi_cases.yaml").read_text())
SCHEMA = json.loads((REPOSITORY / "docs" / "reference" / "schemas" / "gppi-v1.json").read_text())


def lay_out(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize("case", CASES["cases"], ids=lambda case: "; ".join(case["problems"])[:50] or "good")
def test_every_problem_is_named(case: dict, tmp_path: Path) -> None:
    lay_out(tmp_path, CASES["files"])
    descriptor = {**CASES["descriptor"], **case.get("descriptor", {})}
    descriptor = {name: value for name, value in descriptor.items() if name not in case.get("remove", [])}
    (tmp_path / gppi.DESCRIPTOR).write_text(yaml.safe_dump(descriptor))
    lay_out(tmp_path, case.get("write", {}))
    for name, target in case.get("link", {}).items():
        (tmp_path / name).symlink_to(target)
    assert gppi.validate(tmp_path) == case["problems"]

    # A schema knows only the descriptor, not the files beside it.
    errors = list(jsonschema.Draft202012Validator(SCHEMA).iter_errors(descriptor))
    assert bool(errors) == (case.get("schema") == "refuses"), errors


@pytest.mark.parametrize(("text", "problem"), [("a: [", "cannot be read"), ("- a", "is not a mapping")])
def test_a_broken_descriptor_is_named(text: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / gppi.DESCRIPTOR).write_text(text)
    (found,) = gppi.validate(tmp_path)
    assert found.startswith(f"legion.model.yaml: {problem}")


def test_a_directory_without_descriptor_is_named(tmp_path: Path) -> None:
    assert gppi.validate(tmp_path) == [f"legion.model.yaml: there is no such file in {tmp_path}"]
