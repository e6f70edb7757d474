"""SHAP values of a model as files. No model is logged."""

import mlflow
import numpy
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression

# The explanation draws samples.
numpy.random.seed(1)
features, target = load_diabetes(return_X_y=True, as_frame=True)
features = features.iloc[:20, :3]
model = LinearRegression().fit(features, target.iloc[:20])
with mlflow.start_run():
    mlflow.shap.log_explanation(model.predict, features)
