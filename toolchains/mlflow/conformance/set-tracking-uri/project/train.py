import mlflow

mlflow.set_tracking_uri("sqlite:///elsewhere.db")
with mlflow.start_run():
    mlflow.log_metric("loss", 0.5)
