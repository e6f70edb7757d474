"""One candidate: it logs its parameter, its loss, and a model."""

import sys

import mlflow


class Constant(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return [1] * len(model_input)


alpha = float(sys.argv[1])
with mlflow.start_run():
    mlflow.log_metric("loss", (alpha - 0.5) ** 2)
    mlflow.log_text(f"alpha {alpha}\n", "notes/alpha.txt")
    mlflow.pyfunc.log_model("model", python_model=Constant(), pip_requirements=["cloudpickle"])
