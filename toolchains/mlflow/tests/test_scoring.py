"""legion-server beside `mlflow models serve`: the same answers, and the same class of errors."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator

import pytest
import requests
from harness import free_port, interpreter, sampled

SERVER = os.environ.get("LEGION_SERVER")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SERVER, reason="LEGION_SERVER is not set: cargo xtask test runs this"),
]
# One version of MLflow in a sample, both otherwise.
VERSIONS = sampled(["2", "3"], lambda _: "either")

TRAIN = """
import sys
import mlflow, numpy as np, pandas as pd
from mlflow.models import infer_signature
from sklearn.linear_model import LinearRegression

out = sys.argv[1]
random = np.random.default_rng(0)
x = pd.DataFrame({"a": random.normal(size=50), "b": random.integers(0, 9, 50), "c": random.normal(size=50) > 0})
model = LinearRegression().fit(x, 2 * x["a"] + x["b"])
mlflow.sklearn.save_model(model, out + "/table", signature=infer_signature(x, model.predict(x)))
bare = LinearRegression().fit(x.to_numpy(dtype=float), x["a"])
mlflow.sklearn.save_model(bare, out + "/bare")
mlflow.sklearn.save_model(bare, out + "/tensor", signature=infer_signature(x.to_numpy(dtype=float), bare.predict(x.to_numpy(dtype=float))))


