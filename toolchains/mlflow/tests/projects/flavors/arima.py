"""An ARIMA model of pmdarima, whose order is found by a search."""

import mlflow
import numpy
import pmdarima

series = 10 + numpy.sin(numpy.arange(60) / 5)
with mlflow.start_run():
    model = pmdarima.auto_arima(series, start_p=0, start_q=0, max_p=2, max_q=1, seasonal=False)
    mlflow.log_params(dict(zip("pdq", model.order)))
    mlflow.log_metric("aic", model.aic())
    mlflow.pmdarima.log_model(model, name="model", pip_requirements=["pmdarima"])
