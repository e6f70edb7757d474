"""Links an MLflow run to its training, and closes the open runs of dead attempts."""

from __future__ import annotations

from typing import Any

from mlflow import MlflowClient
from mlflow.entities import RunTag

from legion_mlflow.inside.harvest import PARENT_TAG


def mark(client: MlflowClient, run_id: str, training: dict[str, Any]) -> None:
    """Names the run after its pod and sets the tags of its training, before the project's command starts."""
    source = training.get("source", {})
    tags = {
        "mlflow.runName": training.get("pod", ""),
        "legion.training": training.get("name", ""),
        "legion.namespace": training.get("namespace", ""),
        "legion.run": training.get("runId", ""),
        "legion.attempt": str(training.get("attempt", 1)),
        # MLflow itself would write the temporary directory of this attempt.
        "mlflow.source.name": _source_name(training, source),
        "mlflow.source.git.commit": source.get("commit", ""),
    }
    client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items() if value])


def _source_name(training: dict[str, Any], source: dict[str, Any]) -> str:
    uri = source.get("uri", "")
    if source.get("kind") == "Git" and training.get("workDir"):
        return f"{uri}#{training['workDir']}"
    return uri


def close_dead_attempts(client: MlflowClient, experiment: str, run_id: str, training: dict[str, Any]) -> None:
    """Ends runs of earlier attempts that a server still shows as running. Their pods no longer exist."""
    query = (
        f"tags.`legion.run` = '{training.get('runId', '')}' and tags.`legion.training` = '{training.get('name', '')}' "
        f"and tags.`legion.namespace` = '{training.get('namespace', '')}' and attributes.status = 'RUNNING'"
    )
    dead = [run for run in client.search_runs([experiment], query) if run.info.run_id != run_id]
    for run in dead:
        client.set_terminated(run.info.run_id, "KILLED")
        # The runs below have no tag of Legion: the project created them.
        below = f"tags.`{PARENT_TAG}` = '{run.info.run_id}' and attributes.status = 'RUNNING'"
        dead += client.search_runs([experiment], below)
