"""A model in a service of BentoML."""

import os

import bentoml
import mlflow.pyfunc
import numpy as np
import pandas as pd


@bentoml.service(workers=1)
class Model:
    def __init__(self) -> None:
        self.model = mlflow.pyfunc.load_model(os.environ["MODEL_DIR"])

    @bentoml.api
    def predict(self, data: pd.DataFrame) -> np.ndarray:
        return np.asarray(self.model.predict(data))
