"""The choice of a model, and its lock."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

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


def run(number: int, **metrics: float) -> SimpleNamespace:
    """The parts of an MLflow run that the choice reads."""
    return SimpleNamespace(info=SimpleNamespace(run_id=f"r{number}"), data=SimpleNamespace(metrics=metrics))


def choose(found: list[models.Candidate], **arguments) -> models.Candidate | None:
    return models.choose(found, [run(1), run(2), run(3)], context(**arguments))


def test_one_model_is_taken() -> None:
    assert choose([candidate("a", 1)]).id == "m-1"


def test_the_newest_of_equal_names_wins() -> None:
    found = [candidate("a", 1), candidate("a", 2), candidate("b", 3)]
    assert choose(found, model="a").id == "m-2"
    assert choose(found[:2]).id == "m-2"
    assert models.several(found[:2], found[1]) is None


def test_of_several_names_model_is_taken_else_the_newest_and_a_notice_has_the_rest() -> None:
    found = [candidate("model", 1), candidate("best_estimator", 2), candidate("c", 3, "PENDING")]
    assert choose(found).id == "m-1"
    assert choose([candidate("a", 1), candidate("b", 2)]).id == "m-2"
    words = models.several(found, found[0])
    assert "best_estimator" in words and "spec.arguments.model" in words and len(words) <= 256


def test_of_several_runs_the_one_with_the_best_objective_is_taken() -> None:
    found = [candidate("model", 1, run="r2"), candidate("model", 2, run="r3"), candidate("model", 3, run="r1")]
    runs = [run(1, loss=0.0), run(2, loss=0.25), run(3, loss=0.5)]
    training = context(modelFrom="children")
    assert models.choose(found, runs, training).id == "m-2"
    training.training["objective"] = {"metric": "loss", "goal": "Minimize"}
    assert models.choose(found, runs, training).id == "m-1"
    training.training["objective"]["goal"] = "Maximize"
    assert models.choose(found, runs, training).id == "m-2"


def test_an_unfinished_model_does_not_count() -> None:
    with pytest.raises(Refusal, match="Not finished: a") as caught:
        choose([candidate("a", 1, "PENDING")])
    assert caught.value.document()["origin"] == "output"
    assert choose([candidate("a", 1, "FAILED"), candidate("b", 2)]).name == "b"


def test_a_model_of_the_other_runs_is_named_with_the_setting_that_takes_it() -> None:
    below = candidate("a", 1, run="r2")
    with pytest.raises(Refusal, match=r"a \(id m-1, run r2, READY\)") as caught:
        choose([below])
    assert caught.value.field == "spec.arguments.modelFrom" and "children" in caught.value.remedy
    assert choose([below], modelFrom="children") is below


def test_an_unknown_choice_lists_the_models() -> None:
    with pytest.raises(Refusal, match="'z', but the run logged a"):
        choose([candidate("a", 1)], model="z")


def test_the_lock_has_the_closure_and_keeps_missing_packages() -> None:
    locked = lock.closure(["pytest", "no-such-package==1.0", "# a comment", "--extra-index-url x", "./local dir"])
    names = [line.split("==")[0] for line in locked]
    assert {"pytest", "pluggy", "iniconfig"} <= set(names)
    assert "no-such-package==1.0" in locked and "./local dir" in locked
    assert len(names) == len(set(names))
