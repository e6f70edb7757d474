"""Measurements of the machine beside the code's own metric. It trains until the first of them is there."""

import time

import mlflow

mlflow.enable_system_metrics_logging()
# Long enough that the run ends before the second measurement, on a busy machine, too.
mlflow.set_system_metrics_sampling_interval(3)
mlflow.set_system_metrics_samples_before_logging(1)
with mlflow.start_run() as run:
    mlflow.log_metric("loss", 0.5)
    client = mlflow.MlflowClient()
    while "system/cpu_utilization_percentage" not in client.get_run(run.info.run_id).data.metrics:
        time.sleep(0.1)
