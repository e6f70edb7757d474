"""Writes the model as GPPI v1: MLflow's directory, untouched, and the files it lacks."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import yaml

from legion_mlflow import __version__
from legion_mlflow.inside import lock
from legion_mlflow.inside.models import Candidate
from legion_mlflow.inside.store import Store
from legion_mlflow.protocol import Context, Result
from legion_mlflow.refusal import OUTPUT, Refusal

FORMAT = "gppi/v1"


def write(model: Candidate, context: Context, store: Store, result: Result) -> None:
    """Writes `$LEGION_OUTPUT/model` and fills the result's `model`."""
    root = context.output / "model"
    if root.exists():
        raise Refusal(
            "OutputOccupied",
            "the project wrote $LEGION_OUTPUT/model itself, but this is the place of the logged model",
            remedy="Write the project's own files to $LEGION_OUTPUT/extra. They become part of the artifact.",
            origin=OUTPUT,
        )
    root.mkdir(parents=True)
    _copy_model(model, store, root / "model")
    mlmodel = yaml.safe_load((root / "model" / "MLmodel").read_text(encoding="utf-8"))
    locked = _lock(root)
    _sample(root, mlmodel)
    extra = context.output / "extra"
    if extra.is_dir():
        extra.rename(root / "extra")
    signature = mlmodel.get("signature")
    if signature is None:
        result.notice("NoSignature", f"the model {model.name} has no signature, so its inputs and outputs are unknown")
    if "python_function" not in mlmodel.get("flavors", {}):
        result.notice("NoPyfunc", f"the model {model.name} has no python_function flavor, so it cannot be served")
    descriptor = {
        "format": FORMAT,
        "identity": {k: v for k, v in context.training.get("model", {}).items() if v},
        "loader": {"type": "mlflow-pyfunc", "path": "model"},
        "lineage": _lineage(model, context, result),
        "schema": _schema(signature),
        "lock": {"path": "lock/requirements.txt", "digest": locked, "python": result.environment["python"]},
        "files": _digests(root),
        "producer": {"name": "legion-mlflow", "version": __version__},
    }
    (root / "legion.model.yaml").write_text(yaml.safe_dump(descriptor, sort_keys=False), encoding="utf-8")
    result.environment["lock"] = locked
    result.model = {"path": "model", "format": FORMAT, "name": model.name, "signature": signature is not None}


def _copy_model(model: Candidate, store: Store, target: Path) -> None:
    if store.is_private:
        from mlflow.utils.file_utils import local_file_uri_to_path

        shutil.copytree(local_file_uri_to_path(model.uri), target)
    else:
        import mlflow.artifacts

        target.mkdir(parents=True)
        # By the model's id if there is one: only the server may know its location.
        uri = f"models:/{model.id}" if model.id.startswith("m-") else model.uri
        downloaded = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(target)))
        if downloaded.resolve() != target.resolve():
            for entry in downloaded.iterdir():
                entry.rename(target / entry.name)
            downloaded.rmdir()
        # MLflow leaves this file when it downloads by id. The logged model has no such file.
        (target / "registered_model_meta").unlink(missing_ok=True)


def _lock(root: Path) -> str:
    declared = root / "model" / "requirements.txt"
    lines = declared.read_text(encoding="utf-8").splitlines() if declared.is_file() else []
    text = "".join(f"{line}\n" for line in lock.closure(lines))
    (root / "lock").mkdir()
    (root / "lock" / "requirements.txt").write_text(text, encoding="utf-8")
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _sample(root: Path, mlmodel: dict[str, Any]) -> None:
    info = mlmodel.get("saved_input_example_info") or {}
    for key in ("artifact_path", "serving_input_path"):
        # Only a name, because user code wrote the model directory.
        name = Path(str(info.get(key) or "")).name
        if name.endswith(".json") and (root / "model" / name).is_file():
            (root / "sample").mkdir(exist_ok=True)
            shutil.copyfile(root / "model" / name, root / "sample" / name)


def _lineage(model: Candidate, context: Context, result: Result) -> dict[str, Any]:
    training = context.training
    source = {k: v for k, v in training.get("source", {}).items() if v}
    return {
        "training": {k: training.get(k) for k in ("namespace", "name", "uid", "runId", "attempt")},
        "source": source,
        "mlflow": {
            "version": (result.external or {}).get("version", ""),
            "run": model.run_id,
            "model": model.id,
            "name": model.name,
        },
    }


def _schema(signature: dict[str, Any] | None) -> dict[str, Any] | None:
    """Returns the signature of MLmodel with its embedded JSON: one notation for all readers of the descriptor."""
    if signature is None:
        return None
    return {part: yaml.safe_load(signature[part]) for part in ("inputs", "outputs", "params") if signature.get(part)}


def _digests(root: Path) -> dict[str, str]:
    found = {}
    for path in sorted(p for p in root.rglob("*") if p.is_file() and not p.is_symlink()):
        digest = hashlib.sha256()
        with path.open("rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                digest.update(block)
        found[path.relative_to(root).as_posix()] = f"sha256:{digest.hexdigest()}"
    return found
