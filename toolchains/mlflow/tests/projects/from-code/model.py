"""A model that is logged as code: MLflow stores this file, not an object."""

import mlflow
from mlflow.models import ModelConfig
from mlflow.pyfunc import PythonModel


class Threshold(PythonModel):
    """Tells which values are above the configured one."""

    def __init__(self):
        self.limit = ModelConfig(development_config="settings.yaml").get("limit")

    def predict(self, context, model_input, params=None):
        return [bool(value > self.limit) for value in model_input["value"]]


mlflow.models.set_model(Threshold())
