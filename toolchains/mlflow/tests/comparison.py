"""The log of a training in one shape, for plain `mlflow run` and for Legion."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import interpreter, text

# Tags of MLflow and Legion themselves. They name the run, its user and its source.
BOOKKEEPING = ("mlflow.", "legion.")


@dataclass
class Logged:
    """The main run and those below it: parameters, user tags, and every point of every metric."""

    main: dict[str, Any]
    # In an order that does not depend on ids and times.
    children: list[dict[str, Any]]


@dataclass
class Plain:
    """The results of `mlflow run` alone."""

    logged: Logged
    models: list[Path]
    # Paths of the artifacts of the main run, and of all runs below it, as `mlflow run` keeps them.
    files: list[str]
    files_below: list[str]


def plain(
    version: str, store: Path, experiment: str, work: Path, project: Path, entry: str, parameters: dict[str, str]
) -> Plain:
    """Runs the project with `mlflow run` alone. The store may have other runs, because MLflow is slow to create one."""
    # A copy, because MLflow writes beside the project's files.
    project = Path(shutil.copytree(project, work / "project"))
    python = interpreter(version)
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "LEGION_"))}
    env["PATH"] = f"{Path(python).parent}{os.pathsep}{env['PATH']}"
    env |= {
        "MLFLOW_TRACKING_URI": f"sqlite:///{store}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONWARNINGS": "ignore",
    }
    command = [python, "-m", "mlflow", "run", "--env-manager=local", "-e", entry]
    command += ["--experiment-name", experiment, str(project)]
    for name, value in parameters.items():
        command += ["-P", f"{name}={value}"]
    checked(command, work, env)
    dump = [python, str(Path(__file__).parent / "dump.py"), env["MLFLOW_TRACKING_URI"], experiment, str(work)]
    found = json.loads(checked(dump, work, env).split("DUMP", 1)[1])
    (main,) = (r for r in found["runs"] if r["parent"] is None)
    children = [r for r in found["runs"] if r["parent"]]
    below = sorted(path for child in children for path in child["files"])
    return Plain(_logged(main, children), [Path(p) for p in found["models"]], main["files"], below)


def of_events(events: Iterable[dict[str, Any]]) -> Logged:
    """Reads the same from an event stream: LEGION_EVENTS, or the published series.jsonl."""
    runs: dict[str | None, dict[str, Any]] = defaultdict(lambda: {"params": {}, "tags": {}, "metrics": {}})
    children = []
    for event in events:
        if event["type"] == "child":
            children.append(event["id"])
        run = runs[event.get("child")]
        if event["type"] in ("param", "tag"):
            run[event["type"] + "s"][event["name"]] = event["value"]
        elif event["type"] == "metric":
            run["metrics"].setdefault(event["name"], []).append([event["step"], text(event["value"])])
    # A main run that logs only files has no events of its own.
    return _logged(runs[None], [runs[child] for child in dict.fromkeys(children)])


def _logged(main: dict[str, Any], children: list[dict[str, Any]]) -> Logged:
    return Logged(_normal_run(main), sorted((_normal_run(c) for c in children), key=json.dumps))


def _normal_run(run: dict[str, Any]) -> dict[str, Any]:
    metrics = {}
    for name, points in sorted(run["metrics"].items()):
        # Autologging of a search measures the duration of fits, and system metrics measure the machine: its processor,
        # disk and network. These values differ between any two runs. Names, steps and counts must agree.
        measured = name.endswith("_time") or name.startswith("system/")
        metrics[name] = sorted([step, "measured" if measured else value] for step, value in points)
    return {
        "params": dict(sorted(run["params"].items())),
        "tags": {k: v for k, v in sorted(run["tags"].items()) if not k.startswith(BOOKKEEPING)},
        "metrics": metrics,
    }


def same_model(model: Path, wanted: Plain, version: str) -> None:
    """Checks that the plain run logged the same model directory, except for ids and times, and that MLflow loads it."""
    mine = contents(model)
    assert "MLmodel" in mine
    assert any(_normal_model(mine) == _normal_model(contents(theirs)) for theirs in wanted.models)
    load = [interpreter(version), "-W", "ignore", "-c", f"import mlflow; mlflow.pyfunc.load_model({str(model)!r})"]
    # Not in the model's directory, because MLflow 2 creates a store there.
    with tempfile.TemporaryDirectory() as elsewhere:
        checked(load, Path(elsewhere), dict(os.environ))


def same_files(kept: Path, artifact: Path | None, model: str, wanted: Plain) -> None:
    """Checks that every file of the plain runs is in the run's files or in the artifact, and that no other file is.

    `kept` is the unpacked archive of the run's files, `artifact` the unpacked artifact, if there is a model.
    """
    main, below, others = (contents(kept / name) for name in ("artifacts", "child-runs", "models"))
    # MLflow 2 has models among the files of their run. The chosen one is in the artifact and not twice.
    taken = [f"{model}/{path}" for path in contents(artifact / "model")] if artifact else []
    mine = sorted(map(_without_ids, [*main, *(path.split("/", 1)[1] for path in below)]))
    theirs = sorted(map(_without_ids, [*wanted.files, *wanted.files_below]))
    missing = list(theirs)
    for path in mine:
        assert path in missing, f"not a file of mlflow run: {path}"
        missing.remove(path)
    assert not missing or sorted(missing) == sorted(taken), missing
    models = [path for path in [*mine, *others] if path.rpartition("/")[2] == "MLmodel"]
    assert len(models) + (artifact is not None) == len(wanted.models)


def _without_ids(path: str) -> str:
    """Returns the path without the time and the id in the names of images of a series and of TensorBoard's files."""
    path = re.sub(r"timestamp([+%~])[0-9]+\1[0-9a-z-]{36}", r"timestamp\1", path)
    # Time, host and process, and a number that TensorFlow counts up.
    return re.sub(r"(events\.out\.tfevents)\.[0-9]+\..*\.[0-9]+\.[0-9]+(\.v2)$", r"\1\2", path)


def contents(directory: Path) -> dict[str, bytes]:
    """Returns every file below the directory, none if there is no such directory."""
    return {p.relative_to(directory).as_posix(): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


# Fields of an MLmodel that differ between two equal runs: ids, times, places, and the size of compressed data.
_VARYING = re.compile(
    rb"^(\s*(?:run_id|model_uuid|model_id|utc_time_created|artifact_path|model_size_bytes|uri|model_code_path)):.*$",
    re.MULTILINE,
)
# Archives and pickles contain times and memory order, and compiled files of Python contain the path and the time of
# their source. Loading them shows whether the model works.
_BINARY = (".pkl", ".skops", ".keras", ".pyc")


def _normal_model(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: b"" if name.endswith(_BINARY) else _VARYING.sub(rb"\1:", data) for name, data in files.items()}


def checked(command: list[str], cwd: Path, env: dict[str, str]) -> str:
    """Runs a command that must succeed. On failure it shows the output."""
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout
