"""The code for the project's own interpreter, beside the project's own MLflow."""
