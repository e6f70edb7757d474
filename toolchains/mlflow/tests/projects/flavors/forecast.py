"""A forecast of a time series."""

import mlflow
import numpy
import pandas
from prophet import Prophet

days = pandas.date_range("2024-01-01", periods=60)
history = pandas.DataFrame({"ds": days, "y": numpy.sin(numpy.arange(60) / 7)})
with mlflow.start_run():
    model = Prophet(yearly_seasonality=False, daily_seasonality=False, n_changepoints=2).fit(history, seed=1)
    mlflow.log_metric("days", len(history))
    mlflow.prophet.log_model(model, "model", pip_requirements=["prophet"])
