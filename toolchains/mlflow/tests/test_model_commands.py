"""`legionctl model` with a model that MLflow wrote: every command, as a user types it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tarfile
from pathlib import Path

import pytest
from harness import free_port, interpreter

LEGIONCTL = os.environ.get("LEGIONCTL")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not LEGIONCTL, reason="LEGIONCTL is not set: cargo xtask test runs this"),
]
TRAIN = """
import sys
import mlflow, pandas as pd
from mlflow.models import infer_signature
from sklearn.linear_model import LinearRegression

x = pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": [0.5, 0.25, 4.0]})
model = LinearRegression().fit(x, 2 * x["a"] + x["b"])
signature = infer_signature(x, model.predict(x))
mlflow.sklearn.save_model(model, sys.argv[1], signature=signature, input_example=x, pip_requirements=["scikit-learn"])
"""
EXPECTED = [2.5, 4.25, 10.0]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "line"
    subprocess.run([interpreter("3"), "-c", TRAIN, path], check=True, capture_output=True)
    return path


def command(*arguments: object, stdin: str = "", code: int = 0) -> str:
    words = [str(word) for word in (LEGIONCTL, "model", *arguments)]
    done = subprocess.run(words, input=stdin, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == code, (words, done.stdout, done.stderr)
    return done.stdout if code == 0 else done.stdout + done.stderr


def numbers(text: str) -> list[float]:
    return [float(line) for line in text.splitlines()[1:]]


def test_a_model_predicts_its_sample_and_the_input_of_a_user(model: Path, tmp_path: Path) -> None:
    python = ("--python", interpreter("3"))
    assert numbers(command("predict", model, *python)) == pytest.approx(EXPECTED)
    table = tmp_path / "rows.csv"
    table.write_text("b,a\n0.5,1\n")
    assert numbers(command("predict", model, *python, "--input", table, "-o", "csv")) == pytest.approx([2.5])
    answer = command("predict", model, *python, "--input", "-", "-o", "json", stdin='[{"a": 2, "b": 0.25}]')
    assert json.loads(answer)["predictions"] == pytest.approx([4.25])
    wrong = command("predict", model, *python, "--input", "-", stdin='[{"a": "x", "b": 1}]', code=2)
    assert 'dataframe_records[0].a: column "a" is of type double, and the value is the text "x"' in wrong
    # It is reported before anything is loaded.
    assert "it is not JSON" in command("predict", model, "--python", "/no/python", "--input", "-", stdin="{", code=2)
    assert "no such file" in command("predict", model, "--input", tmp_path / "absent", code=3).lower()


def test_a_served_model_is_invoked_and_the_printed_command_predicts(model: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    words = [str(LEGIONCTL), "model", "serve", str(model), "--python", str(interpreter("3")), "--bind", address]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert server.stdout
    try:
        lines = iter(server.stdout.readline, "")
        assert next(lines) == f"line is served at http://{address}\n"
        curl = next(line for line in lines if "curl" in line)
        done = subprocess.run(["sh", "-c", curl.replace("curl", "curl -s")], capture_output=True, check=True)
        assert json.loads(done.stdout)["predictions"] == pytest.approx(EXPECTED)
        url = f"http://{address}"
        assert numbers(command("invoke", url)) == pytest.approx(EXPECTED)
        assert numbers(command("invoke", url, "--input", "-", stdin='[{"a": 1, "b": 0.5}]')) == pytest.approx([2.5])
        assert "there is no such path" in command("invoke", f"{url}/other", code=3)
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=60) == 0
    assert "start a server with" in command("invoke", url, "--input", "-", stdin="[[1, 2]]", code=3)


def test_a_model_becomes_gppi_and_is_checked(model: Path, tmp_path: Path) -> None:
    python = ("--python", interpreter("3"))
    gppi = tmp_path / "gppi"
    assert "GPPI v1" in command("convert", model, gppi, *python, "--name", "plane", "--model-version", "7")
    info = json.loads(command("info", gppi, "-o", "json"))
    assert (info["name"], info["version"], info["format"]) == ("plane", "7", "gppi/v1")
    assert info["signature"]["inputs"][0] == {"type": "double", "name": "a", "required": True}
    lock = (gppi / "lock/requirements.txt").read_text()
    assert "scikit-learn==" in lock and "mlflow==" in lock
    assert "it exists already" in command("convert", model, gppi, *python, code=2)
    assert "it is GPPI already" in command("convert", gppi, tmp_path / "other", *python, code=2)
    checked = command("check", gppi, *python, "--load")
    assert "predicted its sample in" in checked and "is GPPI v1" in checked
    archive = tmp_path / "gppi.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(gppi, arcname=".")
    assert "is GPPI v1" in command("check", archive)
    (gppi / "model/MLmodel").write_text("flavors: {}\n")
    assert "files.model/MLmodel: is sha256:" in command("check", gppi, code=1)
    # A model whose files are absent has nothing to report before it is loaded.
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "MLmodel").write_text((model / "MLmodel").read_text())
    assert "load: the model cannot be loaded" in command("check", broken, *python, "--load", code=1)
