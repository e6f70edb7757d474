"""Clients of other projects call legion-server as they call their own servers, and get the model's predictions."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from harness import interpreter
from test_scoring import JSON, SERVER, VERSIONS, legion

CLIENTS = os.environ.get("LEGION_TEST_CLIENTS")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SERVER, reason="LEGION_SERVER is not set: cargo xtask test runs this"),
    pytest.mark.skipif(not CLIENTS, reason="LEGION_TEST_CLIENTS is not set: toolchains/mlflow/test sets it"),
]
CALLS = Path(__file__).parent / "call_clients.py"

# The sums of these rows are exact whatever the order of additions, so predictions do not depend on the library.
ROWS = [[0.5, 2.0], [-3.25, 0.0], [1e-3, 7.0], [1024.0, -0.125], [0.1, 0.2]]
# Saves the models, and prints their own predictions.
TRAIN = """
import json, sys
import mlflow, numpy as np, pandas as pd
from mlflow.models import infer_signature
from sklearn.linear_model import LinearRegression

out, rows = sys.argv[1], np.array(json.loads(sys.argv[2]))
random = np.random.default_rng(0)
x = pd.DataFrame(random.normal(size=(50, 2)), columns=["a", "b"])
y = 2 * x["a"] + x["b"] + 0.5
model = LinearRegression().fit(x, y)
signature = infer_signature(x, model.predict(x))
mlflow.sklearn.save_model(model, out + "/table", signature=signature, input_example=x.head(3))
bare = LinearRegression().fit(x.to_numpy(), y)
signature = infer_signature(x.to_numpy(), bare.predict(x.to_numpy()))
mlflow.sklearn.save_model(bare, out + "/tensor", signature=signature)
mlflow.sklearn.save_model(bare, out + "/bare")
found = {}
for name in ("table", "tensor", "bare"):
    data = pd.DataFrame(rows, columns=["a", "b"]) if name == "table" else rows
    found[name] = mlflow.pyfunc.load_model(out + "/" + name).predict(data).tolist()
print(json.dumps({"version": mlflow.__version__, "predictions": found}))
"""


@dataclass
class Served:
    """A model that a server has."""

    version: str
    mlflow: str
    url: str
    model: str
    predictions: list[float]

    @property
    def kind(self) -> str:
        return "table" if self.model == "table" else "tensor"

    def body(self) -> dict[str, Any]:
        """Returns a request of MLflow's scoring server."""
        if self.kind == "table":
            return {"dataframe_split": {"columns": ["a", "b"], "data": ROWS}}
        return {"inputs": ROWS}


@pytest.fixture(scope="module", params=VERSIONS)
def servers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Served]]:
    version = request.param
    python = interpreter(version)
    directory = tmp_path_factory.mktemp(f"models-{version}")
    command = [python, "-W", "ignore", "-c", TRAIN, str(directory), json.dumps(ROWS)]
    trained = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])
    with ExitStack() as stack:
        found = {}
        for model, predictions in trained["predictions"].items():
            url = stack.enter_context(legion(directory / model, python, directory / f"{model}.log"))
            found[model] = Served(version, trained["version"], url, model, predictions)
        yield found


@pytest.fixture(params=["table", "tensor", "bare"])
def served(request: pytest.FixtureRequest, servers: dict[str, Served]) -> Served:
    return servers[request.param]


