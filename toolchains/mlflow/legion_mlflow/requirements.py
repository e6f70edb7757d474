"""The environment declared by a project: python_env.yaml, or conda.yaml converted as in MLflow."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from legion_mlflow import places
from legion_mlflow.project import Project, read_mapping
from legion_mlflow.refusal import InvalidProject

# A conda package: channel, name, and the rest with version and build.
_CONDA = re.compile(r"^(?:[^\s\[\]]+::)?(?P<name>[A-Za-z0-9._-]+)\s*(?P<rest>.*)$")
# One condition on a version: an operator, a version that may end in a wildcard, and perhaps conda's build.
_CONDITION = re.compile(r"^(?P<operator>===?|[<>!~]=|[=<>])?\s*(?P<version>\d+(?:\.\d+)*)(?:\.?\*)?(?:=[\w.*]+)?$")
# The conda packages that MLflow takes over into a virtual environment, besides Python.
_BUILD_TOOLS = ("pip", "setuptools", "wheel")
# The fields of a python_env.yaml.
_PYTHON_ENV = ("python", "build_dependencies", "dependencies")
# Settings of uv whose value is a list of requirement files.
_FILES_OF_SETTINGS = ("UV_CONSTRAINT", "UV_OVERRIDE", "UV_EXCLUDE", "UV_BUILD_CONSTRAINT")
# Settings of uv whose value is a list of places of packages.
_PLACES_OF_SETTINGS = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL")


@dataclass
class Wanted:
    """An environment as declared."""

    file: Path
    python: str | None = None
    build: list[str] = field(default_factory=list)
    packages: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)

    def content(self, env: Mapping[str, str]) -> list[bytes]:
        """Returns everything that decides what is installed: the file, and all statements, with variables' values."""
        return [self.file.read_bytes(), *(statement.encode() for statement in self._statements(env))]

    def uses_project_files(self, env: Mapping[str, str]) -> bool:
        """Returns whether something is installed from files of this machine, not from the declaration alone.

        `env` has uv's settings. Packages come from the declaration, from the files that it includes, from the files
        and indexes of uv's settings, and from the places in the project's own settings for uv.
        """
        indexes = [place for name in _PLACES_OF_SETTINGS for place in env.get(name, "").split()]
        return (
            any(places.is_local(statement) for statement in self._statements(env))
            or not all(places.is_remote(place) for place in indexes)
            or self._has_settings_for_uv()
        )

    def _has_settings_for_uv(self) -> bool:
        """Returns whether uv reads settings in the project: they may name indexes, sources and constraints."""
        for directory in (self.file.parent, *self.file.parent.parents):
            if (directory / "uv.toml").is_file():
                return True
            project = directory / "pyproject.toml"
            if project.is_file() and b"[tool.uv" in project.read_bytes():
                return True
        return False

    def _statements(self, env: Mapping[str, str]) -> list[str]:
        """Returns the statements of the declaration and of every file that they include, each file once."""
        base = self.file.parent
        found = places.statements("\n".join(self.build + self.packages), env)
        pending = [(base, statement) for statement in found]
        named = [name for key in _FILES_OF_SETTINGS for name in env.get(key, "").split()]
        pending += [(base, f"-c {shlex.quote(name)}") for name in named]
        seen: set[Path] = set()
        while pending:
            directory, statement = pending.pop()
            name = places.included(statement)
            if name is None or "://" in name and not name.startswith("file://"):
                continue
            path = directory / name.removeprefix("file://")
            if path in seen:
                continue
            seen.add(path)
            try:
                nested = places.statements(places.read_requirements(path), env)
            except (OSError, UnicodeError) as error:
                raise InvalidProject(
                    f"{self.file.name} includes {name!r}, but this file cannot be read: "
                    f"{getattr(error, 'strerror', None) or error}",
                    remedy="Save it as UTF-8."
                    if isinstance(error, UnicodeError)
                    else "Paths in requirements are relative to the file they are in.",
                ) from error
            found += nested
            pending += [(path.parent, statement) for statement in nested]
        return found


def read(project: Project) -> Wanted:
    """Reads the environment declared by the project."""
    if project.python_env is not None:
        return _python_env(project.python_env)
    assert project.conda_env is not None, "called for projects that declare an environment"
    return _conda_env(project.conda_env)


def _python_env(path: Path) -> Wanted:
    document = read_mapping(path)
    unknown = sorted(str(name) for name in document if name not in _PYTHON_ENV)
    if unknown:
        raise InvalidProject(
            f"{path.name} has fields unknown to MLflow: {', '.join(unknown)}",
            remedy=f"It knows {', '.join(_PYTHON_ENV)}.",
        )
    python = document.get("python")
    if python is not None and not isinstance(python, str):
        raise InvalidProject(
            f"{path.name} has python: {python!r}, but YAML does not read this as text (3.10 becomes 3.1)",
            remedy='Quote it: python: "3.11".',
        )
    lists = {}
    for name in _PYTHON_ENV[1:]:
        lists[name] = document.get(name) or []
        if not isinstance(lists[name], list):
            raise InvalidProject(
                f"{path.name} has {name}: {lists[name]!r}, but this is not a list",
                remedy=f"Write {name} as a list with one requirement in each entry.",
            )
    build, packages = ([str(line) for line in lists[name]] for name in _PYTHON_ENV[1:])
    return Wanted(path, python or None, build, packages)


def _conda_env(path: Path) -> Wanted:
    """Converts as MLflow does: Python, build tools and the pip section count, other conda packages are left out."""
    wanted = Wanted(path)
    for entry in read_mapping(path).get("dependencies") or []:
        if isinstance(entry, dict) and "pip" in entry:
            wanted.packages = [str(line) for line in entry["pip"] or []]
            continue
        match = _CONDA.match(str(entry).strip())
        if isinstance(entry, dict):
            raise InvalidProject(f"{path.name} has the dependency {entry!r}: it is neither a name nor a pip section")
        if match is not None and match["name"] == "python":
            wanted.python = wanted.python or _one_version(path, str(entry), match["rest"])
            continue
        condition = _CONDITION.match(match["rest"].strip()) if match and match["rest"] else None
        if match is None or match["name"] not in _BUILD_TOOLS or (match["rest"] and condition is None):
            wanted.ignored.append(str(entry))
        elif condition is None:
            wanted.build.append(match["name"])
        else:
            operator, version = condition["operator"] or "=", condition["version"]
            # One sign means in conda what a wildcard means in pip, but MLflow takes the version itself.
            wildcard = ".*" if match["rest"].endswith("*") and operator in ("=", "==") else ""
            wanted.build.append(match["name"] + ("==" if operator == "=" else operator) + version + wildcard)
    return wanted


def _one_version(path: Path, entry: str, rest: str) -> str:
    """Returns the version of Python that a conda file asks for. Of a range it is the lower bound, as in MLflow."""
    first, *others = (_CONDITION.match(part.strip()) for part in rest.split(","))
    is_bound = all(other is not None and other["operator"] in ("<", "<=", "!=") for other in others)
    if first is None or not is_bound or (first["operator"] or "=") not in ("=", "==", ">=", "<=", "~="):
        raise InvalidProject(
            f"{path.name} asks for {entry!r}, but an environment has one version of Python",
            remedy="Write it as python=3.11.",
        )
    return first["version"]
