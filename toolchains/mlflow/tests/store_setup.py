"""Measures how long a run takes to open its store: when MLflow's tables are created, and when a copy has them.

    ~/.cache/legion-tests/mlflow-3/bin/python toolchains/mlflow/tests/store_setup.py

Every round has a new cache. Its first run creates the tables, and a later run with the same version of MLflow copies
them, in whatever environment. Run `./test` once before. It creates the toolchain's environment.
"""

import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import mlflow

from legion_mlflow.inside.store import open_store

ROUNDS = 5
# Imports what opening a store imports.
with tempfile.TemporaryDirectory() as warm:
    os.environ["LEGION_CACHE"] = warm
    open_store(Path(warm) / "work", 1, {}, "/nonexistent")
found: dict[str, list[tuple[float, float]]] = {"created": [], "copied": []}
for _ in range(ROUNDS):
    with tempfile.TemporaryDirectory() as directory:
        os.environ["LEGION_CACHE"] = directory
        for attempt, name in enumerate(found):
            wall, processor = time.monotonic(), time.process_time()
            store = open_store(Path(directory) / "work", attempt, {}, "/nonexistent")
            mlflow.MlflowClient(tracking_uri=store.uri).search_experiments()
            found[name].append((time.monotonic() - wall, time.process_time() - processor))
print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}")
for name, rounds in found.items():
    wall, processor = (statistics.median(column) for column in zip(*rounds))
    print(f"tables {name}: median {wall:.2f} s, {processor:.2f} s of processor time")
