"""The promise: what `mlflow run` completes gives the same parameters, metrics, tags and model as a training."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from harness import REPOSITORY, TOOLCHAINS, Outcome, document, interpreter, mlflow_command, run, text

PROJECTS = Path(__file__).parent / "projects"
CASES = {
    "steps": (PROJECTS / "steps", "main", {"c": "0.50", "more": "1.10"}, {}),
    "autolog": (PROJECTS / "autolog", "train.py", {}, {"model": "best_estimator"}),
}


def plain(version: str, work: Path, project: Path, entry: str, parameters: dict[str, str]) -> dict[str, Any]:
    """Runs the project with `mlflow run` alone and returns what its store holds."""
    python = interpreter(version)
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "LEGION_"))}
    env["PATH"] = f"{Path(python).parent}{os.pathsep}{env['PATH']}"
    env |= {
        "MLFLOW_TRACKING_URI": f"sqlite:///{work}/plain.db",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONWARNINGS": "ignore",
    }
    command = [python, "-m", "mlflow", "run", "--env-manager=local", "-e", entry, str(project)]
    for name, value in parameters.items():
        command += ["-P", f"{name}={value}"]
    subprocess.run(command, cwd=work, env=env, check=True, capture_output=True, timeout=900)
    dump = [python, str(Path(__file__).parent / "dump.py"), env["MLFLOW_TRACKING_URI"], str(work)]
    done = subprocess.run(dump, cwd=work, env=env, check=True, capture_output=True, text=True, timeout=900)
    return json.loads(done.stdout.split("DUMP", 1)[1])


def normal(mlmodel: str) -> str:
    """MLmodel without what differs between two equal runs: ids, times, sizes of compressed data."""
    return re.sub(
        r"^(\s*(?:run_id|model_uuid|model_id|utc_time_created|artifact_path|model_size_bytes)):.*$",
        r"\1:",
        mlmodel,
        flags=re.M,
    )


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_same_as_mlflow_run(case: str, mlflow_version: str, tmp_path: Path) -> None:
    project, entry, parameters, arguments = CASES[case]
    (tmp_path / "plain").mkdir()
    expected = plain(mlflow_version, tmp_path / "plain", project, entry, parameters)
    training = document(entrypoint=entry, hyperParameters=parameters, arguments=arguments)
    got = run(mlflow_command(mlflow_version), tmp_path / "legion", training, project)
    assert got.code == 0, got.log

    main = next(r for r in expected["runs"] if r["parent"] is None)
    assert got.pairs("param") == main["params"]
    assert got.pairs("tag") == main["tags"]
    assert {name: sorted(points) for name, points in got.metrics().items()} == {
        name: sorted((step, text(_number(value))) for step, value in points) for name, points in main["metrics"].items()
    }
    assert children(got) == sorted(json.dumps(r["metrics"], sort_keys=True) for r in expected["runs"] if r["parent"])
    same_model(got, expected, mlflow_version)


def children(got: Outcome) -> list[str]:
    """The series of all runs below the main one, in a form that can be compared without their ids."""
    series: dict[str, dict[str, list]] = {e["id"]: {} for e in got.events if e["type"] == "child"}
    for event in got.events:
        if event["type"] == "metric" and "child" in event:
            series[event["child"]].setdefault(event["name"], []).append([event["step"], str(event["value"])])
    return sorted(json.dumps({k: sorted(v) for k, v in s.items()}, sort_keys=True) for s in series.values())


def same_model(got: Outcome, expected: dict[str, Any], version: str) -> None:
    model = got.model / "model"
    stored = [p.parent for p in (got.work / "mlflow-1").rglob("MLmodel")]
    # Byte-identical to what MLflow wrote: the attempt's own store still holds it.
    assert any(contents(model) == contents(directory) for directory in stored)
    # The same model as the plain run's, apart from ids and times.
    wanted = [contents(Path(directory)) for directory in expected["models"]]
    mine = contents(model)
    assert any(
        theirs.keys() == mine.keys() and normal(theirs["MLmodel"].decode()) == normal(mine["MLmodel"].decode())
        for theirs in wanted
    )
    code = f"import mlflow; mlflow.pyfunc.load_model({str(model)!r})"
    subprocess.run([interpreter(version), "-W", "ignore", "-c", code], check=True, capture_output=True, timeout=900)


def contents(directory: Path) -> dict[str, bytes]:
    return {p.relative_to(directory).as_posix(): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def _number(value: str) -> float:
    return float(value.replace("Infinity", "inf"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("example", "metric", "count"),
    [("wine", "val_accuracy", 5), ("diabetes", "rmse", 60), ("grid-search", "best_cv_score", 1)],
)
def test_examples(example: str, metric: str, count: int, tmp_path: Path) -> None:
    import yaml

    directory = REPOSITORY / "examples" / example
    spec = yaml.safe_load((directory / "example.yaml").read_text())["spec"]
    fields = {k: spec[k] for k in ("model", "entrypoint", "hyperParameters", "arguments") if k in spec}
    got = run(mlflow_command("3"), tmp_path, document(**fields), directory / "project")
    assert got.code == 0, got.log
    assert len(got.metrics()[metric]) == count
    assert got.pairs("tag")["dataset"].startswith("sklearn-")
    assert got.result["model"]["signature"] is True
    command = [interpreter("3"), "-m", "legion_mlflow", "validate-gppi", str(got.model)]
    assert subprocess.run(command, cwd=TOOLCHAINS / "mlflow").returncode == 0
