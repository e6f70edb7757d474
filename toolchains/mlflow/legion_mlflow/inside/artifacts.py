"""What is kept of everything that the runs logged: plots, reports, tables, and models besides the chosen one.

Every file of every run is in the artifact, or in these files, or in the notice `ArtifactsLeftOut`.
"""

from __future__ import annotations

import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from legion_mlflow.inside.models import Candidate
from legion_mlflow.inside.store import Store
from legion_mlflow.protocol import Context, Result

# Names in the archive of the run's files, and their directories in LEGION_OUTPUT.
_MAIN = ("artifacts", "files")
_MODELS = ("models", "other-models")
_CHILDREN = ("child-runs", "child-runs")
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


@dataclass
class _Place:
    """A directory of logged files: a run's own artifacts, or a model with a place of its own."""

    uri: str
    # Where its files go: the name in the archive, the directory in LEGION_OUTPUT, and the path below that.
    archive: tuple[str, str]
    below: str
    # Paths with a model that is already in the artifact.
    taken: tuple[str, ...] = ()


def collect(
    runs: list[Any], models: list[Candidate], chosen: Candidate | None, store: Store, context: Context, result: Result
) -> None:
    """Copies the logged files of all runs, the main run's first, up to `maxRunArtifacts`."""
    limit = _bytes(context.argument("maxRunArtifacts", "256Mi"))
    left_out: list[str] = []
    used = 0
    for place in _places(runs, models, chosen):
        target = context.output / place.archive[1] / place.below
        for path, size in _list(place, store):
            if path.startswith(tuple(f"{taken}/" for taken in place.taken)):
                continue
            # A link or a device has no size. The archive takes only regular files.
            if size is None or used + size > limit:
                left_out.append("/".join(part for part in (place.below, path) if part))
                continue
            used += size
            _fetch(place, path, target, store)
    for name, directory in (_MAIN, _MODELS, _CHILDREN):
        if (context.output / directory).is_dir():
            result.files.append({"name": name, "path": directory})
    if left_out:
        more = f" and {len(left_out) - 3} more" if len(left_out) > 3 else ""
        result.notice(
            "ArtifactsLeftOut",
            f"spec.arguments.maxRunArtifacts is {limit} bytes. Files not kept: {', '.join(left_out[:3])}{more}",
        )


def _places(runs: list[Any], models: list[Candidate], chosen: Candidate | None) -> Iterator[_Place]:
    """Returns every place with logged files, in the order in which they are kept."""
    for run in runs:
        run_id = run.info.run_id
        # MLflow 2 has models among the artifacts of the run. MLflow 3 has them elsewhere, and a file of the run may
        # then have the path of a model.
        here = f"{run.info.artifact_uri.rstrip('/')}/"
        taken = () if chosen is None or not chosen.uri.startswith(here) else (chosen.uri[len(here) :],)
        main = run is runs[0]
        yield _Place(run.info.artifact_uri, _MAIN if main else _CHILDREN, "" if main else run_id, taken)
        for model in models:
            if model.run_id == run_id and model is not chosen and not model.uri.startswith(here):
                yield _Place(model.uri, _MODELS, f"{Path(model.name).name}-{model.id}")


def _bytes(text: str) -> int:
    number, unit = re.fullmatch(r"([0-9]+)([A-Za-z]*)", text).groups()  # type: ignore[union-attr]  # schema's pattern
    return int(number) * _UNITS[unit]


def _list(place: _Place, store: Store) -> list[tuple[str, int | None]]:
    """Returns all files of a place with their sizes, sorted. The size of something that is no file is None.

    Not by `MlflowClient.list_artifacts`: in MLflow 3 it shows the files of a model instead of the run's own.
    """
    if store.is_private:
        root = _local(place)
        found = [(path, path.lstat()) for path in sorted(root.rglob("*"))]
        return [
            (path.relative_to(root).as_posix(), status.st_size if stat.S_ISREG(status.st_mode) else None)
            for path, status in found
            if not stat.S_ISDIR(status.st_mode)
        ]
    return sorted(_list_remote(_repository(place), None))


def _list_remote(repository: Any, path: str | None) -> Iterator[tuple[str, int | None]]:
    for entry in repository.list_artifacts(path):
        if entry.is_dir:
            yield from _list_remote(repository, entry.path)
        else:
            yield entry.path, entry.file_size or 0


def _fetch(place: _Place, path: str, target: Path, store: Store) -> None:
    (target / path).parent.mkdir(parents=True, exist_ok=True)
    if store.is_private:
        shutil.copyfile(_local(place) / path, target / path)
        return
    with tempfile.TemporaryDirectory() as directory:
        # The place below the directory differs between versions of MLflow. MLflow returns it.
        shutil.move(_repository(place).download_artifacts(path, directory), target / path)


def _local(place: _Place) -> Path:
    from mlflow.utils.file_utils import local_file_uri_to_path

    return Path(local_file_uri_to_path(place.uri))


def _repository(place: _Place) -> Any:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(place.uri)
