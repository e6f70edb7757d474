"""Predicts the progress of diabetes after a year: boosted trees, the error of every stage as a series."""

import argparse

import mlflow
import sklearn
from mlflow.models import infer_signature
from sklearn.datasets import load_diabetes
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.metrics import mean_absolute_error, root_mean_squared_error
from sklearn.model_selection import train_test_split

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--stages", type=int, default=60, help="number of trees")
parser.add_argument("--rate", type=float, default=0.1, help="learning rate")
options = parser.parse_args()

features, target = load_diabetes(return_X_y=True, as_frame=True)
x_train, x_test, y_train, y_test = train_test_split(features, target, test_size=0.25, random_state=3)

with mlflow.start_run():
    mlflow.log_params({"stages": options.stages, "rate": options.rate})
    mlflow.set_tags({"dataset": "sklearn-diabetes", "kind": "regression"})
    model = GradientBoostingRegressor(
        n_estimators=options.stages, learning_rate=options.rate, max_depth=2, random_state=3
    ).fit(x_train, y_train)
    for stage, predicted in enumerate(model.staged_predict(x_test)):
        mlflow.log_metric("rmse", root_mean_squared_error(y_test, predicted), step=stage)
    mlflow.log_metric("mae", mean_absolute_error(y_test, model.predict(x_test)))
    mlflow.sklearn.log_model(
        model,
        name="model",
        signature=infer_signature(x_train, model.predict(x_train)),
        input_example=x_test.head(3),
        # MLflow stores with skops. It loads trees only if they are named here: users of the model trust this training.
        skops_trusted_types=["sklearn.tree._tree.Tree"],
        pip_requirements=[f"scikit-learn=={sklearn.__version__}", f"mlflow=={mlflow.__version__}", "pandas", "skops"],
    )
