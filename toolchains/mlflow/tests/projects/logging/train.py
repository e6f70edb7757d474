"""Every call of MLflow that logs a file or a fact, also in runs three levels deep. It logs no model."""

from pathlib import Path

import mlflow
import numpy
import pandas
from matplotlib.figure import Figure
from PIL import Image

table = pandas.DataFrame({"length": [1.0, 2.5, 4.0], "kind": ["a", "b", "a"]})
figure = Figure(figsize=(2, 2))
figure.subplots().plot(table["length"])
pixels = numpy.arange(48, dtype="uint8").reshape(4, 4, 3)

with mlflow.start_run(description="what can be logged"):
    mlflow.log_params({"text": "a=b, c", "number": 0.1, "list": [1, 2], "nothing": None, "a path/with.dots": True})
    mlflow.log_metrics({"first": 1.0, "group/second": 2.0}, step=3)
    mlflow.set_tags({"team": "café", "empty": ""})
    mlflow.log_table(table, "tables/lengths.json")
    # A second table of the same name is appended to the first.
    mlflow.log_table({"length": [5.0], "kind": ["c"]}, "tables/lengths.json")
    mlflow.log_figure(figure, "figures/line.png")
    mlflow.log_image(Image.fromarray(pixels), "images/one.png")
    for step in range(2):
        mlflow.log_image(pixels, key="seen", step=step)
    mlflow.log_dict({"classes": ["a", "b"]}, "classes.yaml")
    mlflow.log_text("<p>done</p>\n", "deep/er/page with space.html")
    Path("notes").mkdir()
    Path("notes/ünicode.txt").write_text("1\n")
    mlflow.log_artifact("notes")
    mlflow.log_artifact("train.py", artifact_path="code")
    mlflow.log_input(mlflow.data.from_pandas(table, source="notes", name="lengths"), context="training")
    mlflow.log_input(mlflow.data.from_numpy(pixels, name="pixels"), context="validation")
    with mlflow.start_run(run_name="outer", nested=True):
        mlflow.log_param("level", 1)
        mlflow.log_text("outer\n", "level.txt")
        with mlflow.start_run(run_name="inner", nested=True):
            mlflow.log_param("level", 2)
            mlflow.log_text("inner\n", "level.txt")
