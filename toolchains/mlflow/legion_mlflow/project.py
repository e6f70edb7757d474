"""The MLproject file: which entry points and which environment a project declares."""

from __future__ import annotations

import posixpath
import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from legion_mlflow.protocol import MAX_NAME, Context, Events
from legion_mlflow.refusal import InvalidProject, Refusal

# Files that MLflow runs as an entry point without an MLproject.
SCRIPT_SUFFIXES = (".py", ".sh", ".R")
ENVIRONMENT_KEYS = ("python_env", "conda_env", "docker_env")
# As MLflow's own `is_uri`: a scheme of more than one letter.
_URI = re.compile(r"^[A-Za-z][A-Za-z0-9+.\-]+:")


@dataclass
class Parameter:
    """A declared parameter of an entry point."""

    kind: str = "string"
    default: Any = None


@dataclass
class Project:
    """The parts of a project that this toolchain needs."""

    root: Path
    file: Path | None = None
    entry_points: dict[str, dict[str, Parameter]] = field(default_factory=dict)
    commands: dict[str, Any] = field(default_factory=dict)
    python_env: Path | None = None
    conda_env: Path | None = None
    docker: bool = False

    @property
    def declares_environment(self) -> bool:
        """Whether the project asks for an environment of its own."""
        return self.python_env is not None or self.conda_env is not None


def load(root: Path) -> Project:
    """Reads the MLproject, found as MLflow finds it: in any capitalization."""
    found = sorted(p for p in root.iterdir() if p.name.lower() == "mlproject" and p.is_file())
    project = Project(root, found[0] if found else None)
    document = read_mapping(project.file) if project.file else {}
    declared = [key for key in ENVIRONMENT_KEYS if document.get(key)]
    if len(declared) > 1:
        raise InvalidProject(
            f"{project.file.name} declares {' and '.join(declared)}, but a project has one environment",
            remedy="Keep one of them.",
        )
    for name, entry in _mapping(project, "entry_points", document.get("entry_points")).items():
        where = f"entry_points.{name}"
        entry = _mapping(project, where, entry or "nothing")
        project.entry_points[str(name)] = _parameters(project, where, entry)
        project.commands[str(name)] = entry.get("command")
    project.docker = "docker_env" in declared
    project.python_env = _environment_file(root, document, "python_env", "python_env.yaml")
    if project.python_env is None:
        project.conda_env = _environment_file(root, document, "conda_env", "conda.yaml")
    if declared == ["conda_env"]:
        # A default python_env.yaml does not override a named conda environment.
        project.python_env = None
        project.conda_env = _environment_file(root, document, "conda_env", "conda.yaml")
    return project


