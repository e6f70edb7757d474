"""Prints the runs of an experiment and the models below a directory as JSON, with the MLflow that wrote them."""

import json
import math
import sys
from pathlib import Path

from mlflow import MlflowClient
from mlflow.utils.file_utils import local_file_uri_to_path


def text(number: float) -> str:
    if math.isfinite(number):
        return repr(number)
    return "NaN" if math.isnan(number) else ("Infinity" if number > 0 else "-Infinity")


def files(uri: str) -> list[str]:
    """Returns the paths of a run's own artifacts."""
    root = Path(local_file_uri_to_path(uri))
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


client = MlflowClient(tracking_uri=sys.argv[1])
experiment = client.get_experiment_by_name(sys.argv[2])
runs = []
for run in client.search_runs([experiment.experiment_id]):
    metrics = {}
    for name in run.data.metrics:
        points = {(m.step, m.timestamp, text(m.value)) for m in client.get_metric_history(run.info.run_id, name)}
        metrics[name] = [[step, value] for step, _, value in points]
    runs.append(
        {
            "parent": run.data.tags.get("mlflow.parentRunId"),
            "params": run.data.params,
            "tags": run.data.tags,
            "metrics": metrics,
            "files": files(run.info.artifact_uri),
        }
    )
models = [str(p.parent) for p in Path(sys.argv[3]).rglob("MLmodel")]
print("DUMP" + json.dumps({"runs": runs, "models": models}))
