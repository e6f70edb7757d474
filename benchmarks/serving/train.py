"""Trains the two models, and writes them with request bodies and the predictions that the servers must give.

It runs in the environment of the servers: `python train.py DIRECTORY MODEL...`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import joblib
import mlflow
import numpy as np
import sklearn
import xgboost
from mlflow.models import infer_signature
from sklearn.datasets import load_diabetes
from sklearn.linear_model import ElasticNet

ROWS = 1000


def train(directory: Path, name: str) -> None:
    data, target = load_diabetes(return_X_y=True, as_frame=True)
    (directory / "raw").mkdir(parents=True)
    if name == "sklearn":
        model: Any = ElasticNet(alpha=0.05, l1_ratio=0.5).fit(data, target)
        # KServe's runtimes load what the libraries themselves write.
        joblib.dump(model, directory / "raw" / "model.joblib")
        save, requirement = mlflow.sklearn.save_model, f"scikit-learn=={sklearn.__version__}"
    else:
        model = xgboost.XGBRegressor(n_estimators=100, max_depth=6, random_state=0).fit(data, target)
        # Requests to KServe have no names of columns.
        booster = model.get_booster().copy()
        booster.feature_names = None
        booster.save_model(directory / "raw" / "model.ubj")
        save, requirement = mlflow.xgboost.save_model, f"xgboost=={xgboost.__version__}"
    # Requirements are given. MLflow would load the model in another process to find them.
    signature = infer_signature(data, model.predict(data))
    # With a sample, legion-server can show that arrays give the same predictions.
    path = str(directory / "model")
    save(model, path, signature=signature, input_example=data.head(5), pip_requirements=[requirement])

    chosen = np.random.default_rng(0).integers(0, len(data), ROWS)
    rows = data.iloc[chosen].reset_index(drop=True)
    loaded = mlflow.pyfunc.load_model(str(directory / "model"))
    expected = np.asarray(loaded.predict(rows), dtype=float).tolist()
    (directory / "expected.json").write_text(json.dumps(expected))
    for count in (1, ROWS):
        part = rows.head(count)
        split = {"columns": list(part.columns), "data": part.to_numpy().tolist()}
        flat = part.to_numpy().ravel().tolist()
        tensor = {"name": "x", "datatype": "FP64", "shape": list(part.shape), "data": flat}
        bodies = {
            "split": {"dataframe_split": split},
            # BentoML takes the records as the argument of the method.
            "records": {"data": part.to_dict(orient="records")},
            "instances": {"instances": split["data"]},
            "tensor": {"inputs": [tensor]},
        }
        for kind, body in bodies.items():
            (directory / f"{kind}-{count}.json").write_text(json.dumps(body))
    # Right up to its last value, so all of it is decoded before it is refused.
    refused = {"columns": list(rows.columns), "data": rows.head(1).to_numpy().tolist()}
    refused["data"][0][-1] = "text"
    (directory / "refused.json").write_text(json.dumps({"dataframe_split": refused}))


if __name__ == "__main__":
    for model_name in sys.argv[2:]:
        train(Path(sys.argv[1]) / model_name, model_name)