def read_mapping(path: Path) -> dict[str, Any]:
    """Returns the mapping in a YAML file of the project."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidProject(f"{path.name} cannot be read: {error}") from error
    if not isinstance(document, dict):
        what = "is empty" if document is None else "is not a mapping"
        raise InvalidProject(f"{path.name} {what}")
    return document


def _mapping(project: Project, field_name: str, value: Any) -> dict[Any, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        assert project.file is not None, "fields come from a file"
        raise InvalidProject(f"{project.file.name} has {field_name}: {value!r}, but this is not a mapping")
    return value


def _parameters(project: Project, where: str, entry: dict[str, Any]) -> dict[str, Parameter]:
    parameters = {}
    for name, value in _mapping(project, f"{where}.parameters", entry.get("parameters")).items():
        if isinstance(value, dict):
            parameters[str(name)] = Parameter(str(value.get("type", "string")), value.get("default"))
        else:
            parameters[str(name)] = Parameter(str(value))
    return parameters


def _environment_file(root: Path, document: dict[str, Any], key: str, default: str) -> Path | None:
    named = document.get(key)
    if named:
        path = root / str(named)
        if not path.is_file():
            raise InvalidProject(f"MLproject names the {key} {named!r}, but there is no such file")
        return path
    if any(document.get(other) for other in ENVIRONMENT_KEYS):
        return None
    path = root / default
    return path if path.is_file() else None


def check(project: Project, context: Context, events: Events) -> None:
    """Refuses a training that cannot run, before an environment is built for it."""
    if context.training.get("args"):
        raise Refusal(
            "ArgsNotSupported",
            f"spec.args is {context.training['args']!r}, but an MLflow entry point takes only parameters",
            "spec.args",
            "Use spec.hyperParameters.",
        )
    if project.docker:
        raise Refusal(
            "DockerNotSupported",
            "the project declares docker_env, but a training runs in the toolchain's image",
            "spec.image",
            "Remove docker_env from MLproject and name its image in spec.image (it needs legion-mlflow), "
            "or declare a python_env.",
        )
    parameters = _entry_point(project, context.entrypoint)
    given = context.hyper_parameters
    for name, value in given.items():
        _check_name(name)
        if name in parameters:
            _check_value(project, name, parameters[name].kind, value)
        elif project.entry_points.get(context.entrypoint) is not None:
            events.notice(
                "UndeclaredParameter",
                f"the entry point {context.entrypoint!r} does not declare the hyperparameter {name!r}. "
                f"It is passed on as --{name}",
            )
    missing = [name for name, p in parameters.items() if p.default is None and name not in given]
    if missing:
        raise Refusal(
            "MissingParameter",
            f"the entry point {context.entrypoint!r} needs {', '.join(missing)}: there is no default",
            f"spec.hyperParameters.{missing[0]}",
            "Set it there.",
        )


def _entry_point(project: Project, name: str) -> dict[str, Parameter]:
    if name in project.entry_points:
        if not isinstance(project.commands[name], str):
            raise InvalidProject(
                f"MLproject has entry_points.{name}.command: {project.commands[name]!r}, but this is not text",
                remedy='Write the entry point\'s command there: command: "python train.py".',
            )
        return project.entry_points[name]
    scripts = sorted(p.name for p in project.root.iterdir() if p.suffix in SCRIPT_SUFFIXES and p.is_file())
    inside = (project.root / name).resolve().is_relative_to(project.root.resolve())
    if name.endswith(SCRIPT_SUFFIXES) and inside and (project.root / name).is_file():
        return {}
    known = (
        ", ".join(list(project.entry_points) + scripts) or "none: the directory has neither MLproject nor script"
    )
    raise Refusal(
        "UnknownEntryPoint",
        f"the project has no entry point {name!r}. It has: {known}",
        "spec.entrypoint",
        "Name one of these, or check spec.workDir if the project lies in a subdirectory.",
    )


def _check_name(name: str) -> None:
    """Refuses a name that MLflow cannot log: it would fail the run with the name of a field of its own."""
    wrong = next((character for character in name if not re.match(r"[/\w.\- :]", character)), None)
    if wrong is not None:
        problem = f"has the character {wrong!r} ({unicodedata.name(wrong, 'without a name')})"
    elif posixpath.normpath(name) != name or name.startswith(("/", "..")) or name == ".":
        problem = "is not a plain path: it begins with '/' or '..', or has an empty part"
    elif len(name) > MAX_NAME:
        problem = f"has {len(name)} characters"
    else:
        return
    raise Refusal(
        "InvalidHyperParameter",
        f"the hyperparameter {name!r} {problem}, and MLflow cannot log such a name",
        f"spec.hyperParameters.{name}",
        "Use letters, digits, '_', '-', '.', ':', ' ' and '/' between parts, at most 250 characters. Write a letter "
        "with an accent as one character.",
    )


def _check_value(project: Project, name: str, kind: str, value: str) -> None:
    problem = None
    if kind == "float":
        problem = None if _is(float, value) else "a float"
    elif kind == "int":
        problem = None if _is(int, value) else "an int"
    elif kind == "uri":
        problem = None if _URI.match(value) else "a uri"
    elif kind == "path" and not _URI.match(value) and not (project.root / value).exists():
        problem = "a path that exists (relative to the project) or a uri"
    if problem:
        raise Refusal(
            "InvalidHyperParameter",
            f"the hyperparameter {name!r} is {value!r}, but the project declares {problem}",
            f"spec.hyperParameters.{name}",
            f"Set it to {problem}.",
        )


def _is(convert: type, value: str) -> bool:
    try:
        convert(value)
    except ValueError:
        return False
    return True
