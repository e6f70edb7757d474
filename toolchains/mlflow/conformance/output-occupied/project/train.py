import os
from pathlib import Path

import mlflow


class Constant(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return [1] * len(model_input)


with mlflow.start_run():
    mlflow.pyfunc.log_model("model", python_model=Constant(), pip_requirements=["cloudpickle"])

own = Path(os.environ["LEGION_OUTPUT"]) / "model"
own.mkdir()
(own / "mine.txt").write_text("mine\n")
