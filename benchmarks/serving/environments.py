"""Python environments of the servers, with exact versions. They are cached outside the checkout."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

REQUIREMENTS = Path(__file__).parent / "requirements"
# The packages whose versions a report names.
NAMED = (
    "mlflow",
    "mlflow-skinny",
    "mlserver",
    "bentoml",
    "kserve",
    "fastapi",
    "uvicorn",
    "flask",
    "gunicorn",
    "scikit-learn",
    "xgboost-cpu",
    "pandas",
    "numpy",
)


class EnvironmentFailure(Exception):
    """An environment that cannot be made, with the reason."""


def cache() -> Path:
    """Returns the directory that the tests of this repository share."""
    if directory := os.environ.get("LEGION_TEST_CACHE"):
        return Path(directory)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "legion-tests"


def environment(name: str) -> Path:
    """Returns the interpreter of an environment. It is made, unless there is one from the same description."""
    lock = REQUIREMENTS / f"{name}.lock"
    directory = cache() / f"serving-{name}"
    wanted = hashlib.sha256(f"{sys.version}\n{lock.read_text()}".encode()).hexdigest()
    python = directory / "bin" / "python"
    stamp = directory / ".made-from"
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    uv = shutil.which("uv")
    if uv is None:
        raise EnvironmentFailure("uv is missing")
    print(f"creating {directory}", file=sys.stderr, flush=True)
    shutil.rmtree(directory, ignore_errors=True)
    # Without compiled files, each start would parse all sources again. The lock has all packages. xgboost-cpu takes the
    # place of xgboost, which brings libraries for GPUs.
    install = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--no-deps", "--python", str(python)]
    install += ["--requirements"]
    for command in ([uv, "venv", "--quiet", "--python", sys.executable, str(directory)], [*install, str(lock)]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
            raise EnvironmentFailure(f"{name}: {' '.join(line.strip() for line in lines[-3:])}")
    stamp.write_text(wanted)
    return python


def versions(name: str) -> dict[str, str]:
    """Returns the versions of the packages that a report names."""
    lines = (REQUIREMENTS / f"{name}.lock").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if "==" in line)
    return {package: pinned[package] for package in NAMED if package in pinned}
