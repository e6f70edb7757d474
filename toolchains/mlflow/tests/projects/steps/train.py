import argparse

import mlflow


class Constant(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return [1] * len(model_input)


parser = argparse.ArgumentParser()
parser.add_argument("--c", type=float)
parser.add_argument("--rounds", type=int)
parser.add_argument("--more")
options = parser.parse_args()

with mlflow.start_run():
    mlflow.log_param("seen", options.more)
    mlflow.set_tags({"kind": "constant", "note": 'naïve "quoted"\nsecond line'})
    for step in range(options.rounds):
        mlflow.log_metric("loss", 0.1 + 0.2 * step, step=step)
        mlflow.log_metric("system/like", step, step=-step)
    mlflow.log_metric("loss", 9.0, step=1)
    mlflow.log_metric("odd", float("nan"), step=2)
    mlflow.log_metric("odd", 3.0, step=9007199254740993)
    mlflow.log_metric("large", float("inf"))
    for number in range(2):
        with mlflow.start_run(nested=True):
            mlflow.log_metric("loss", number, step=number)
    mlflow.log_text("report\n", "reports/one.txt")
    mlflow.pyfunc.log_model("model", python_model=Constant(), pip_requirements=["cloudpickle"])
