"""Checks a directory against GPPI v1 (docs/gppi.md)."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import yaml

DESCRIPTOR = "legion.model.yaml"
_TOP = {"format", "identity", "loader", "lineage", "schema", "lock", "files", "producer"}
_REQUIRED = ("format", "identity", "loader", "lock", "files")


def validate(root: Path) -> list[str]:
    """Every problem of a model directory; none when it is GPPI v1."""
    path = root / DESCRIPTOR
    if not path.is_file():
        return [f"{DESCRIPTOR}: there is no such file in {root}"]
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        return [f"{DESCRIPTOR}: cannot be read: {error}"]
    if not isinstance(document, dict):
        return [f"{DESCRIPTOR}: is not a mapping"]
    problems = [f"{name}: is missing" for name in _REQUIRED if name not in document]
    problems += [f"{name}: is not a field of GPPI v1" for name in sorted(set(map(str, document)) - _TOP)]
    if document.get("format", "gppi/v1") != "gppi/v1":
        problems.append(f"format: is {document['format']!r}, expected 'gppi/v1'")
    if not (document.get("identity") or {}).get("name"):
        problems.append("identity.name: is missing")
    problems += _loader(root, document.get("loader") or {})
    problems += _schema(document.get("schema"))
    problems += _files(root, document.get("files") or {})
    lock = (document.get("lock") or {}).get("path", "")
    if "lock" in document and lock not in (document.get("files") or {}):
        problems.append(f"lock.path: {lock!r} is not among the files")
    return problems


def _loader(root: Path, loader: dict[str, Any]) -> list[str]:
    kind = loader.get("type")
    if kind == "mlflow-pyfunc":
        path = str(loader.get("path", ""))
        if not _below(path) or not (root / path / "MLmodel").is_file():
            return [f"loader.path: {path!r} holds no MLmodel"]
        return []
    if kind == "module":
        missing = [name for name in ("path", "entrypoint") if not loader.get(name)]
        return [f"loader.{name}: is missing" for name in missing]
    return [f"loader.type: is {kind!r}, expected 'mlflow-pyfunc' or 'module'"] if loader else []


def _schema(schema: Any) -> list[str]:
    if schema is None:
        return []
    if not isinstance(schema, dict):
        return ["schema: is neither null nor a mapping"]
    return [f"schema.{part}: is not a list" for part in schema if not isinstance(schema[part], list)]


def _files(root: Path, files: dict[str, str]) -> list[str]:
    problems = []
    present = set()
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            problems.append(f"files: {name} is a link")
        elif path.is_file() and name != DESCRIPTOR:
            present.add(name)
    for name, expected in files.items():
        if not _below(name):
            problems.append(f"files.{name}: leaves the directory")
        elif name not in present:
            problems.append(f"files.{name}: there is no such file")
        elif expected != (found := f"sha256:{hashlib.sha256((root / name).read_bytes()).hexdigest()}"):
            problems.append(f"files.{name}: is {found}, expected {expected}")
    problems += [f"files: {name} is not listed" for name in sorted(present - set(files))]
    return problems


def _below(path: str) -> bool:
    return bool(path) and not path.startswith("/") and ".." not in path.split("/")
