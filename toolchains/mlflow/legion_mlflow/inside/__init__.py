"""What runs in the project's own interpreter, beside the MLflow that the project uses."""
