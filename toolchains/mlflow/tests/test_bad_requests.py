"""legion-server and wrong requests: each has an answer that names the field, and the server goes on.

`docs/reference/legion-server.md` has the observed answers. `UPDATE=1` writes them.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from bad_requests import MAX_BODY, PROTOCOLS, Case, Protocol, cases, infer, tensor
from harness import REPOSITORY, interpreter
from test_scoring import SERVER, legion

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SERVER, reason="LEGION_SERVER is not set: cargo xtask test runs this"),
]
PAGE = REPOSITORY / "docs" / "reference" / "legion-server.md"
# Longest message in the table, in characters.
CELL = 240

TRAIN = """
import sys
from pathlib import Path
import mlflow, numpy as np, pandas as pd
from mlflow.models import infer_signature
from sklearn.linear_model import LinearRegression
from sklearn.tree import DecisionTreeRegressor

out = Path(sys.argv[1])
random = np.random.default_rng(0)
x = pd.DataFrame({"a": random.normal(size=50), "b": random.integers(0, 9, 50)})
y = 2 * x["a"] + x["b"]
# The tree predicts for missing values, too. The linear model raises an exception.
for name, model in ("wine", DecisionTreeRegressor(random_state=0)), ("linear", LinearRegression()):
    signature = infer_signature(x, model.fit(x, y).predict(x))
    # Without a list of trusted types, the default format takes no trees.
    mlflow.sklearn.save_model(model, out / name / "model", signature=signature, serialization_format="cloudpickle")
    loader = "{type: mlflow-pyfunc, path: model}"
    descriptor = f"format: gppi/v1\\nidentity: {{name: {name}, version: '3'}}\\nloader: {loader}\\n"
    (out / name / "legion.model.yaml").write_text(descriptor)
array = x.to_numpy(dtype=float)
mlflow.sklearn.save_model(LinearRegression().fit(array, y), out / "bare")
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models")
    subprocess.run([interpreter("3"), "-c", TRAIN, str(directory)], check=True, capture_output=True)
    return directory


@pytest.fixture(scope="module")
def wine(models: Path) -> Iterator[str]:
    with legion(models / "wine", interpreter("3"), models / "log", "--max-body", str(MAX_BODY)) as url:
        yield url


def send(url: str, of: Protocol, case: Case) -> requests.Response:
    headers = {"Content-Type": of.media, **case.headers}
    return requests.request(case.method, url + (case.path or of.path), data=case.body, headers=headers, timeout=60)


def faults(of: Protocol, case: Case, answer: requests.Response) -> list[str]:
    """Returns what is wrong with an answer."""
    found = []
    if answer.status_code != case.status:
        found.append(f"the status is not {case.status}")
    if not re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f-]{21}", answer.headers.get("Legion-Prediction-Id", "")):
        found.append("it has no prediction id")
    if answer.headers.get("Content-Type") != "application/json":
        found.append("it is not JSON")
    elif answer.status_code >= 400 and set(answer.json()) != of.keys:
        found.append(f"it has not the keys {of.keys}")
    elif answer.status_code >= 400 and not message(answer).startswith(case.message):
        found.append(f"the message does not begin with {case.message!r}")
    if answer.status_code == 405 and not answer.headers.get("Allow"):
        found.append("it does not say which methods are allowed")
    if "Traceback" in answer.text:
        found.append("it shows a traceback")
    return [f"{case.section}, {case.title}: {fault}: {answer.status_code} {answer.text[:500]}" for fault in found]


def message(answer: requests.Response) -> str:
    """Returns the message of an error, empty for a prediction."""
    body = answer.json()
    return body.get("message") or body.get("error") or ""


def section(of: Protocol, rows: list[tuple[Case, requests.Response]]) -> str:
    """Returns the table of a protocol."""
    lines = [f"### {of.section}", "", "| request | status | message |", "|---|---|---|"]
    for case, answer in rows:
        # MLflow writes a set, whose order differs between its processes.
        text = re.sub(r"(?<=\{)'\w+'(, '\w+')+(?=\})", lambda m: ", ".join(sorted(m[0].split(", "))), message(answer))
        text = " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
        text = text if len(text) <= CELL else text[:CELL] + "…"
        lines.append(f"| {case.title} | {answer.status_code} | {text} |")
    return "\n".join([*lines, ""])


def differences(of: Protocol, rows: list[tuple[Case, requests.Response]]) -> list[str]:
    """Compares the table of a protocol with the page, or writes it with `UPDATE=1`."""
    begin, end = f"<!-- begin {of.section} -->\n", f"<!-- end {of.section} -->"
    text = PAGE.read_text()
    before, rest = text.split(begin)
    committed, after = rest.split(end)
    seen = section(of, rows)
    if os.environ.get("UPDATE") == "1":
        PAGE.write_text(f"{before}{begin}{seen}{end}{after}")
        return []
    lines = set(committed.splitlines()) ^ set(seen.splitlines())
    return [f"{PAGE.name} is not what was seen; `UPDATE=1` rewrites it: {line}" for line in sorted(lines)]


