"""The second step: a model with code of the project and a file of its own."""

import os
from pathlib import Path

import mlflow
from mlflow.artifacts import download_artifacts
from package.model import Rows

table = Path(download_artifacts(os.environ["TABLE"]))
with mlflow.start_run():
    rows = len(table.read_text().splitlines()) - 1
    mlflow.log_metric("rows", rows)
    mlflow.pyfunc.log_model(
        "model",
        python_model=Rows(),
        artifacts={"table": str(table)},
        code_paths=["package"],
        pip_requirements=["cloudpickle"],
    )
