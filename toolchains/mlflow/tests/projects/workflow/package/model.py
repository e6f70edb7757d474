"""Code that the model takes along."""

import mlflow


class Rows(mlflow.pyfunc.PythonModel):
    """Predicts the number of rows of the table that it was trained with."""

    def load_context(self, context):
        with open(context.artifacts["table"]) as table:
            self.rows = len(table.readlines()) - 1

    def predict(self, context, model_input, params=None):
        return [self.rows] * len(model_input)
