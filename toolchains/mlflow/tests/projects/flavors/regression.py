"""A linear model of statsmodels with autologging: its figures are metrics, its summary is a file."""

import mlflow
import statsmodels.api
from sklearn.datasets import load_diabetes

features, target = load_diabetes(return_X_y=True, as_frame=True)
mlflow.statsmodels.autolog()
with mlflow.start_run():
    statsmodels.api.OLS(target, statsmodels.api.add_constant(features[["bmi", "bp"]])).fit()
