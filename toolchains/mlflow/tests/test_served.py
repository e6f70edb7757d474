"""legion-server serves models of other libraries: the predictions are those of the library's own code in Python."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import requests
from harness import interpreter
from test_scoring import SERVER, legion

FLAVORS = os.environ.get("LEGION_TEST_MLFLOW3_FLAVORS")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SERVER, reason="LEGION_SERVER is not set: cargo xtask test runs this"),
]
SAVE = Path(__file__).parent / "save_served.py"
TAKES_ARRAYS = "the model takes arrays: they give the same as its sample"
TAKES_FRAMES = "the model takes DataFrames"
# What the log says with --raw auto. `None`: nothing, because only models of four libraries are asked.
OF_THE_TOOLCHAIN = {"sklearn": TAKES_ARRAYS, "code-paths": None, "module": None}
OF_LIBRARIES = {
    "xgboost": TAKES_ARRAYS,
    "xgboost-booster": TAKES_ARRAYS,
    "lightgbm": TAKES_ARRAYS,
    "lightgbm-booster": TAKES_ARRAYS,
    "statsmodels": None,
}
LOGGED = {**OF_THE_TOOLCHAIN, **OF_LIBRARIES}
without_flavors = pytest.mark.skipif(
    not FLAVORS, reason="LEGION_TEST_MLFLOW3_FLAVORS is not set: toolchains/mlflow/test sets it for exhaustive tests"
)
MODELS = [*OF_THE_TOOLCHAIN, *(pytest.param(name, marks=without_flavors) for name in OF_LIBRARIES)]


def predictions(url: str, model: str, columns: list[str], rows: list[list[float]], is_series: bool) -> dict[str, Any]:
    """Returns the predictions by each form of a request."""
    split = {"dataframe_split": {"columns": columns, "data": rows}}
    records = {"dataframe_records": [dict(zip(columns, row)) for row in rows]}
    tensors = [
        {"name": name, "datatype": "FP64", "shape": [len(rows)], "data": [row[index] for row in rows]}
        for index, name in enumerate(columns)
    ]
    one = [{"name": "x", "datatype": "FP64", "shape": [len(rows), len(columns)], "data": rows}]
    found = {}
    for form, path, body in [
        ("split", "/invocations", split),
        ("records", "/invocations", records),
        ("tensors", f"/v2/models/{model}/infer", {"inputs": tensors}),
        ("one tensor", f"/v2/models/{model}/infer", {"inputs": one}),
    ]:
        answer = requests.post(url + path, json=body, timeout=60)
        assert answer.status_code == 200, (form, answer.text)
        content = answer.json()
        if "outputs" in content:
            [output] = content["outputs"]
            assert (output["name"], output["shape"]) == ("0" if is_series else "predict", [len(rows)])
            found[form] = output["data"]
        else:
            # As in MLflow, a Series is a table whose column has no name.
            values = content["predictions"]
            found[form] = [row["0"] for row in values] if is_series else values
    return found


@pytest.mark.parametrize("name", MODELS)
def test_predictions_are_those_of_the_library(name: str, tmp_path: Path) -> None:
    python = FLAVORS if name in OF_LIBRARIES else interpreter("3")
    directory = tmp_path / name
    command = [python, "-W", "ignore", str(SAVE), name, str(directory)]
    saved = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert saved.returncode == 0, saved.stderr
    wanted = json.loads(saved.stdout.splitlines()[-1])
    for raw in ("auto", "off"):
        log = tmp_path / f"{raw}.log"
        with legion(directory, python, log, "--raw", raw) as url:
            for rows, expected in (wanted["rows"][:1], wanted["one"]), (wanted["rows"], wanted["all"]):
                found = predictions(url, name, wanted["columns"], rows, wanted["series"])
                assert found == dict.fromkeys(found, expected), (raw, len(rows))
        text = re.sub(r"\x1b\[[0-9;]*m", "", log.read_text())
        logged = [line for line in (TAKES_ARRAYS, TAKES_FRAMES) if line in text]
        assert logged == ([LOGGED[name]] if raw == "auto" and LOGGED[name] else []), text
