"""Prints the runs and the model of a tracking store as JSON. Runs in the interpreter whose MLflow wrote the store."""

import json
import math
import sys
from pathlib import Path

from mlflow import MlflowClient


def value(number: float):
    return (
        number
        if math.isfinite(number)
        else ("NaN" if math.isnan(number) else ("Infinity" if number > 0 else "-Infinity"))
    )


client = MlflowClient(tracking_uri=sys.argv[1])
experiments = [e.experiment_id for e in client.search_experiments()]
runs = []
for run in client.search_runs(experiments):
    metrics = {
        name: sorted(
            {(m.step, m.timestamp, str(value(m.value))) for m in client.get_metric_history(run.info.run_id, name)}
        )
        for name in run.data.metrics
    }
    runs.append(
        {
            "parent": run.data.tags.get("mlflow.parentRunId"),
            "status": run.info.status,
            "params": run.data.params,
            "tags": {k: v for k, v in run.data.tags.items() if not k.startswith("mlflow.")},
            "metrics": {name: [[step, number] for step, _, number in points] for name, points in metrics.items()},
        }
    )
models = [str(p.parent) for p in Path(sys.argv[2]).rglob("MLmodel")]
print("DUMP" + json.dumps({"runs": runs, "models": models}))
