"""The promise, kept by Legion as a whole: manifest, operator, pod, MLflow, publishing, status."""

import json
import math
import os
import subprocess
import tarfile
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from comparison import of_events, plain, same_model
from harness import REPOSITORY, interpreter


@pytest.fixture
def legionctl() -> str:
    """The built `legionctl`; `cargo xtask test` names it."""
    path = os.environ.get("LEGIONCTL")
    if not path:
        pytest.skip("LEGIONCTL is not set: Legion itself is NOT compared; set it to a built legionctl")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("example", ["wine", "diabetes", "grid-search"])
def test_same_as_mlflow_run(example: str, legionctl: str, tmp_path: Path) -> None:
    directory = REPOSITORY / "examples" / example
    spec = yaml.safe_load((directory / "example.yaml").read_text())["spec"]
    expected = plain(
        "3", tmp_path / "plain", directory / "project", spec["entrypoint"], spec.get("hyperParameters", {})
    )
    status = train(legionctl, directory / "training.yaml", tmp_path)

    main = expected.logged.main
    # In status a text is one line.
    assert status.get("parameters", {}) == {k: v.replace("\n", " ") for k, v in main["params"].items()}
    assert status["tags"] == main["tags"]
    assert status["omitted"] == {"metrics": 0, "parameters": 0, "tags": 0}
    assert {m["name"]: summary(m) for m in status["metrics"]} == {
        name: summary_of(points) for name, points in main["metrics"].items()
    }
    name, score = status["score"].split("=")
    assert name == spec["objective"]["metric"]
    # Four significant digits of the last value.
    assert math.isclose(float(score), float(max(main["metrics"][name])[1]), rel_tol=1e-3)

    logged = of_events(json.loads(line) for line in place(status["series"]).read_text().splitlines())
    assert logged.main == main
    assert logged.children == expected.logged.children

    with tarfile.open(place(status["artifact"])) as archive:
        archive.extractall(tmp_path / "artifact", filter="data")
    same_model(tmp_path / "artifact" / "model", expected, "3")
    validate = [interpreter("3"), "-m", "legion_mlflow", "validate-gppi", str(tmp_path / "artifact")]
    assert subprocess.run(validate, cwd=tmp_path).returncode == 0
    assert status["artifact"]["signature"] is True
    assert status["artifact"]["model"] == spec.get("arguments", {}).get("model", "model")


def train(legionctl: str, manifest: Path, tmp_path: Path) -> dict:
    """Trains through operator and pod; returns the status."""
    command = [legionctl, "local", "run", "-f", str(manifest), "--output", "json", "--data-dir", str(tmp_path / "data")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["status"]


def place(published: dict) -> Path:
    """The file that a URI of the status names."""
    return Path(urlsplit(published["uri"]).path)


def summary(metric: dict) -> list:
    """What status says of one metric: the last step and value, how many points, their bounds."""
    if metric["name"].endswith("_time"):
        return [metric["step"], metric["count"]]
    return [metric["step"], metric["count"], *(float(metric[k]) for k in ("value", "min", "max"))]


def summary_of(points: list) -> list:
    """The same of a series without its times; in the examples no step of a metric is logged twice."""
    steps = [step for step, _ in points]
    assert len(set(steps)) == len(steps)
    step, last = max(points)
    if last == "measured":
        return [step, len(points)]
    values = [float(value) for _, value in points]
    return [step, len(points), float(last), min(values), max(values)]
