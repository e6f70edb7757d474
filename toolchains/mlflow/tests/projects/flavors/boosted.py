"""Boosted trees with autologging: a series per metric, importances as files, and a model. By either interface."""

import sys

import lightgbm
import mlflow
import xgboost
from sklearn.datasets import load_wine

library, interface = sys.argv[1:]
features, classes = load_wine(return_X_y=True, as_frame=True)
features.columns = [name.replace("/", "_") for name in features.columns]
mlflow.autolog(log_input_examples=True)
with mlflow.start_run():
    if (library, interface) == ("xgboost", "native"):
        data = xgboost.DMatrix(features, label=classes)
        settings = {"objective": "multi:softprob", "num_class": 3, "max_depth": 2, "nthread": 1}
        xgboost.train(settings, data, num_boost_round=4, evals=[(data, "train")])
    elif library == "xgboost":
        model = xgboost.XGBClassifier(n_estimators=4, max_depth=2, n_jobs=1)
        model.fit(features, classes, eval_set=[(features, classes)])
    elif interface == "native":
        data = lightgbm.Dataset(features, label=classes)
        settings = {"objective": "multiclass", "num_class": 3, "num_leaves": 4, "num_threads": 1, "deterministic": True}
        lightgbm.train(settings, data, num_boost_round=4, valid_sets=[data], valid_names=["train"])
    else:
        model = lightgbm.LGBMClassifier(n_estimators=4, num_leaves=4, n_jobs=1, deterministic=True)
        model.fit(features, classes, eval_set=[(features, classes)])
