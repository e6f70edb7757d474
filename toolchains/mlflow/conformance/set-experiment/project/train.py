import mlflow

mlflow.set_experiment("elsewhere")
with mlflow.start_run():
    mlflow.log_metric("loss", 0.5)
