"""The run's other artifacts: plots, reports, tables."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from legion_mlflow.inside.store import Store
from legion_mlflow.protocol import Context, Result

_DIRECTORY = "files"
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


def collect(client: Any, run: Any, store: Store, context: Context, result: Result) -> None:
    """Copies the main run's artifacts in the order of their names, up to `maxRunArtifacts`."""
    limit = _bytes(context.argument("maxRunArtifacts", "256Mi"))
    target = context.output / _DIRECTORY
    left_out: list[str] = []
    used = 0
    for path, size in _list(client, run.info.run_id, ""):
        if used + size > limit:
            left_out.append(path)
            continue
        used += size
        _fetch(client, run, path, target, store)
    if target.is_dir():
        result.files.append({"name": "artifacts", "path": _DIRECTORY})
    if left_out:
        more = f" and {len(left_out) - 3} more" if len(left_out) > 3 else ""
        result.notice(
            "ArtifactsLeftOut",
            f"spec.arguments.maxRunArtifacts is {limit} bytes. Files not kept: {', '.join(left_out[:3])}{more}",
        )


def _bytes(text: str) -> int:
    number, unit = re.fullmatch(r"([0-9]+)([A-Za-z]*)", text).groups()  # type: ignore[union-attr]  # schema's pattern
    return int(number) * _UNITS[unit]


def _list(client: Any, run_id: str, path: str) -> list[tuple[str, int]]:
    """Returns all files below a path, without the directories of models."""
    found: list[tuple[str, int]] = []
    entries = client.list_artifacts(run_id, path or None)
    if any(Path(entry.path).name == "MLmodel" for entry in entries):
        return []
    for entry in entries:
        if entry.is_dir:
            found += _list(client, run_id, entry.path)
        else:
            found.append((entry.path, entry.file_size or 0))
    return found


def _fetch(client: Any, run: Any, path: str, target: Path, store: Store) -> None:
    (target / path).parent.mkdir(parents=True, exist_ok=True)
    if store.is_private:
        from mlflow.utils.file_utils import local_file_uri_to_path

        source = Path(local_file_uri_to_path(run.info.artifact_uri)) / path
        if not source.is_symlink():
            shutil.copyfile(source, target / path)
        return
    with tempfile.TemporaryDirectory() as directory:
        # The place below the directory differs between versions of MLflow. MLflow returns it.
        shutil.move(client.download_artifacts(run.info.run_id, path, directory), target / path)
