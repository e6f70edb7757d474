"""The user's own tracking server, and the open runs of dead attempts on it."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from comparison import contents
from harness import document, free_port, interpreter, mlflow_command, run

PROJECT = """
import mlflow

class Constant(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return [1] * len(model_input)

with mlflow.start_run():
    mlflow.log_metric("loss", 0.5, step=1)
    with mlflow.start_run(nested=True):
        mlflow.log_metric("loss", 7.0)
    mlflow.log_text("report", "reports/one.txt")
    mlflow.pyfunc.log_model("model", python_model=Constant(), pip_requirements=["cloudpickle"])
"""
# Prints run name and status of every run, as lines.
LIST = """
import sys, mlflow
client = mlflow.MlflowClient(tracking_uri=sys.argv[1])
experiment = client.get_experiment_by_name("shared")
for run in client.search_runs([experiment.experiment_id]):
    print("RUN", run.info.run_name, run.info.status)
"""
# Leaves a run open, as an attempt with a killed pod does.
ABANDON = """
import sys, mlflow
client = mlflow.MlflowClient(tracking_uri=sys.argv[1])
tags = {"legion.training": "case", "legion.namespace": "default", "legion.run": "7f3a1c9e", "legion.attempt": "1"}
client.create_run(client.create_experiment("shared"), tags=tags, run_name="case-7f3a1c9e-1")
"""


@pytest.fixture
def server(tmp_path: Path):
    """Starts a real MLflow server on a free port."""
    port = free_port()
    directory = tmp_path / "server"
    directory.mkdir()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{directory}/db",
        "--artifacts-destination",
        str(directory / "artifacts"),
    ]
    env = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (directory / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=directory, env=env, stdout=log, stderr=log, start_new_session=True)
    uri = f"http://127.0.0.1:{port}"
    try:
        answers(uri, process, directory / "log")
        yield uri
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)


def answers(uri: str, process: subprocess.Popen, log: Path) -> None:
    """Waits until the server answers. If the server exits, it shows the reason."""
    deadline = time.monotonic() + 600
    while True:
        try:
            urllib.request.urlopen(f"{uri}/health", timeout=5).read()
            return
        except OSError:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)


def ask(code: str, uri: str) -> str:
    done = subprocess.run(
        [interpreter("3"), "-W", "ignore", "-c", code, uri], capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.slow
def test_the_users_server_gets_the_run_and_dead_attempts_are_closed(server: str, tmp_path: Path) -> None:
    ask(ABANDON, server)
    project = tmp_path / "project"
    project.mkdir()
    (project / "train.py").write_text(PROJECT)
    training = document(entrypoint="train.py", arguments={"experiment": "shared"}, attempt=2, pod="case-7f3a1c9e-2")
    got = run(mlflow_command("3"), tmp_path / "work", training, project, {"MLFLOW_TRACKING_URI": server})
    assert got.code == 0, got.log
    assert got.metrics() == {"loss": [(1, "0.5")]}
    external = got.result["external"]
    assert external["uri"].startswith(f"{server}/#/experiments/") and external["otherRuns"] == 1
    assert (external["experiment"], external["name"]) == ("shared", "case-7f3a1c9e-2")
    # Byte-identical to MLflow's own files.
    stored = [contents(path.parent) for path in (tmp_path / "server").rglob("MLmodel")]
    assert stored and contents(got.model / "model") in stored
    assert (got.work / "output" / "files" / "reports" / "one.txt").read_text() == "report"
    listed = ask(LIST, server)
    assert "RUN case-7f3a1c9e-1 KILLED" in listed and "RUN case-7f3a1c9e-2 FINISHED" in listed


@pytest.mark.slow
def test_an_unreachable_server_is_named(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "train.py").write_text(PROJECT)
    env = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    got = run(mlflow_command("3"), tmp_path / "work", document(entrypoint="train.py"), project, env)
    assert got.code == 2
    assert got.error["reason"] == "TrackingServerUnavailable" and "http://127.0.0.1:9" in got.error["message"]
    assert got.error["field"] == "spec.env"
