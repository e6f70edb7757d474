"""A model in KServe's own server.

The package `kserve` has the server. KServe's runtimes for scikit-learn and XGBoost are in images only, so these classes
do what those runtimes do.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import kserve
import numpy as np
from kserve.utils.utils import get_predict_input, get_predict_response


class SklearnModel(kserve.Model):
    def __init__(self, name: str, path: Path) -> None:
        super().__init__(name)
        import joblib

        self.model = joblib.load(path)
        self.ready = True

    def predict(self, payload: Any, headers: dict[str, str] | None = None, **_: Any) -> Any:
        instances = get_predict_input(payload)
        return get_predict_response(payload, self.model.predict(instances), self.name)


class XGBoostModel(kserve.Model):
    def __init__(self, name: str, path: Path) -> None:
        super().__init__(name)
        import xgboost

        # One thread, as the runtime has it by default.
        self.booster = xgboost.Booster(params={"nthread": 1}, model_file=path)
        self.matrix = xgboost.DMatrix
        self.ready = True

    def predict(self, payload: Any, headers: dict[str, str] | None = None, **_: Any) -> Any:
        instances = np.asarray(get_predict_input(payload))
        result = self.booster.predict(self.matrix(instances, nthread=1))
        # JSON has no 32-bit floats.
        return get_predict_response(payload, result.astype(float), self.name)


if __name__ == "__main__":
    directory = Path(os.environ["RAW_DIR"])
    booster = directory / "model.ubj"
    found = XGBoostModel("m", booster) if booster.exists() else SklearnModel("m", directory / "model.joblib")
    server = kserve.ModelServer(http_port=int(os.environ["PORT"]), workers=1, enable_grpc=False)
    server.start([found])
