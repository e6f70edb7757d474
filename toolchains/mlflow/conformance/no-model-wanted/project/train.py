import mlflow

mlflow.log_text("a report\n", "reports/one.txt")
