"""Where a project runs: in the toolchain's environment, or in one of its own."""

from __future__ import annotations

import getpass
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from legion_mlflow import interpreter, requirements, venv
from legion_mlflow.project import Project
from legion_mlflow.protocol import Context, Events
from legion_mlflow.refusal import Refusal


@dataclass
class Environment:
    """The two interpreters of a run. Nearly always they are the same."""

    # Runs MLflow's driver.
    driver: Path
    # First directory on PATH for the project's command.
    bin: Path
    # "toolchain" or "project", for status.
    source: str

    @property
    def is_own(self) -> bool:
        """Whether the driver may run in this very process."""
        return self.driver == Path(sys.executable)


def choose(project: Project, context: Context, env: Mapping[str, str], events: Events) -> Environment:
    """Follows `spec.arguments.environment`, and builds the project's environment if it asks for it."""
    mode = context.argument("environment", "auto")
    if mode == "project" and not project.declares_environment:
        raise Refusal(
            "NoProjectEnvironment",
            "spec.arguments.environment is 'project', but the project has neither python_env nor conda_env",
            "spec.arguments.environment",
            "Add a python_env.yaml to the project, or use auto or toolchain.",
        )
    own = Path(sys.executable)
    if mode == "toolchain" or not project.declares_environment:
        return Environment(own, own.parent, "toolchain")
    wanted = requirements.read(project)
    if wanted.ignored:
        events.notice(
            "CondaPackagesIgnored",
            "not installed, as by MLflow, which takes only Python and the pip section of a conda file. To have them, "
            f"name them in the pip section: {', '.join(wanted.ignored)}",
        )
    uv = venv.find_uv()
    where = "spec.arguments.python" if context.argument("python") else wanted.file.name
    python = context.argument("python") or wanted.python
    found = interpreter.find(python, venv.uv_environment(env), uv, where, venv.may_download_python(env))
    if python and found.version != python and python.count(".") == 2:
        events.notice(
            "OtherPythonPatch", f"Python {python} is not available. The project runs with {found.version}"
        )
    directory = venv.prepare(wanted, found, _wheels(project, context), env, uv, context.work, events)
    inside = directory / "bin" / "python"
    # A project may run without MLflow in its own environment. `mlflow run` then drives it from outside, and so do we.
    version = _mlflow_version(inside)
    if version.split(".")[0] in ("0", "1"):
        raise Refusal(
            "MlflowNotSupported",
            f"{wanted.file.name} installs MLflow {version}, which is not supported. Supported are MLflow 2 and 3",
            "spec.source",
            f"Require mlflow>=2.22 in {wanted.file.name}, or leave mlflow out: then the toolchain's MLflow is used.",
        )
    return Environment(inside if version else own, inside.parent, "project")


def _mlflow_version(python: Path) -> str:
    """Returns the version of MLflow that an interpreter imports, empty without one."""
    ask = (
        "import importlib.util\n"
        "from importlib.metadata import distributions\n"
        "found = [d.version for name in ('mlflow', 'mlflow-skinny') for d in distributions(name=name)]\n"
        "print((found or ['unknown'])[0] if importlib.util.find_spec('mlflow') else '')"
    )
    return subprocess.run([python, "-c", ask], capture_output=True, text=True).stdout.strip()


def _wheels(project: Project, context: Context) -> Path | None:
    named = context.argument("wheels")
    if not named:
        return None
    directory = (project.root / named).resolve()
    if not directory.is_relative_to(project.root.resolve()) or not directory.is_dir():
        raise Refusal(
            "InvalidArgument",
            f"spec.arguments.wheels is {named!r}, but this is not a directory of the project",
            "spec.arguments.wheels",
            "Name a directory with wheels, relative to the project.",
        )
    return directory


def command_environment(environment: Environment, env: Mapping[str, str]) -> dict[str, str]:
    """The environment variables of the driver and, through it, of the project's command."""
    result = dict(env)
    result["PATH"] = os.pathsep.join([str(environment.bin), env.get("PATH", os.defpath)])
    if environment.source == "project":
        result["VIRTUAL_ENV"] = str(environment.bin.parent)
    # With these variables of an outer run, MLflow would continue that run.
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "PYTHONHOME"):
        result.pop(name, None)
    # MLflow and many libraries ask for the user's name. They fail if the image does not know the cluster's user id.
    try:
        getpass.getuser()
    except (KeyError, OSError):
        result["LOGNAME"] = str(os.getuid())
    return result
