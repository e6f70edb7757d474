"""A script without MLproject and without a model: a parameter, a series, and a directory of files."""

import sys
from pathlib import Path

import mlflow

mlflow.log_param("words", " ".join(sys.argv[1:]))
for step in range(3):
    mlflow.log_metric("foo", step / 4, step=step)
outputs = Path("outputs")
(outputs / "plots").mkdir(parents=True)
(outputs / "report.txt").write_text("hello world\n")
(outputs / "plots" / "empty.svg").write_text("")
mlflow.log_artifacts(str(outputs))
mlflow.log_dict({"a": [1, 2]}, "tables/one.json")
mlflow.set_tag("release", "1.0")
