"""A model behind FastAPI, as one writes it by hand."""

import os

import mlflow.pyfunc
import pandas as pd
from fastapi import FastAPI
from pydantic import BaseModel


class Split(BaseModel):
    columns: list[str]
    data: list[list[float]]


class Body(BaseModel):
    dataframe_split: Split


app = FastAPI()
model = mlflow.pyfunc.load_model(os.environ["MODEL_DIR"])


# With `async` there is no thread for each request. It is faster for a model of a few milliseconds.
@app.post("/invocations")
async def invocations(body: Body) -> dict[str, list[float]]:
    split = body.dataframe_split
    frame = pd.DataFrame(split.data, columns=split.columns)
    return {"predictions": model.predict(frame).tolist()}
