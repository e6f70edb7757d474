"""Classifies wines by their chemistry: one accuracy per fold, then a model of all the data."""

import argparse
import platform

import mlflow
import numpy
import sklearn
from mlflow.models import infer_signature
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def classifier(c: float):
    return make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=1000))


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--c", type=float, default=1.0, help="inverse of the regularisation's strength")
parser.add_argument("--folds", type=int, default=5, help="number of cross-validation folds")
options = parser.parse_args()

features, classes = load_wine(return_X_y=True, as_frame=True)

with mlflow.start_run():
    mlflow.set_tag("dataset", "sklearn-wine")
    folds = StratifiedKFold(n_splits=options.folds, shuffle=True, random_state=7)
    accuracies = []
    for step, (train, test) in enumerate(folds.split(features, classes)):
        model = classifier(options.c).fit(features.iloc[train], classes.iloc[train])
        accuracies.append(model.score(features.iloc[test], classes.iloc[test]))
        mlflow.log_metric("val_accuracy", accuracies[-1], step=step)
        print(f"fold {step}: accuracy {accuracies[-1]:.4f}")
    mlflow.log_metric("mean_val_accuracy", float(numpy.mean(accuracies)))

    model = classifier(options.c).fit(features, classes)
    mlflow.sklearn.log_model(
        model,
        name="model",
        signature=infer_signature(features, model.predict(features)),
        input_example=features.head(3),
        # Named here, MLflow need not find them out by loading the model in a second process.
        pip_requirements=[f"scikit-learn=={sklearn.__version__}", f"mlflow=={mlflow.__version__}", "pandas", "skops"],
    )
    print(f"trained with scikit-learn {sklearn.__version__} on Python {platform.python_version()}")
