"""Two steps: each is an entry point with a run of its own, and the second takes a file of the first."""

import os

import mlflow
from mlflow import MlflowClient

with mlflow.start_run():
    loaded = mlflow.projects.run(".", "load", env_manager="local")
    # Not a parameter, because its value differs between two equal runs.
    os.environ["TABLE"] = MlflowClient().get_run(loaded.run_id).info.artifact_uri + "/table.csv"
    trained = mlflow.projects.run(".", "train", env_manager="local")
    mlflow.log_metric("rows", MlflowClient().get_run(trained.run_id).data.metrics["rows"])
