"""The first step: it logs a table."""

import mlflow

with mlflow.start_run():
    mlflow.log_text("a,b\n1,2\n3,4\n", "table.csv")
