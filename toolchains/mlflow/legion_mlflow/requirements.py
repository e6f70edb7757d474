"""The environment declared by a project: python_env.yaml, or conda.yaml converted as in MLflow."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from legion_mlflow.project import Project, read_mapping
from legion_mlflow.refusal import InvalidProject

# MLflow's own pattern. Only matching conda packages become part of the virtual environment.
_CONDA = re.compile(r"^(?P<package>python|pip|setuptools|wheel)(?P<operator><|>|<=|>=|=|==|!=)?(?P<version>[\d.]+)?$")
# A requirement by place, not by name: `./lib`, `-e .`, `file:lib.whl`, `lib @ ./lib`.
_PLACE = re.compile(r"^(?:-e|--editable|\.|/|file:|[^\s@;]+\s*@\s*(?:file:|\.|/))|\.(?:whl|tar\.gz|zip)(?:\s|$)")
# The fields of a python_env.yaml.
_PYTHON_ENV = ("python", "build_dependencies", "dependencies")
_INCLUDE = re.compile(r"^(?:-r|--requirement|-c|--constraint)[ =]*(.+)$")


@dataclass
class Wanted:
    """An environment as declared."""

    file: Path
    python: str | None = None
    build: list[str] = field(default_factory=list)
    packages: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)

    def content(self) -> list[bytes]:
        """Returns everything that decides what is installed: the file, and the files it includes."""
        return [self.file.read_bytes(), *(text.encode() for _, text in self._included())]

    def uses_project_files(self) -> bool:
        """Returns whether something is installed from files of this machine, not from the declaration alone."""
        lines = [line for _, text in self._included() for line in text.splitlines()]
        return any(
            _PLACE.search(line.strip()) and ("://" not in line or "file://" in line) for line in self.packages + lines
        )

    def _included(self) -> list[tuple[Path, str]]:
        """Returns the requirement and constraint files named by the packages, each once, with their text."""
        found: dict[Path, str] = {}
        pending = [(self.file.parent, line) for line in self.packages]
        while pending:
            base, line = pending.pop()
            match = _INCLUDE.match(line.strip())
            included = base / match.group(1).strip() if match else None
            if included is None or included in found or "://" in str(match.group(1)):
                continue
            try:
                found[included] = included.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise InvalidProject(
                    f"{self.file.name} includes {match.group(1)!r}, but this file cannot be read: "
                    f"{getattr(error, 'strerror', None) or error}",
                    remedy="Paths in requirements are relative to the file they are in.",
                ) from error
            pending.extend((included.parent, nested) for nested in found[included].splitlines())
        return sorted(found.items())


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
        match = _CONDA.match(str(entry))
        if isinstance(entry, dict):
            raise InvalidProject(f"{path.name} has the dependency {entry!r}: it is neither a name nor a pip section")
        if match is None:
            wanted.ignored.append(str(entry))
        elif match["package"] == "python" and not wanted.python:
            # With these four operators MLflow takes the named version.
            if match["version"] is None or match["operator"] not in ("=", "==", ">=", "<="):
                raise InvalidProject(
                    f"{path.name} asks for {entry!r}, but an environment has one version of Python",
                    remedy="Write it as python=3.11.",
                )
            wanted.python = match["version"].strip(".")
        else:
            operator = "==" if match["operator"] == "=" else match["operator"] or ""
            wanted.build.append(match["package"] + operator + (match["version"] or ""))
    return wanted
