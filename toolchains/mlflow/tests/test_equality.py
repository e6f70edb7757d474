"""The promise: what `mlflow run` completes gives the same parameters, metrics, tags and model as a training.

Here the toolchain alone keeps it, with both generations of MLflow; in test_legion.py Legion does, from the manifest on.
"""

from pathlib import Path

import pytest
from comparison import contents, of_events, plain, same_model
from harness import REPOSITORY, document, mlflow_command, run

STEPS = (Path(__file__).parent / "projects" / "steps", "main", {"c": "0.50", "more": "1.10"}, {})
SEARCH = (REPOSITORY / "examples" / "grid-search" / "project", "train.py", {}, {"model": "best_estimator"})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("version", "case"), [("3", STEPS), ("2", STEPS), ("2", SEARCH)], ids=["3-steps", "2-steps", "2-search"]
)
def test_same_as_mlflow_run(version: str, case: tuple, tmp_path: Path) -> None:
    project, entry, parameters, arguments = case
    expected = plain(version, tmp_path / "plain", project, entry, parameters)
    training = document(entrypoint=entry, hyperParameters=parameters, arguments=arguments)
    got = run(mlflow_command(version), tmp_path / "legion", training, project)
    assert got.code == 0, got.log

    logged = of_events(got.events)
    assert logged.main == expected.logged.main
    assert logged.children == expected.logged.children
    model = got.model / "model"
    # Byte-identical to what MLflow wrote: the attempt's own store still holds it.
    stored = [p.parent for p in (got.work / "mlflow-1").rglob("MLmodel")]
    assert any(contents(model) == contents(directory) for directory in stored)
    same_model(model, expected, version)