def called(client: str, python: str, served: Served) -> dict[str, Any]:
    """Returns what a client got, by the way it called."""
    given = {"url": served.url, "model": served.model, "kind": served.kind, "rows": ROWS}
    command = [python, "-W", "ignore", str(CALLS), client]
    # The environment of a developer may send requests to a proxy.
    environment = {**os.environ, "NO_PROXY": "127.0.0.1"}
    text = json.dumps(given)
    done = subprocess.run(command, input=text, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def check_predictions(found: dict[str, Any], served: Served, calls: int) -> None:
    """Compares each list of numbers with the model's own predictions."""
    lists = {call: values for call, values in found.items() if isinstance(values, list)}
    assert len(lists) == calls, found
    wrong = {call: values for call, values in lists.items() if values != served.predictions}
    assert not wrong, f"expected {served.predictions}"


def test_the_client_of_mlflow(served: Served) -> None:
    found = called("mlflow", interpreter(served.version), served)
    assert found.pop("version") == served.mlflow
    check_predictions(found, served, 2)


def test_the_client_of_kserve(served: Served) -> None:
    found = called("kserve", CLIENTS, served)
    answers = {call: value for call, value in found.items() if not isinstance(value, list)}
    ready = ["v1 live", "v1 model ready", "v2 live", "v2 ready", "v2 model ready"]
    assert answers == dict.fromkeys(ready, True)
    check_predictions(found, served, 9)


def test_the_client_of_triton(served: Served) -> None:
    found = called("triton", CLIENTS, served)
    assert found.pop("extensions") == ["binary_tensor_data"]
    answers = {call: value for call, value in found.items() if isinstance(value, bool)}
    assert answers == {"live": True, "ready": True, "model ready": True, "other model ready": False}
    metadata = found.pop("metadata")
    assert (metadata["name"], metadata["platform"]) == (served.model, "mlflow-pyfunc")
    described = [(t["name"], t["datatype"], t["shape"]) for t in metadata["inputs"] + metadata["outputs"]]
    columns = [("a", "FP64", [-1]), ("b", "FP64", [-1]), ("predict", "FP64", [-1])]
    tensors = [("input", "FP64", [-1, 2]), ("predict", "FP64", [-1])]
    assert described == {"table": columns, "tensor": tensors, "bare": []}[served.model]
    assert found.pop("error") == ["400", 'outputs[0].name: "other" is no output, only ["predict"]']
    check_predictions(found, served, 18)


def test_requests(served: Served) -> None:
    with requests.Session() as session:
        answer = session.post(f"{served.url}/invocations", json=served.body(), timeout=60)
        assert answer.json() == {"predictions": served.predictions}
        assert answer.headers["Content-Type"] == "application/json"
        if served.kind == "table":
            table = "a,b\n" + "".join(f"{a},{b}\n" for a, b in ROWS)
            headers = {"Content-Type": "text/csv"}
            answer = session.post(f"{served.url}/invocations", data=table, headers=headers, timeout=60)
            assert answer.json() == {"predictions": served.predictions}
            answer = session.post(f"{served.url}/api/model/invoke", json={"columns": ["a", "b"], "data": ROWS})
            assert answer.json() == {"prediction": [[value] for value in served.predictions], "columns": ["predict"]}
        # A body whose length is not known before its end.
        parts = iter([json.dumps(served.body())[:10].encode(), json.dumps(served.body())[10:].encode()])
        answer = session.post(f"{served.url}/invocations", data=parts, headers={"Content-Type": JSON}, timeout=60)
        assert answer.json() == {"predictions": served.predictions}


def test_curl(served: Served, tmp_path: Path) -> None:
    body = tmp_path / "body.json"
    # With more than 1024 bytes, older versions of curl wait for "100 Continue".
    body.write_text(json.dumps(served.body()) + " " * 2000)
    for more in (
        ["-H", "Content-Type: application/json", "--data-binary", f"@{body}"],
        ["--json", f"@{body}"],
        ["-H", "Content-Type: application/json", "-H", "Expect: 100-continue", "-T", str(body), "-X", "POST"],
        ["-H", "Content-Type: application/json", "-H", "Transfer-Encoding: chunked", "--data-binary", f"@{body}"],
        ["-H", "Content-Type: application/json", "--http2-prior-knowledge", "--data-binary", f"@{body}"],
        ["-H", "Content-Type: application/json", "--http1.0", "--data-binary", f"@{body}"],
    ):
        command = ["curl", "--silent", "--show-error", "--fail-with-body", "--max-time", "60", "--noproxy", "*", *more]
        done = subprocess.run([*command, f"{served.url}/invocations"], capture_output=True, text=True)
        assert done.returncode == 0, (more, done.stdout, done.stderr)
        assert json.loads(done.stdout) == {"predictions": served.predictions}, more


def test_curl_without_a_media_type_is_refused_with_the_types_that_are_known(served: Served) -> None:
    command = ["curl", "--silent", "--max-time", "60", "--noproxy", "*", "-d", json.dumps(served.body())]
    done = subprocess.run([*command, f"{served.url}/invocations"], capture_output=True, text=True, check=True)
    message = json.loads(done.stdout)["message"]
    assert message.startswith('content-type: "application/x-www-form-urlencoded" is none of application/json')
