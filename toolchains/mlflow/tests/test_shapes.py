"""Projects of the shapes that MLflow's own examples have give the same as with `mlflow run`, file lists included."""

from pathlib import Path

import pytest
from comparison import of_events, plain, same_files, same_model
from harness import document, mlflow_command, run

PROJECTS = Path(__file__).parent / "projects"


@pytest.mark.slow
@pytest.mark.parametrize("version", ["3", "2"])
@pytest.mark.parametrize(
    ("project", "entry", "parameters", "arguments"),
    [
        ("quickstart", "train.py", {}, {"requireModel": False}),
        ("search", "main", {"most": "3"}, {"modelFrom": "children"}),
        ("workflow", "main", {}, {"modelFrom": "children"}),
    ],
)
def test_a_project_of_that_shape_gives_the_same(
    project: str, entry: str, parameters: dict, arguments: dict, version: str, tmp_path: Path
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
    for file in got.result["files"]:
        (kept / file["name"]).symlink_to(got.work / "output" / file["path"])
    if "model" in got.result:
        # The files first. Python writes compiled files into the model when it is loaded.
        same_files(kept, got.model, got.result["model"]["name"], wanted)
        same_model(got.model / "model", wanted, version)
    else:
        same_files(kept, None, "", wanted)
