"""Projects of the shapes that MLflow's own examples have give the same as with `mlflow run`, file lists included.

`toolchains/mlflow/README.md` lists the shapes, and those that are left out.
"""

import os
from pathlib import Path

import pytest
from comparison import of_events, plain, same_files, same_model
from harness import LEFT_OUT, document, mlflow_command, run, sampled

PROJECTS = Path(__file__).parent / "projects"
# An environment with libraries that the toolchain does not ship, beside its own MLflow.
FLAVORS = "3_FLAVORS"

NO_MODEL = {"requireModel": False}
CHILDREN = {"modelFrom": "children"}


def both(project: str, entry: str = "main", parameters: dict | None = None, arguments: dict | None = None) -> list:
    """Returns the project with each generation of MLflow."""
    return [(version, project, entry, parameters or {}, arguments or {}) for version in ("3", "2")]


ALWAYS = [
    *both("quickstart", "train.py", arguments=NO_MODEL),
    *both("search", parameters={"most": "3"}, arguments=CHILDREN),
    *both("workflow", arguments=CHILDREN),
]
# In CI two of these, as `LEGION_SEED` chooses.
SOMETIMES = [
    *both("logging", "train.py", arguments=NO_MODEL),
    *both("evaluation", "train.py"),
    *both("from-code", parameters={"words": "it's \"quoted\" $HOME", "table": "data/values.csv"}),
]
SAMPLE = sampled(SOMETIMES, lambda case: case[0])
# Only without `LEGION_SEED`. Their environment has 3 GB.
EXHAUSTIVE = [
    *[(FLAVORS, "flavors", entry, {}, {}) for entry in ("xgboost", "xgboost-sklearn", "lightgbm", "lightgbm-sklearn")],
    *[(FLAVORS, "flavors", entry, {}, {}) for entry in ("catboost", "statsmodels", "prophet", "pmdarima")],
    *[(FLAVORS, "flavors", entry, {}, {}) for entry in ("keras", "spacy")],
    *[(FLAVORS, "flavors", entry, {}, NO_MODEL) for entry in ("shap", "system-metrics")],
]


def named(case: tuple, is_left_out: bool) -> object:
    return pytest.param(*case, id=f"{case[1]}-{case[2]}-{case[0]}", marks=LEFT_OUT if is_left_out else ())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("version", "project", "entry", "parameters", "arguments"),
    [
        *(named(case, False) for case in ALWAYS),
        *(named(case, case not in SAMPLE) for case in SOMETIMES),
        *(named(case, "LEGION_SEED" in os.environ) for case in EXHAUSTIVE),
    ],
)
def test_a_project_of_that_shape_gives_the_same(
    version: str, project: str, entry: str, parameters: dict, arguments: dict, tmp_path: Path
) -> None:
    store, work = tmp_path / "plain.db", tmp_path / "plain"
    wanted = plain(version, store, "case", work, PROJECTS / project, entry, parameters)
    training = document(entrypoint=entry, hyperParameters=parameters, arguments=arguments)
    got = run(mlflow_command(version), tmp_path / "work", training, PROJECTS / project)
    assert got.code == 0, got.log
    logged = of_events(got.events)
    assert logged.main == wanted.logged.main
    assert logged.children == wanted.logged.children
    kept = tmp_path / "kept"
    kept.mkdir()
    for file in got.result.get("files", []):
        (kept / file["name"]).symlink_to(got.work / "output" / file["path"])
    if "model" in got.result:
        # The files first. Python writes compiled files into the model when it is loaded.
        same_files(kept, got.model, got.result["model"]["name"], wanted)
        same_model(got.model / "model", wanted, version)
    else:
        same_files(kept, None, "", wanted)
