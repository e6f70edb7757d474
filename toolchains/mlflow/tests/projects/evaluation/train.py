"""Autologging of a classifier, and MLflow's own evaluation of it: metrics, curves and tables, and one of our own."""

import mlflow
import pandas
from matplotlib import pyplot
from mlflow.metrics import MetricValue
from mlflow.models import infer_signature, make_metric
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def missed(predictions, targets):
    """Returns the number of cases that were not found."""
    return MetricValue(aggregate_results={"count": float(((targets == 0) & (predictions == 1)).sum())})


def residues(predictions, builtin_metrics, artifacts_dir):
    """Returns a picture and a table."""
    figure, axes = pyplot.subplots(figsize=(2, 2))
    axes.hist(predictions["prediction"] - predictions["target"])
    figure.savefig(f"{artifacts_dir}/residues.png")
    pyplot.close(figure)
    return {"residues": f"{artifacts_dir}/residues.png", "counts": predictions["target"].value_counts().to_frame()}


features, classes = load_breast_cancer(return_X_y=True, as_frame=True)
features = features.iloc[:, :5]
x_train, x_test, y_train, y_test = train_test_split(features, classes, test_size=0.3, random_state=5)
mlflow.sklearn.autolog(log_models=False, log_datasets=False)
with mlflow.start_run():
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(x_train, y_train)
    mlflow.sklearn.autolog(disable=True)
    info = mlflow.sklearn.log_model(
        model,
        "model",
        signature=infer_signature(x_test, model.predict(x_test)),
        input_example=x_test.head(2),
        pip_requirements=["scikit-learn", "pandas"],
    )
    data: pandas.DataFrame = x_test.assign(malignant=y_test)
    mlflow.models.evaluate(
        info.model_uri,
        data,
        targets="malignant",
        model_type="classifier",
        evaluators="default",
        extra_metrics=[make_metric(eval_fn=missed, greater_is_better=False)],
        custom_artifacts=[residues],
        evaluator_config={"log_model_explainability": False},
    )
