"""Facts known during a run, and the end of a stopped run."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from harness import Outcome, document, mlflow_command, variables

# The project logs a metric and then waits until the test opens the FIFO's other end.
WAITING = """
import os
import mlflow

with mlflow.start_run():
    mlflow.log_metric("loss", 0.5, step=1)
    open(os.path.join(os.environ["LEGION_WORK"], "fifo")).read()
    mlflow.log_metric("loss", 0.25, step=2)
"""


@pytest.fixture
def started(tmp_path: Path):
    """Starts a training. It logs its first point and waits."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "train.py").write_text(WAITING)
    training = document(entrypoint="train.py", arguments={"requireModel": False})
    env = variables(tmp_path / "work", training, project)
    os.mkfifo(tmp_path / "work" / "fifo")
    process = subprocess.Popen(
        mlflow_command("3"),
        env=env,
        cwd=tmp_path / "work" / "source",
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )
    yield process, Outcome(0, "", tmp_path / "work")
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def first_point(work: Path) -> None:
    """Waits for the first point. The training waits too, so a stream written only at the end would never have it."""
    path = work / "run" / "events.jsonl"
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        for line in path.read_text().splitlines(keepends=True) if path.exists() else []:
            if line.endswith("\n") and json.loads(line)["type"] == "metric":
                return
        time.sleep(0.02)
    raise AssertionError("no metric arrived")


@pytest.mark.slow
def test_points_arrive_during_the_run(started) -> None:
    process, outcome = started
    first_point(outcome.work)
    # A kill would leave exactly these events.
    assert process.poll() is None
    assert outcome.metrics() == {"loss": [(1, "0.5")]}
    assert not outcome.result
    (outcome.work / "fifo").write_text("go on")
    assert process.wait(timeout=300) == 0
    assert outcome.metrics() == {"loss": [(1, "0.5"), (2, "0.25")]}


@pytest.mark.slow
def test_term_ends_the_command_and_everything_is_harvested(started) -> None:
    process, outcome = started
    first_point(outcome.work)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(timeout=300) == 128 + signal.SIGTERM
    assert outcome.metrics() == {"loss": [(1, "0.5")]}
    assert outcome.result["external"]["system"] == "mlflow"
    assert "model" not in outcome.result
