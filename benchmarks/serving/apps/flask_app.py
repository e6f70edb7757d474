"""A model behind Flask, as one writes it by hand. gunicorn runs it."""

import os

import mlflow.pyfunc
import pandas as pd
from flask import Flask, Response, jsonify, request

app = Flask(__name__)
model = mlflow.pyfunc.load_model(os.environ["MODEL_DIR"])


@app.post("/invocations")
def invocations() -> Response:
    split = request.get_json()["dataframe_split"]
    frame = pd.DataFrame(split["data"], columns=split["columns"])
    return jsonify(predictions=model.predict(frame).tolist())
