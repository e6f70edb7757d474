"""Starts another entry point of the same project for each candidate, below its own run, and keeps the best value."""

import sys

import mlflow
from mlflow import MlflowClient

client = MlflowClient()
with mlflow.start_run() as main:
    values = []
    for number in range(int(sys.argv[1])):
        with mlflow.start_run(nested=True) as below:
            mlflow.projects.run(
                ".", "train", parameters={"alpha": str(number / 2)}, run_id=below.info.run_id, env_manager="local"
            )
        values.append(client.get_run(below.info.run_id).data.metrics["loss"])
        mlflow.log_metric("loss", values[-1], step=number)
    mlflow.log_metric("best", min(values))
