import mlflow


class Constant(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return [1] * len(model_input)


mlflow.start_run()
try:
    mlflow.pyfunc.log_model(
        "model", python_model=Constant(), pip_requirements=["cloudpickle"], registered_model_name="prices"
    )
    raise RuntimeError("the second phase has no data")
except RuntimeError as problem:
    print("failed:", problem)
    mlflow.end_run("FAILED")