class Words(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        if (model_input["n"] < 0).any():
            raise ValueError("n is negative")
        times = (params or {}).get("times", 1)
        texts = model_input["text"].fillna("?") * times
        return pd.DataFrame({"text": texts, "n": model_input["n"] / 3, "nan": float("nan")})


example = pd.DataFrame({"text": ["x"], "n": np.array([1.5])})
signature = infer_signature(example, Words().predict(None, example), {"times": 1})
mlflow.pyfunc.save_model(out + "/words", python_model=Words(), signature=signature, pip_requirements=[])
"""

JSON = "application/json"


def split(*rows: list[Any], columns: list[str] = ["a", "b", "c"]) -> dict[str, Any]:
    return {"dataframe_split": {"columns": columns, "data": list(rows)}}


# Model, media type, body. A body that is no text is JSON.
REQUESTS: list[tuple[str, str, Any]] = [
    ("table", JSON, split([0.1, 2, True])),
    ("table", JSON, split([0.1, 2, True], [-3, 0, False], [1e-7, 7, True])),
    ("table", JSON, split([True, 0.1, 2], columns=["c", "a", "b"])),
    ("table", JSON, split([0.1, 2, True, "x"], columns=["a", "b", "c", "extra"])),
    ("table", JSON, split([1, 2, 1], [0.5, 3, 0])),
    ("table", JSON, split([0.1, 2.9, True])),
    ("table", JSON, split(["0.1", "2", True])),
    ("table", JSON, split([" 1_0.5 ", 2, True])),
    ("table", JSON, split([0.1, 2, "true"])),
    ("table", JSON, split(["abc", 2, True])),
    ("table", JSON, split([None, 2, True])),
    ("table", JSON, split([0.1, None, True])),
    ("table", JSON, split([0.1, 2, None])),
    ("table", JSON, split([[0.1], 2, True])),
    ("table", JSON, split([0.1, 2])),
    ("table", JSON, split([0.1, 2, True, 4])),
    ("table", JSON, split([0.1, 2, True], [0.1])),
    ("table", JSON, split([0.1, 2], columns=["a", "b"])),
    ("table", JSON, split()),
    ("table", JSON, split([0.1, 2, True], columns=["a", "a", "c"])),
    ("table", JSON, split([1e300, 2, True])),
    ("table", JSON, split([0.1, 1e300, True])),
    ("table", JSON, split([0.1, 2**63, True])),
    ("table", JSON, {"dataframe_split": {"columns": ["a", "b", "c"], "data": [[0.1, 2, True]], "index": [9]}}),
    ("table", JSON, {"dataframe_split": {"columns": ["a", "b", "c"], "data": [[0.1, 2, True]], "index": [0]}}),
    ("table", JSON, {"dataframe_split": {"data": [[0.1, 2, True]]}}),
    ("table", JSON, {"dataframe_split": {"columns": ["a", "b", "c"]}}),
    ("table", JSON, {"dataframe_split": [1]}),
    ("table", JSON, {"dataframe_records": [{"a": 0.1, "b": 2, "c": True}]}),
    ("table", JSON, {"dataframe_records": [{"c": True, "b": 2, "a": 1}, {"a": 2, "b": 3, "c": False, "d": {}}]}),
    ("table", JSON, {"dataframe_records": [{"a": 0.1, "b": 2, "c": True}, {"a": 0.1, "b": 2}]}),
    ("table", JSON, {"dataframe_records": [{"a": 0.1, "b": 2, "c": True}, {"b": 2, "c": True}]}),
    ("table", JSON, {"dataframe_records": [{"a": 0.1, "c": True}]}),
    ("table", JSON, {"dataframe_records": {"a": 0.1}}),
    ("table", JSON, {"dataframe_records": [1]}),
    ("table", JSON, {"inputs": {"a": [0.1, 2], "b": [2, 3], "c": [True, False]}}),
    ("table", JSON, {"inputs": [{"a": 0.1, "b": 2, "c": True}]}),
    ("table", JSON, {"instances": [{"a": 0.1, "b": 2, "c": True}]}),
    ("table", JSON, {"instances": [[0.1, 2, True]]}),
    ("table", JSON, {**split([0.1, 2, True]), "inputs": [1]}),
    ("table", JSON, {**split([0.1, 2, True]), "params": {"unknown": 1}}),
    ("table", JSON, {"columns": ["a"], "data": [[1]]}),
    ("table", JSON, {}),
    ("table", JSON, [1]),
    ("table", JSON, '{"dataframe_split": '),
    ("table", JSON, '{"dataframe_records": [{"a": NaN, "b": 2, "c": true}]}'),
    ("table", JSON, '{"dataframe_records": [{"a": Infinity, "b": 2, "c": true}]}'),
    ("table", JSON, ""),
    ("table", "text/csv", "a,b,c\n0.1,2,True\n1,3,False\n"),
    ("table", "text/csv", "a,b\n0.1,2\n"),
    ("table", "text/csv", "a,b,c\nx,2,True\n"),
    ("table", "text/plain", "0.1"),
    ("table", "application/json; charset=utf-8", split([0.1, 2, True])),
    ("table", "application/json; charset=latin-1", split([0.1, 2, True])),
    ("table", "application/json; version=2", split([0.1, 2, True])),
    ("bare", JSON, {"dataframe_split": {"data": [[0.1, 2, 1]]}}),
    ("bare", JSON, {"inputs": [[0.1, 2, 1], [1, 2, 0]]}),
    ("bare", JSON, {"instances": [[0.1, 2, 1]]}),
    ("bare", JSON, {"inputs": "x"}),
    ("tensor", JSON, {"inputs": [[0.1, 2, 1]]}),
    ("tensor", JSON, {"instances": [[0.1, 2, 1], [0, 0, 0]]}),
    ("tensor", JSON, {"inputs": [[0.1, 2]]}),
    ("tensor", JSON, {"inputs": [["x", 2, 1]]}),
    ("tensor", JSON, {"inputs": [["0.5", 2, 1]]}),
    ("tensor", JSON, {"inputs": [[0.1, None, True]]}),
    ("tensor", JSON, {"inputs": [[0.1, 2, 1], [0.1]]}),
    ("tensor", JSON, {"inputs": [0.1, 2, 1]}),
    ("tensor", JSON, {"inputs": []}),
    ("tensor", JSON, {"inputs": {"a": [[0.1, 2, 1]]}}),
    ("tensor", JSON, {"inputs": [[0.1, 2, 1]], "params": {"unknown": 1}}),
    ("tensor", JSON, {"dataframe_split": {"data": [[0.1, 2, 1]]}}),
    ("words", JSON, {"dataframe_records": [{"text": "a", "n": 1}, {"text": "ä\u0000\"", "n": 2.5}]}),
    ("words", JSON, {"dataframe_records": [{"text": "a", "n": 1}, {"text": None, "n": 2.5}]}),
    ("words", JSON, {"dataframe_records": [{"text": None, "n": 1}]}),
    ("words", JSON, {"dataframe_records": [{"text": 5, "n": 1}]}),
    ("words", JSON, {"dataframe_records": [{"text": "a", "n": 1}], "params": {"times": 2}}),
    ("words", JSON, {"dataframe_records": [{"text": "a", "n": 1}], "params": {"times": "x"}}),
    ("words", JSON, {"dataframe_records": [{"text": "a", "n": -1}]}),
]


@contextmanager
def running(command: list[str], port: int, log: Path) -> Iterator[str]:
    """Runs a server until it answers /ping, and ends it with SIGTERM."""
    # `mlflow models serve` looks for uvicorn there.
    path = os.pathsep.join([str(Path(command[0]).parent), os.environ["PATH"]])
    with log.open("wb") as output:
        environment = {**os.environ, "PATH": path}
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 120
        while not answers(url):
            assert process.poll() is None and time.monotonic() < until, log.read_text()
            time.sleep(0.05)
        yield url
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)


def answers(url: str) -> bool:
    try:
        return requests.get(f"{url}/ping", timeout=5).status_code == 200
    except requests.ConnectionError:
        return False


def legion(model: Path, python: str, log: Path, *more: str) -> Any:
    port = free_port()
    command = [SERVER, "serve", "--model-dir", str(model), "--bind", f"127.0.0.1:{port}", "--python", python, *more]
    return running(command, port, log)


def mlflow(model: Path, python: str, log: Path) -> Any:
    port = free_port()
    command = [python, "-m", "mlflow", "models", "serve", "--model-uri", str(model), "--env-manager", "local"]
    return running([*command, "--port", str(port)], port, log)


@pytest.fixture(scope="module", params=VERSIONS)
def models(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    python = interpreter(request.param)
    directory = tmp_path_factory.mktemp(f"models-{request.param}")
    subprocess.run([python, "-c", TRAIN, str(directory)], check=True, capture_output=True)
    return python, directory


def close(left: Any, right: Any) -> bool:
    """Whether two answers are equal. Python's JSON says NaN, ours says null."""
    if isinstance(left, float) or isinstance(right, float):
        if left is None or right is None:
            return math.isnan(left if right is None else right)
        return left == right
    if isinstance(left, list):
        return isinstance(right, list) and len(left) == len(right) and all(map(close, left, right))
    if isinstance(left, dict):
        return isinstance(right, dict) and left.keys() == right.keys() and all(close(left[k], right[k]) for k in left)
    return left == right


@pytest.mark.parametrize("name", ["table", "bare", "tensor", "words"])
def test_answers_and_errors_are_those_of_mlflow(models: tuple[str, Path], name: str, tmp_path: Path) -> None:
    python, directory = models
    model, faults = directory / name, []
    with mlflow(model, python, tmp_path / "mlflow.log") as theirs, legion(model, python, tmp_path / "legion.log") as ours:
        for _, kind, body in [request for request in REQUESTS if request[0] == name]:
            text = body if isinstance(body, str) else json.dumps(body)
            send = {"data": text.encode(), "headers": {"Content-Type": kind}, "timeout": 60}
            wanted, got = requests.post(f"{theirs}/invocations", **send), requests.post(f"{ours}/invocations", **send)
            assert re.fullmatch(r"[0-9a-f-]{36}", got.headers["Legion-Prediction-Id"])
            same = wanted.status_code == got.status_code
            if same and wanted.status_code == 200:
                same = close(wanted.json(), got.json())
            elif same:
                message = got.json()
                same = bool(message["error_code"] and message["message"]) and "Traceback" not in got.text
            if not same:
                faults.append(f"{kind} {text}\n  MLflow {wanted.status_code} {wanted.text[:300]}\n  ours   {got.status_code} {got.text[:300]}")
    assert not faults, "\n".join(faults)


def test_the_inference_protocol_gives_the_same_predictions(models: tuple[str, Path], tmp_path: Path) -> None:
    python, directory = models
    with legion(directory / "table", python, tmp_path / "log") as url:
        assert requests.get(f"{url}/v2/health/live").json() == {"live": True}
        assert requests.get(f"{url}/v2/health/ready").json() == {"ready": True}
        described = requests.get(f"{url}/v2/models/table").json()
        assert [(t["name"], t["datatype"]) for t in described["inputs"]] == [("a", "FP64"), ("b", "INT64"), ("c", "BOOL")]
        wanted = requests.post(f"{url}/invocations", json=split([0.1, 2, True], [1, 3, False])).json()["predictions"]

        def tensor(name: str, datatype: str, data: list[Any], shape: list[int] = [2]) -> dict[str, Any]:
            return {"name": name, "datatype": datatype, "shape": shape, "data": data}

        rest = [tensor("b", "INT64", [2, 3]), tensor("c", "BOOL", [True, False])]
        infer = lambda *inputs: requests.post(f"{url}/v2/models/table/infer", json={"id": "7", "inputs": list(inputs)})
        for data, shape in ([0.1, 1], [2]), ([[0.1], [1]], [2, 1]):
            answer = infer(tensor("a", "FP64", data, shape), *rest)
            assert answer.json()["id"] == "7"
            assert answer.json()["outputs"] == [{"name": "predict", "datatype": "FP64", "shape": [2], "data": wanted}]
        for wrong, message in [
            ([tensor("a", "FP64", [0.1, "x"]), *rest], "inputs[0].data[1]: column \"a\" is of type double"),
            ([tensor("a", "FP64", [0.1]), *rest], "inputs[0].data: it has 1 values"),
            ([tensor("a", "FP64", [0.1, 1], [1, 2]), *rest], "inputs[0].shape: the model takes columns"),
            ([tensor("a", "F64", [0.1, 1]), *rest], "inputs[0].datatype: \"F64\" is none of"),
            (rest, "inputs: the model's input \"a\" is missing"),
            ([], "inputs: there is no tensor"),
        ]:
            answer = infer(*wrong)
            assert answer.status_code == 400 and answer.json()["error"].startswith(message), answer.text
        assert requests.post(f"{url}/v2/models/other/infer", json={}).status_code == 404
    with legion(directory / "words", python, tmp_path / "words") as url:
        text = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["x"]}
        number = {"name": "n", "datatype": "FP64", "shape": [1], "data": [3]}
        outputs = requests.post(f"{url}/v2/models/words/infer", json={"inputs": [text, number]}).json()["outputs"]
        found = [(output["name"], output["datatype"], output["data"]) for output in outputs]
        assert found == [("text", "BYTES", ["x"]), ("n", "FP64", [1.0]), ("nan", "FP64", [None])]


