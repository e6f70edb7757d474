import argparse
import os
from pathlib import Path

import mlflow


class Constant(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return [1] * len(model_input)


parser = argparse.ArgumentParser()
parser.add_argument("--c", type=float)
parser.add_argument("--rounds", type=int)
parser.add_argument("--extra")
options = parser.parse_args()

with mlflow.start_run():
    mlflow.set_tag("kind", "constant")
    for step in range(options.rounds):
        mlflow.log_metric("loss", 1 / (step + 1), step=step)
    mlflow.log_metric("odd", 1.5, step=0)
    mlflow.log_metric("odd", float("nan"), step=1)
    with mlflow.start_run(nested=True, run_name="below"):
        mlflow.log_metric("loss", 7.0)
    mlflow.pyfunc.log_model("model", python_model=Constant(), pip_requirements=["cloudpickle"])

extra = Path(os.environ["LEGION_OUTPUT"]) / "extra"
extra.mkdir()
(extra / "note.txt").write_text("kept as it is\n")
