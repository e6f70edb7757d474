"""Runs a toolchain's command as a training pod does, and reads its results."""

from __future__ import annotations

import json
import math
import os
import shutil
import socket
import subprocess
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[3]
LEFT_OUT = pytest.mark.skip(reason="left out of the sample of LEGION_SEED; `cargo xtask test --exhaustive` runs it")


def sampled(cases: list, version: Callable[[Any], str]) -> list:
    """Returns one case of each version of MLflow, as `LEGION_SEED` chooses, or all cases without it."""
    seed = os.environ.get("LEGION_SEED")
    if seed is None:
        return cases
    versions: dict[str, list] = defaultdict(list)
    for case in cases:
        versions[version(case)].append(case)
    return [of_version[int(seed) % len(of_version)] for of_version in versions.values()]


@dataclass
class Outcome:
    """The results of one attempt."""

    code: int
    log: str
    work: Path

    @property
    def result(self) -> dict[str, Any]:
        """The result document, empty without one."""
        path = self.work / "run" / "result.json"
        return json.loads(path.read_text()) if path.exists() else {}

    @property
    def error(self) -> dict[str, str]:
        """The toolchain's own refusal."""
        return self.result.get("error", {})

    @property
    def events(self) -> list[dict[str, Any]]:
        """Every event. A line outside JSON fails the test."""
        path = self.work / "run" / "events.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def model(self) -> Path:
        """The directory that becomes the artifact."""
        return self.work / "output" / self.result.get("model", {}).get("path", "model")

    def pairs(self, kind: str) -> dict[str, str]:
        """Parameters or tags of the main run."""
        return {e["name"]: e["value"] for e in self.events if e["type"] == kind and "child" not in e}

    def metrics(self) -> dict[str, list[tuple[int, str]]]:
        """The main run's series: step and value as text."""
        series = defaultdict(list)
        for event in self.events:
            if event["type"] == "metric" and "child" not in event:
                series[event["name"]].append((event["step"], text(event["value"])))
        return dict(series)

    def notices(self) -> set[str]:
        """Reasons of all notices, from both of their places."""
        found = {e["reason"] for e in self.events if e["type"] == "message" and e.get("reason")}
        return found | {n["reason"] for n in self.result.get("notices", [])}


def text(value: float | str) -> str:
    """Returns a metric's value as in the status."""
    if isinstance(value, str):
        return value
    if math.isfinite(value):
        return repr(float(value))
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")


def document(**fields: Any) -> dict[str, Any]:
    """Returns a minimal training document with the MLflow toolchain's defaults and the changes of a test."""
    arguments = {"environment": "auto", "requireModel": True, "modelFrom": "main", "maxRunArtifacts": "256Mi"}
    return {
        "protocol": 1,
        "name": "case",
        "namespace": "default",
        "uid": "6f6e6c79-0000-4000-8000-746573747300",
        "runId": "7f3a1c9e",
        "sequence": 1,
        "attempt": 1,
        "pod": "case-7f3a1c9e-1",
        "model": {"name": "case", "version": "1"},
        "source": {"kind": "ConfigMap", "uri": "case-source", "digest": "sha256:00"},
        **fields,
        "arguments": {**arguments, **fields.get("arguments", {})},
    }


def variables(work: Path, training: dict[str, Any], project: Path | None) -> dict[str, str]:
    """Creates a workspace and returns the environment variables of the protocol."""
    for name in ("run", "output", "data", "home", "tmp"):
        (work / name).mkdir(parents=True, exist_ok=True)
    if project is not None:
        shutil.copytree(project, work / "source", dirs_exist_ok=True)
    (work / "source").mkdir(exist_ok=True)
    (work / "run" / "training.json").write_text(json.dumps(training))
    return {
        **{k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "LEGION_"))},
        "LEGION_PROTOCOL": "1",
        "LEGION_TRAINING": str(work / "run" / "training.json"),
        "LEGION_SOURCE": str(work / "source"),
        "LEGION_DATA": str(work / "data"),
        "LEGION_OUTPUT": str(work / "output"),
        "LEGION_EVENTS": str(work / "run" / "events.jsonl"),
        "LEGION_RESULT": str(work / "run" / "result.json"),
        "LEGION_WORK": str(work),
        "HOME": str(work / "home"),
        "TMPDIR": str(work / "tmp"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


def run(
    command: list[str],
    work: Path,
    training: dict[str, Any],
    project: Path | None,
    env: dict[str, str] | None = None,
) -> Outcome:
    """Runs one attempt to its end."""
    done = subprocess.run(
        command,
        cwd=(work / "source") if (work / "source").exists() else None,
        env={**variables(work, training, project), **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
    )
    return Outcome(done.returncode, done.stdout, work)


def mlflow_command(version: str) -> list[str]:
    """Returns the toolchain's command in the environment with that MLflow."""
    return [interpreter(version), "-m", "legion_mlflow"]


def interpreter(version: str) -> str:
    """Returns the Python of `./test` for that MLflow."""
    return os.environ[f"LEGION_TEST_MLFLOW{version}"]


def free_port() -> int:
    """Returns a port of this machine that no one listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
