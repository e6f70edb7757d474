"""Saves a model of a library for test_served.py, and prints the predictions of the library's own code.

    save_served.py NAME DIRECTORY

Standard output ends with a JSON object: the columns, their rows, the predictions for one row and for all rows, and
whether the library returns them as a Series.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

ROWS = 50
MODULE = """
import numpy

WEIGHTS = None


def init():
    global WEIGHTS
    import os
    WEIGHTS = numpy.loadtxt(os.path.join(os.environ["MODEL_LOCATION"], "weights.txt"))


def predict(matrix, columns):
    assert list(columns) == ["a", "b", "c"], columns
    return numpy.tanh(matrix * WEIGHTS).sum(axis=1)
"""
DESCRIPTOR = """
format: gppi/v1
identity: {name: module, version: "1"}
loader: {type: module, path: model, entrypoint: scorer}
schema:
  inputs:
    - {type: double, name: a, required: true}
    - {type: double, name: b, required: true}
    - {type: double, name: c, required: true}
"""


def table() -> Any:
    import pandas as pd

    random = np.random.default_rng(0)
    return pd.DataFrame(random.normal(size=(ROWS, 3)), columns=["a", "b", "c"])


def module(directory: Path) -> list[Any]:
    (directory / "model").mkdir(parents=True)
    (directory / "model" / "scorer.py").write_text(MODULE)
    (directory / "model" / "weights.txt").write_text("0.5 -1.25 3.0")
    (directory / "legion.model.yaml").write_text(DESCRIPTOR)
    rows, weights = table().to_numpy(), np.array([0.5, -1.25, 3.0])
    return [np.tanh(matrix * weights).sum(axis=1) for matrix in (rows[:1], rows)]


def code_paths(directory: Path, x: Any, signature: Any) -> None:
    """Saves a model whose class is in a package of the project. The package is no longer there when it is loaded."""
    import mlflow

    project = directory.parent / "project"
    (project / "scorers").mkdir(parents=True)
    (project / "scorers" / "__init__.py").write_text("SCALE = 0.25\n")
    (project / "scorers" / "linear.py").write_text(
        "import mlflow\n\n\nclass Linear(mlflow.pyfunc.PythonModel):\n"
        "    def predict(self, context, model_input, params=None):\n"
        "        from scorers import SCALE\n\n"
        "        return model_input['a'] * SCALE - model_input['b'] * model_input['c']\n"
    )
    sys.path.insert(0, str(project))
    from scorers.linear import Linear

    code = [str(project / "scorers")]
    more = {"input_example": x.head(4), "signature": signature, "pip_requirements": []}
    mlflow.pyfunc.save_model(directory, python_model=Linear(), code_paths=code, **more)
    (project / "scorers").rename(project / "gone")
    sys.path.remove(str(project))
    for name in [name for name in sys.modules if name.startswith("scorers")]:
        del sys.modules[name]


def save(name: str, directory: Path) -> list[Any]:
    import mlflow
    from mlflow.models import infer_signature

    x = table()
    y = 2 * x["a"] - x["b"] * x["c"]
    signature = infer_signature(x, y.to_numpy())
    more = {"input_example": x.head(4), "signature": signature}
    if name == "sklearn":
        from sklearn.linear_model import LinearRegression

        mlflow.sklearn.save_model(LinearRegression().fit(x, y), directory, **more)
    elif name == "xgboost":
        import xgboost

        mlflow.xgboost.save_model(xgboost.XGBRegressor(n_estimators=20).fit(x, y), directory, **more)
    elif name == "xgboost-booster":
        import xgboost

        booster = xgboost.train({"max_depth": 3}, xgboost.DMatrix(x, label=y), num_boost_round=20)
        mlflow.xgboost.save_model(booster, directory, **more)
    elif name == "lightgbm":
        import lightgbm

        model = lightgbm.LGBMRegressor(n_estimators=20, min_child_samples=2, verbose=-1).fit(x, y)
        mlflow.lightgbm.save_model(model, directory, **more)
    elif name == "lightgbm-booster":
        import lightgbm

        data = lightgbm.Dataset(x, label=y)
        mlflow.lightgbm.save_model(lightgbm.train({"verbose": -1, "min_data_in_leaf": 2}, data, 20), directory, **more)
    elif name == "statsmodels":
        import statsmodels.api

        mlflow.statsmodels.save_model(statsmodels.api.OLS(y, x).fit(), directory, **more)
    else:
        code_paths(directory, x, signature)
    model = mlflow.pyfunc.load_model(str(directory))
    return [model.predict(rows) for rows in (x.head(1), x)]


if __name__ == "__main__":
    name, directory = sys.argv[1], Path(sys.argv[2])
    predictions = module(directory) if name == "module" else save(name, directory)
    one, every = [np.asarray(values).ravel().tolist() for values in predictions]
    given = table()
    found = {"columns": list(given), "rows": given.to_numpy().tolist(), "one": one, "all": every}
    print(json.dumps({**found, "series": hasattr(predictions[0], "to_frame")}))