@pytest.mark.parametrize("of", PROTOCOLS, ids=lambda of: of.section.strip("`"))
def test_a_bad_request_has_an_answer_that_names_the_field(wine: str, of: Protocol) -> None:
    rows, found = [], []
    for case in cases(of):
        answer = send(wine, of, case)
        rows.append((case, answer))
        found += faults(of, case, answer)
        again = requests.post(wine + of.path, data=of.correct, headers={"Content-Type": of.media}, timeout=60)
        if again.status_code != 200:
            found.append(f"{case.section}, {case.title}: after it, the server answers {again.status_code} {again.text}")
    found += differences(of, rows)
    assert not found, "\n".join(found)
    metrics = requests.get(f"{wine}/metrics", timeout=60).text
    assert "legion_server_worker_restarts_total 0" in metrics


def test_a_value_that_the_model_does_not_take_is_an_exception_of_the_model(models: Path) -> None:
    """The server does not know what a model takes. `/invocations` blames the request, as MLflow does."""
    records = {"a": None, "b": 2}
    body = {
        "/invocations": {"dataframe_records": [records]},
        "/v1/models/linear:predict": {"instances": [records]},
        "/v2/models/linear/infer": infer(tensor("a", [None]), tensor("b", [2], "INT64")),
        "/api/model/invoke": {"columns": ["a", "b"], "data": [[None, 2]]},
    }
    with legion(models / "linear", interpreter("3"), models / "linear.log") as url:
        for path, given in body.items():
            answer = requests.post(url + path, json=given, timeout=60)
            assert answer.status_code == (400 if path == "/invocations" else 500), answer.text
            assert message(answer).startswith("ValueError: Input X contains NaN"), answer.text
            assert "Traceback" not in answer.text and str(models) not in answer.text


def test_a_shape_needs_no_more_memory_than_its_request(models: Path) -> None:
    with legion(models / "bare", interpreter("3"), models / "bare.log") as url:
        for shape, wanted in [
            # A server that makes these lists needs 1 GiB, and not the machine's memory.
            ([2**24, 0], "inputs[0].shape: it is too large"),
            ([2**32, 2**32, 0], "inputs[0].shape: it is too large"),
            ([0, 2**62], "inputs[0].shape: it is too large"),
            ([1] * 100_000 + [0], "inputs[0].shape: it has 100001 dimensions, more than 64"),
            ([0, 2], "body: has no rows, and the model does not take that"),
        ]:
            answer = requests.post(f"{url}/v2/models/bare/infer", json=infer(tensor("x", [], shape=shape)), timeout=60)
            assert answer.status_code == 400 and message(answer).startswith(wanted), answer.text
        deep = infer(tensor("x", [1.0], shape=[1] * 100_000))
        answer = requests.post(f"{url}/v2/models/bare/infer", json=deep, timeout=60)
        assert answer.status_code == 400 and message(answer).startswith("inputs[0].shape: it has 100000"), answer.text
        twice = infer(tensor("x", [1.0]), tensor("x", [2.0]))
        answer = requests.post(f"{url}/v2/models/bare/infer", json=twice, timeout=60)
        assert (answer.status_code, message(answer)) == (400, 'inputs[1].name: inputs[0] has the name "x", too')
        right = infer(tensor("x", [1.0, 2.0], shape=[1, 2]))
        assert requests.post(f"{url}/v2/models/bare/infer", json=right, timeout=60).status_code == 200


@pytest.mark.parametrize("path", ["/v2/health/live", "/v2/models/wine", "/v1/models/wine", "/api/model/info", "/"])
def test_a_path_says_which_methods_it_has(wine: str, path: str) -> None:
    answer = requests.post(wine + path, json={}, timeout=60)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD")
    assert message(answer) == f"POST {path}: there is no such method here, only GET, HEAD"
    assert requests.get(wine + path, timeout=60).status_code == 200
    assert requests.head(wine + path, timeout=60).status_code == 200


def test_a_media_type_is_read_in_any_case(wine: str) -> None:
    of = PROTOCOLS[0]
    for media, status in [
        ("Application/JSON; Charset=UTF-8", 200),
        ('application/json;charset="utf-8"', 200),
        ("application/json; charset=latin-1", 415),
        ("application/jsonl", 415),
    ]:
        answer = requests.post(wine + of.path, data=of.correct, headers={"Content-Type": media}, timeout=60)
        assert answer.status_code == status, (media, answer.text)
