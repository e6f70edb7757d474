"""Checks a directory against GPPI v1 (docs/reference/gppi.md), in the words of `legionctl model check`."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import yaml

DESCRIPTOR = "legion.model.yaml"
FORMAT = "gppi/v1"
_FIELDS = ("format", "identity", "lineage", "loader", "lock", "files", "schema", "producer")
_REQUIRED = ("format", "identity", "loader", "lock", "files")


def validate(root: Path) -> list[str]:
    """Returns every problem of a model directory, none for GPPI v1."""
    path = root / DESCRIPTOR
    if not path.is_file():
        return [f"{DESCRIPTOR}: there is no such file in {root}"]
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        return [f"{DESCRIPTOR}: cannot be read: {error}"]
    if not isinstance(document, dict):
        return [f"{DESCRIPTOR}: is not a mapping"]
    problems = [f"{name}: is missing" for name in _REQUIRED if name not in document]
    problems += _unknown("", document, _FIELDS)
    if "format" in document and document["format"] != FORMAT:
        problems.append(f"format: is {document['format']!r}, expected {FORMAT!r}")
    identity = _section(document, "identity", problems)
    if identity is not None:
        problems += _unknown("identity.", identity, ("name", "version"))
        problems += _text(identity, "identity", "name", required=True)
        problems += _text(identity, "identity", "version")
    loader = _section(document, "loader", problems)
    if loader is not None:
        problems += _loader(root, loader)
    problems += _schema(document.get("schema"))
    files = _section(document, "files", problems)
    if files is not None:
        problems += _files(root, files)
    lock = _section(document, "lock", problems)
    if lock is not None:
        problems += _lock(lock, files or {})
    return problems


def _section(document: dict[str, Any], name: str, problems: list[str]) -> dict[str, Any] | None:
    """Returns a field that must be a mapping, or None."""
    value = document.get(name)
    if isinstance(value, dict):
        return value
    if name in document:
        problems.append(f"{name}: is not a mapping")
    return None


def _unknown(prefix: str, found: dict[str, Any], known: tuple[str, ...]) -> list[str]:
    return [f"{prefix}{name}: is not a field of GPPI v1" for name in sorted(set(map(str, found)) - set(known))]


def _text(found: dict[str, Any], section: str, name: str, required: bool = False) -> list[str]:
    value = found.get(name)
    if isinstance(value, str) and (value or not required):
        return []
    if value is None or isinstance(value, str):
        return [f"{section}.{name}: is missing"] if required else []
    return [f"{section}.{name}: is not text"]


def _loader(root: Path, loader: dict[str, Any]) -> list[str]:
    kind = loader.get("type")
    path = str(loader.get("path") or "")
    if kind == "mlflow-pyfunc":
        problems = _unknown("loader.", loader, ("type", "path"))
        if not _below(path) or not (root / path / "MLmodel").is_file():
            problems.append(f"loader.path: {path!r} holds no MLmodel")
        return problems
    if kind != "module":
        return [f"loader.type: is {kind!r}, expected 'mlflow-pyfunc' or 'module'"]
    problems = _unknown("loader.", loader, ("type", "path", "entrypoint"))
    missing = [f"loader.{name}: is missing" for name in ("path", "entrypoint") if not loader.get(name)]
    if missing:
        return problems + missing
    if not _below(path) or not (root / path).is_dir():
        return [*problems, f"loader.path: {path!r} is no directory of the model"]
    entrypoint = str(loader["entrypoint"])
    module = root / path / entrypoint.replace(".", "/")
    # Found but never imported: it is the user's code.
    if not module.with_suffix(".py").is_file() and not (module / "__init__.py").is_file():
        problems.append(f"loader.entrypoint: there is no module {entrypoint!r} in {path!r}")
    return problems


def _schema(schema: Any) -> list[str]:
    if schema is None:
        return []
    if not isinstance(schema, dict):
        return ["schema: is neither null nor a mapping"]
    problems = _unknown("schema.", schema, ("inputs", "outputs", "params"))
    return problems + [f"schema.{part}: is not a list" for part in schema if not isinstance(schema[part], list)]


def _lock(lock: dict[str, Any], files: dict[str, Any]) -> list[str]:
    problems = _unknown("lock.", lock, ("path", "digest", "python"))
    problems += _text(lock, "lock", "python")
    path = str(lock.get("path") or "")
    if path not in files:
        problems.append(f"lock.path: {path!r} is not among the files")
    elif lock.get("digest") != files[path]:
        problems.append("lock.digest: is not the digest that files has for it")
    return problems


def _files(root: Path, files: dict[str, Any]) -> list[str]:
    problems = []
    present = set()
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            problems.append(f"files: {name} is a link")
        elif path.is_file():
            present.add(name)
        elif not path.is_dir():
            problems.append(f"files: {name} is a special file")
    present.discard(DESCRIPTOR)
    for name, expected in files.items():
        if not _below(name):
            problems.append(f"files.{name}: leaves the directory")
        elif name not in present:
            problems.append(f"files.{name}: there is no such file")
        elif expected != (found := _digest(root / name)):
            problems.append(f"files.{name}: is {found}, expected {expected}")
    problems += [f"files: {name} is not listed" for name in sorted(present - set(files))]
    return problems


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return f"sha256:{digest.hexdigest()}"


def _below(path: str) -> bool:
    return bool(path) and not path.startswith("/") and ".." not in path.split("/")
