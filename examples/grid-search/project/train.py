"""Searches a grid of regularizations. MLflow logs everything automatically: a child run per candidate, and two models."""

import mlflow
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

features, classes = load_breast_cancer(return_X_y=True, as_frame=True)

mlflow.sklearn.autolog(max_tuning_runs=4, log_datasets=True)
with mlflow.start_run():
    mlflow.set_tag("dataset", "sklearn-breast-cancer")
    search = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        {"logisticregression__C": [0.01, 0.1, 1.0, 10.0]},
        cv=3,
    )
    search.fit(features, classes)
    print(f"best: {search.best_params_} with accuracy {search.best_score_:.4f}")