def test_requests_share_calls_and_a_dead_worker_harms_only_its_own(models: tuple[str, Path], tmp_path: Path) -> None:
    python, directory = models
    with legion(directory / "table", python, tmp_path / "log") as url, ThreadPoolExecutor(32) as threads:
        session = requests.Session()
        one = lambda i: requests.post(f"{url}/invocations", json=split([i, 2, True]), timeout=60)
        wanted = {i: session.post(f"{url}/invocations", json=split([i, 2, True])).json()["predictions"][0] for i in range(64)}
        for i, answer in enumerate(threads.map(one, range(64))):
            assert math.isclose(answer.json()["predictions"][0], wanted[i], rel_tol=1e-12)
        metrics = requests.get(f"{url}/metrics").text
        calls = int(re.search(r"legion_server_calls_total (\d+)", metrics)[1])
        assert calls < 128, "some of the second 64 requests shared a call"

        worker = subprocess.run(["pgrep", "-f", str(directory / "table")], capture_output=True, text=True, check=True)
        pids = [int(pid) for pid in worker.stdout.split() if b"-I" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        answers = [threads.submit(one, i) for i in range(64)]
        os.kill(pids[0], signal.SIGKILL)
        codes = {answer.result().status_code for answer in answers}
        assert codes <= {200, 503}, codes
        assert one(1).json()["predictions"][0] == wanted[1], "another worker serves"
        assert "legion_server_worker_restarts_total 1" in requests.get(f"{url}/metrics").text


def test_a_body_that_is_too_long_has_an_answer_that_the_client_reads(models: tuple[str, Path], tmp_path: Path) -> None:
    python, directory = models
    with legion(directory / "table", python, tmp_path / "log", "--max-body", "1000000") as url:
        answer = requests.post(f"{url}/invocations", data=b" " * 50_000_000, headers={"Content-Type": JSON})
        assert answer.status_code == 413 and "1000000" in answer.json()["message"]
