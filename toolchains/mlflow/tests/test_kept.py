"""What is kept: every file that a run logged is in the artifact, in the run's files, or in a notice."""

from pathlib import Path

import pytest
from harness import Outcome, document, mlflow_command, run

PROJECT = """
import mlflow


class Constant(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return [1] * len(model_input)


def model(name, **more):
    mlflow.pyfunc.log_model(name, python_model=Constant(), pip_requirements=["cloudpickle"], **more)


open("note.txt", "w").write("note")
open("large.bin", "wb").write(bytes(2_000_000))
mlflow.start_run()
model("model", registered_model_name="prices")
model("other")
mlflow.log_artifact("note.txt", "model")
mlflow.log_artifact("note.txt")
mlflow.log_artifact("large.bin", "plots")
mlflow.log_text("flavors: {}", "saved/MLmodel")
mlflow.log_text("beside", "saved/beside.txt")
with mlflow.start_run(nested=True, run_name="below"):
    mlflow.log_metric("val_loss", 0.5)
    mlflow.log_text("child", "child.txt")
    model("child")
mlflow.end_run("FAILED")
"""


def kept(outcome: Outcome, directory: str) -> set[str]:
    root = outcome.work / "output" / directory
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("version", ["3", "2"])
def test_every_logged_file_is_kept_or_named(version: str, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "train.py").write_text(PROJECT)
    training = document(
        entrypoint="train.py",
        arguments={"maxRunArtifacts": "1M"},
        objective={"metric": "val_loss", "goal": "Minimize"},
    )
    got = run(mlflow_command(version), tmp_path / "work", training, project)
    assert got.code == 0, got.log
    assert got.result["model"]["name"] == "model"
    main, artifact = kept(got, "files"), kept(got, "model/model")
    assert {"note.txt", "saved/MLmodel", "saved/beside.txt"} <= main
    # MLflow 2 has the model among the run's files, and so the note in the model.
    assert ("model/note.txt" in main) if version == "3" else ("note.txt" in artifact)
    assert "MLmodel" in artifact and "model/MLmodel" not in main
    others = kept(got, "other-models") | main | kept(got, "child-runs")
    assert sum(path.endswith("/MLmodel") for path in others) == 3  # other, child, and the one that was logged as text
    assert [path.split("/", 1)[1] for path in kept(got, "child-runs") if path.endswith("child.txt")] == ["child.txt"]
    notices = {notice["reason"]: notice["message"] for notice in got.result["notices"]}
    assert "plots/large.bin" in notices["ArtifactsLeftOut"]
    assert "FAILED" in notices["RunEndedAs"]
    assert "other" in notices["SeveralModels"]
    assert "prices" in notices["RegistryNotKept"]
    assert "below" in notices["ObjectiveInOtherRun"]
    assert "1 FINISHED" in notices["ChildRuns"]
    assert all(len(message.encode()) <= 256 for message in notices.values()), notices
