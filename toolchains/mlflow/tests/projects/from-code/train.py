"""Logs a model as code, with its configuration, signature, example, metadata and a file of the project."""

import argparse

import mlflow
import pandas
from mlflow.models import infer_signature

parser = argparse.ArgumentParser()
parser.add_argument("--words")
parser.add_argument("--table")
options = parser.parse_args()

table = pandas.read_csv(options.table)
with mlflow.start_run():
    mlflow.log_param("seen", options.words)
    mlflow.log_metric("rows", len(table))
    mlflow.pyfunc.log_model(
        "model",
        python_model="model.py",
        model_config="settings.yaml",
        artifacts={"table": options.table},
        signature=infer_signature(table, [True]),
        input_example=table,
        metadata={"owner": "tests"},
        pip_requirements=["pandas"],
    )
