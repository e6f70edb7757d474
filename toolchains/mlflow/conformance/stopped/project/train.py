import signal

import mlflow

with mlflow.start_run():
    mlflow.log_param("a", 1)
    mlflow.log_metric("loss", 0.5, step=1)
    mlflow.log_metric("loss", 0.25, step=2)
    mlflow.set_tag("waiting", "yes")
    # Forever: only the signal ends it.
    signal.pause()
