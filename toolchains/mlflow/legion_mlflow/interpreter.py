"""Finding a Python interpreter: the exact version, or the same minor; never another minor silently."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from shutil import which

from legion_mlflow.refusal import Refusal

_ASK = "import sys;print('%d.%d.%d' % sys.version_info[:3]);print(sys.executable)"


@dataclass
class Interpreter:
    """A Python that was asked for its version."""

    path: Path
    version: str

    @property
    def minor(self) -> str:
        """The version without its last number."""
        return ".".join(self.version.split(".")[:2])


def own() -> Interpreter:
    """The interpreter that runs this code, without the virtual environment around it."""
    base = getattr(sys, "_base_executable", None) or sys.executable
    return Interpreter(Path(base), "{}.{}.{}".format(*sys.version_info[:3]))


def find(wanted: str | None, env: Mapping[str, str], uv: Path, field: str) -> Interpreter:
    """The interpreter for a wanted version: exact first, then the same minor, then a download where it is allowed."""
    toolchain = own()
    if not wanted or wanted in (toolchain.version, toolchain.minor):
        return toolchain
    minor = ".".join(wanted.split(".")[:2])
    found = [toolchain, *_on_path(minor, env)]
    for interpreter in found:
        if interpreter.version == wanted:
            return interpreter
    for interpreter in found:
        if interpreter.minor == minor:
            return interpreter
    if env.get("UV_PYTHON_DOWNLOADS", "") not in ("never", "manual") and not env.get("UV_OFFLINE"):
        downloaded = _download(wanted, env, uv)
        if isinstance(downloaded, Interpreter):
            return downloaded
        attempt = f"; downloading it failed: {downloaded}"
    else:
        attempt = "; downloading it is switched off"
    have = ", ".join(sorted({i.version for i in [*found, *_any_on_path(env)]}))
    raise Refusal(
        "PythonNotAvailable",
        f"the project wants Python {wanted}, and there is {have}{attempt}",
        field,
        "Use a toolchain image that has it (spec.image), set spec.arguments.python to a version that is there, or "
        "spec.arguments.environment to toolchain.",
    )


def _on_path(minor: str, env: Mapping[str, str]) -> list[Interpreter]:
    names = (f"python{minor}", "python3", "python")
    return [i for i in (_ask(name, env) for name in names) if i is not None]


def _any_on_path(env: Mapping[str, str]) -> list[Interpreter]:
    found = []
    for directory in env.get("PATH", os.defpath).split(os.pathsep):
        for candidate in sorted(Path(directory or ".").glob("python3.*")):
            if candidate.name.replace("python3.", "").isdigit():
                interpreter = _ask(str(candidate), env)
                if interpreter is not None:
                    found.append(interpreter)
    return found


def _ask(name: str, env: Mapping[str, str]) -> Interpreter | None:
    path = which(name, path=env.get("PATH"))
    if path is None:
        return None
    try:
        answer = subprocess.run(
            [path, "-c", _ASK], capture_output=True, text=True, timeout=30, check=True, env=dict(env)
        )
    except (OSError, subprocess.SubprocessError):
        return None
    version, executable = answer.stdout.split("\n")[:2]
    return Interpreter(Path(executable), version)


def _download(wanted: str, env: Mapping[str, str], uv: Path) -> Interpreter | str:
    """The downloaded interpreter, or uv's words about why there is none."""
    installed = subprocess.run([uv, "python", "install", wanted], capture_output=True, text=True, env=dict(env))
    if installed.returncode != 0:
        return " ".join(installed.stderr.split())[-400:]
    located = subprocess.run(
        [uv, "python", "find", "--managed-python", wanted], capture_output=True, text=True, env=dict(env)
    )
    path = Path(located.stdout.strip())
    return _ask(str(path), env) or f"{path} does not run"
