"""What a project's environment file asks for: python_env.yaml, or conda.yaml as MLflow converts it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from legion_mlflow.project import Project
from legion_mlflow.refusal import Refusal

_CONDA_PYTHON = re.compile(r"^python\s*(?:(==|=|>=|<=|>|<|!=)\s*([0-9][0-9.]*)\*?)?$")
# What conda itself brings; a virtual environment has them or needs them for building only.
_BUILD_TOOLS = ("pip", "setuptools", "wheel")
_INCLUDE = re.compile(r"^(?:-r|--requirement|-c|--constraint)[ =]*(.+)$")


@dataclass
class Wanted:
    """An environment as it is declared."""

    file: Path
    python: str | None = None
    build: list[str] = field(default_factory=list)
    packages: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)

    def content(self) -> list[bytes]:
        """Everything that decides what is installed: the file, and the files it includes."""
        parts = [self.file.read_bytes()]
        pending, seen = [(self.file.parent, line) for line in self.packages], set()
        while pending:
            base, line = pending.pop()
            match = _INCLUDE.match(line.strip())
            if not match:
                continue
            included = base / match.group(1).strip()
            if included in seen:
                continue
            seen.add(included)
            try:
                text = included.read_text(encoding="utf-8")
            except OSError as error:
                raise Refusal(
                    "InvalidProject",
                    f"{self.file.name} includes {match.group(1)!r}, which cannot be read: {error.strerror}",
                ) from error
            parts.append(text.encode())
            pending.extend((included.parent, nested) for nested in text.splitlines())
        return parts


def read(project: Project) -> Wanted:
    """Reads the environment that the project declares."""
    if project.python_env is not None:
        return _python_env(project.python_env)
    assert project.conda_env is not None, "called for projects that declare an environment"
    return _conda_env(project.conda_env)


def _load(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Refusal("InvalidProject", f"{path.name} cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise Refusal("InvalidProject", f"{path.name} is not a mapping")
    return document


def _python_env(path: Path) -> Wanted:
    document = _load(path)
    python = document.get("python")
    if isinstance(python, float):
        raise Refusal(
            "InvalidProject",
            f"{path.name} has python: {python}, which YAML reads as a number (3.10 becomes 3.1)",
            remedy='Quote it: python: "3.11".',
        )
    return Wanted(
        path,
        str(python) if python else None,
        [str(line) for line in document.get("build_dependencies") or []],
        [str(line) for line in document.get("dependencies") or []],
    )


def _conda_env(path: Path) -> Wanted:
    """MLflow's conversion: the Python version and the pip section count, other conda packages are left out."""
    wanted = Wanted(path)
    for entry in _load(path).get("dependencies") or []:
        if isinstance(entry, dict):
            wanted.packages += [str(line) for line in entry.get("pip") or []]
            continue
        text = str(entry).strip()
        name = re.split(r"[\s=<>!\[]", text, maxsplit=1)[0]
        match = _CONDA_PYTHON.match(text)
        if match:
            operator, version = match.groups()
            if version and operator not in ("=", "=="):
                raise Refusal(
                    "InvalidProject",
                    f"{path.name} asks for {text!r}, and an environment is made for one version of Python",
                    remedy='Write it as "python=3.11".',
                )
            wanted.python = version.rstrip(".") if version else None
        elif name in _BUILD_TOOLS:
            version = re.split(r"==?", text)
            wanted.build.append(f"{name}=={version[-1]}" if len(version) > 1 else text)
        else:
            wanted.ignored.append(text)
    return wanted
