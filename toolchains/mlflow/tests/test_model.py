"""The choice of a model, and its lock."""

from pathlib import Path

import pytest
from harness import document

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


def test_an_unfinished_model_does_not_count() -> None:
    with pytest.raises(Refusal, match="Not finished: a"):
        models.choose([candidate("a", 1, "PENDING")], context())
    assert models.choose([candidate("a", 1, "FAILED"), candidate("b", 2)], context()).name == "b"


def test_an_unknown_choice_lists_the_models() -> None:
    with pytest.raises(Refusal, match="'z', but the run logged a"):
        models.choose([candidate("a", 1)], context(model="z"))


def test_the_same_name_in_two_runs_needs_a_choice() -> None:
    with pytest.raises(Refusal) as caught:
        models.choose([candidate("a", 1), candidate("a", 2, run="r2")], context())
    assert caught.value.reason == "SeveralModels"


def test_the_lock_has_the_closure_and_keeps_missing_packages() -> None:
    locked = lock.closure(["pytest", "no-such-package==1.0", "# a comment", "--extra-index-url x", "./local dir"])
    names = [line.split("==")[0] for line in locked]
    assert {"pytest", "pluggy", "iniconfig"} <= set(names)
    assert "no-such-package==1.0" in locked and "./local dir" in locked
    assert len(names) == len(set(names))
