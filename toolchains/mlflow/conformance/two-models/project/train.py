import mlflow


class Constant(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return [1] * len(model_input)


with mlflow.start_run():
    for name in ("first", "second"):
        mlflow.pyfunc.log_model(name, python_model=Constant(), pip_requirements=["cloudpickle"])
