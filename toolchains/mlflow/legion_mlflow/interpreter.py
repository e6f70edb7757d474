"""Finds a Python interpreter: the exact version or the same minor, never another minor."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from legion_mlflow import causes
from legion_mlflow.refusal import ENVIRONMENT, Refusal

_ASK = "import sys;print('%d.%d.%d' % sys.version_info[:3]);print(sys.executable)"


@dataclass
class Interpreter:
    """A Python interpreter with its version."""

    path: Path
    version: str

    @property
    def minor(self) -> str:
        """Major and minor version."""
        return ".".join(self.version.split(".")[:2])


def own() -> Interpreter:
    """Returns the interpreter of this process, without the virtual environment around it."""
    base = getattr(sys, "_base_executable", None) or sys.executable
    return Interpreter(Path(base), "{}.{}.{}".format(*sys.version_info[:3]))


def find(wanted: str | None, env: Mapping[str, str], uv: Path, where: str, may_download: bool) -> Interpreter:
    """Returns the interpreter for a wanted version: exact first, then the same minor, then a download if it is allowed.

    `where` requires it: a file of the project, or a field of the training.
    """
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
    managed = _managed(wanted, env, uv)
    if managed is not None:
        return managed
    help_with_download = ""
    if may_download:
        words = _download(wanted, env, uv)
        managed = _managed(wanted, env, uv)
        if managed is not None:
            return managed
        attempt = f". The download failed: {causes.first_words(words)}"
        field, remedy = causes.of(words, "")
        if field == "spec.env":
            help_with_download = f" To download it: {remedy}"
    else:
        attempt = ". Downloads are disabled"
    have = ", ".join(sorted({i.version for i in [*found, *_any_on_path(env)]}))
    raise Refusal(
        "PythonNotAvailable",
        f"{where} requires Python {wanted}, but only {have} is available{attempt}",
        where if where.startswith("spec.") else "spec.source",
        "Use a toolchain image with this version (spec.image), set spec.arguments.python to an available version, "
        f"or set spec.arguments.environment to toolchain.{help_with_download}",
        ENVIRONMENT,
    )


def _on_path(minor: str, env: Mapping[str, str]) -> list[Interpreter]:
    """Returns every interpreter of this machine with that minor. The one with the minor in its name comes first."""
    found = [i for i in (_ask(path, env) for path in _candidates(env, f"python{minor}", "python3", "python")) if i]
    return [i for i in found if i.minor == minor]


def _any_on_path(env: Mapping[str, str]) -> list[Interpreter]:
    return [i for i in (_ask(path, env) for path in _candidates(env, "python3", "python3.*", "python")) if i]


def _candidates(env: Mapping[str, str], *patterns: str) -> list[Path]:
    """Returns the programs with such names, each once, for any number of links to it.

    The directories are those of PATH, and then those of programs that install interpreters on a developer's machine.
    """
    directories = [*env.get("PATH", os.defpath).split(os.pathsep), *_installed(env)]
    found: dict[Path, Path] = {}
    for pattern in patterns:
        for directory in directories:
            for path in sorted(Path(directory or ".").glob(pattern)):
                version = path.name.replace("python3.", "")
                if (version == path.name or version.isdigit()) and os.access(path, os.X_OK):
                    # A shim is one program under many names. The name decides what it runs.
                    found.setdefault(path.resolve() if path.is_symlink() else path, path)
    return list(found.values())


def _installed(env: Mapping[str, str]) -> list[str]:
    """Returns the directories where the system, pyenv, uv, asdf and mise have interpreters, the newest version first.

    They are in the real home of the user: HOME is a directory of the attempt.
    """
    home = _home()
    places = [
        *((env.get("PYENV_ROOT") or str(home / ".pyenv"), "versions/*/bin"), (home, ".local/share/uv/python/*/bin")),
        *((home, ".asdf/installs/python/*/bin"), (home, ".local/share/mise/installs/python/*/bin")),
    ]
    found = [str(path) for root, pattern in places for path in sorted(Path(root).glob(pattern), key=_numbers)[::-1]]
    return [str(home / ".local/bin"), "/usr/local/bin", "/usr/bin", "/bin", *found]


def _numbers(path: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", path.parent.name)]


def _home() -> Path:
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return Path("/nonexistent")


def _ask(path: Path, env: Mapping[str, str]) -> Interpreter | None:
    try:
        answer = subprocess.run(
            [path, "-c", _ASK], capture_output=True, text=True, timeout=30, check=True, env=dict(env)
        )
    except (OSError, subprocess.SubprocessError):
        return None
    version, executable = answer.stdout.split("\n")[:2]
    return Interpreter(Path(executable), version)


def _download(wanted: str, env: Mapping[str, str], uv: Path) -> str:
    """Lets uv download an interpreter, and returns uv's words."""
    installed = subprocess.run([uv, "python", "install", wanted], capture_output=True, text=True, env=dict(env))
    return installed.stderr


def _managed(wanted: str, env: Mapping[str, str], uv: Path) -> Interpreter | None:
    """Returns an interpreter already downloaded by uv."""
    command = [uv, "python", "find", "--managed-python", "--no-python-downloads", wanted]
    found = subprocess.run(command, capture_output=True, text=True, env=dict(env))
    path = found.stdout.strip()
    return _ask(Path(path), env) if found.returncode == 0 and path else None
