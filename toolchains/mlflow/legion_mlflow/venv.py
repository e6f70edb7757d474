"""Builds a project's virtual environment with uv, once per content."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Mapping
from pathlib import Path

from legion_mlflow import causes
from legion_mlflow.interpreter import Interpreter
from legion_mlflow.protocol import Events, cache_directory
from legion_mlflow.refusal import ENVIRONMENT, TOOLCHAIN, Refusal
from legion_mlflow.requirements import Wanted

# pip's settings under uv's names. uv's own settings take precedence.
_FROM_PIP = {
    "PIP_INDEX_URL": "UV_DEFAULT_INDEX",
    "PIP_EXTRA_INDEX_URL": "UV_INDEX",
    "PIP_FIND_LINKS": "UV_FIND_LINKS",
    "PIP_CONSTRAINT": "UV_CONSTRAINT",
    "PIP_TRUSTED_HOST": "UV_INSECURE_HOST",
    "PIP_CERT": "SSL_CERT_FILE",
    "PIP_CLIENT_CERT": "SSL_CLIENT_CERT",
    "PIP_PROXY": "ALL_PROXY",
    "PIP_DEFAULT_TIMEOUT": "UV_HTTP_TIMEOUT",
}
# pip's settings that exist in uv only as command-line options.
_SWITCHES = {"PIP_NO_INDEX": "--no-index", "PIP_PRE": "--prerelease=allow"}
_LISTS = {"PIP_ONLY_BINARY": "--only-binary", "PIP_NO_BINARY": "--no-binary"}
# Settings for the origin of packages, and so for the versions in an environment.
_INDEX_SETTINGS = (
    *("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_INDEX_STRATEGY"),
    *("UV_CONSTRAINT", "UV_OVERRIDE", "UV_RESOLUTION", "UV_PRERELEASE", "UV_EXCLUDE_NEWER"),
    *_SWITCHES,
    *_LISTS,
)
# MLflow 2 accepts SQLAlchemy 2.1, but cannot open its SQL store with it.
_SQLALCHEMY_FOR_MLFLOW_2 = "sqlalchemy<2.1"
_FALSE = ("", "0", "false", "f", "no", "n", "off")


def find_uv() -> Path:
    """Returns the uv installed with this package, else the one on PATH."""
    try:
        from uv import find_uv_bin

        return Path(find_uv_bin())
    except (ImportError, FileNotFoundError):
        found = shutil.which("uv")
    if found is None:
        raise Refusal(
            "ToolchainBroken",
            "the project declares an environment, but uv is not installed to build it",
            "spec.image",
            "Use an image with uv, or set spec.arguments.environment to toolchain.",
            TOOLCHAIN,
        )
    return Path(found)


def uv_environment(env: Mapping[str, str]) -> dict[str, str]:
    """Returns the environment for uv: the user's `UV_*` settings, and pip's where uv has none."""
    result = dict(env)
    for theirs, ours in _FROM_PIP.items():
        if env.get(theirs) and not env.get(ours):
            # pip separates several places with spaces. In uv's list a path may contain spaces.
            result[ours] = ",".join(env[theirs].split()) if ours == "UV_FIND_LINKS" else env[theirs]
    if env.get("LEGION_CACHE") and not env.get("UV_CACHE_DIR"):
        result["UV_CACHE_DIR"] = str(Path(env["LEGION_CACHE"]) / "uv")
    result.pop("VIRTUAL_ENV", None)
    return result


def is_set(env: Mapping[str, str], name: str) -> bool:
    """Returns whether a switch is on, as pip and uv read it."""
    return env.get(name, "").lower() not in _FALSE


def may_download_python(env: Mapping[str, str]) -> bool:
    """Returns whether uv may download an interpreter."""
    return env.get("UV_PYTHON_DOWNLOADS", "") not in ("never", "manual") and not is_set(env, "UV_OFFLINE")


def options(env: Mapping[str, str]) -> list[str]:
    """Returns pip's settings as options of `uv pip install`."""
    switches = [option for name, option in _SWITCHES.items() if is_set(env, name)]
    lists = [f"{option}={part}" for name, option in _LISTS.items() for part in env.get(name, "").split(",") if part]
    return switches + lists


def prepare(
    wanted: Wanted,
    interpreter: Interpreter,
    wheels: Path | None,
    env: Mapping[str, str],
    uv: Path,
    own: Path,
    events: Events,
) -> Path:
    """Returns the directory of the wanted virtual environment, and builds it unless it already exists.

    `own` is a directory of this attempt alone.
    """
    settings = uv_environment(env)
    # Packages installed from the project's files belong to this attempt's copy of these files.
    cache = own if wanted.uses_project_files(settings) else cache_directory(env)
    final = cache / "environments" / _key(wanted, interpreter, wheels, settings)
    if (final / "bin" / "python").exists():
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    with final.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (final / "bin" / "python").exists():
            return final
        started = time.monotonic()
        events.progress(f"building the environment of {wanted.file.name} with Python {interpreter.version}")
        print(f"legion-mlflow: building the environment of {wanted.file.name}", file=sys.stderr, flush=True)
        # One name is enough, because the lock is held. This removes the rest of a killed attempt.
        building = final.with_suffix(".building")
        shutil.rmtree(building, ignore_errors=True)
        try:
            _build(building, wanted, interpreter, wheels, settings, uv)
            building.rename(final)
        finally:
            shutil.rmtree(building, ignore_errors=True)
        size = sum(f.stat().st_size for f in final.rglob("*") if f.is_file()) >> 20
        events.progress(f"built the environment in {time.monotonic() - started:.1f} s, {size} MiB")
    return final


def _key(wanted: Wanted, interpreter: Interpreter, wheels: Path | None, env: Mapping[str, str]) -> str:
    digest = hashlib.sha256()
    parts = [*wanted.content(env), str(interpreter.path).encode(), interpreter.version.encode()]
    parts += [sysconfig.get_platform().encode(), platform.libc_ver()[1].encode()]
    parts += [env.get(name, "").encode() for name in _INDEX_SETTINGS]
    if wheels is not None:
        # By content: a wheel that was built again may have the same name and the same size.
        parts += [p.name.encode() + hashlib.sha256(p.read_bytes()).digest() for p in _files(wheels)]
    for place in env.get("UV_FIND_LINKS", "").split(","):
        # These directories are outside the project, and may be large. A changed file has another time.
        directory = wanted.file.parent / place.removeprefix("file://")
        if place and directory.is_dir():
            parts += [f"{p.name} {p.stat().st_size} {p.stat().st_mtime_ns}".encode() for p in _files(directory)]
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()[:24]


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if path.is_file())


def _build(
    directory: Path,
    wanted: Wanted,
    interpreter: Interpreter,
    wheels: Path | None,
    env: Mapping[str, str],
    uv: Path,
) -> None:
    # Relocatable, because it is renamed when it is complete.
    _run([uv, "venv", "--quiet", "--relocatable", "--python", interpreter.path, directory], env, wanted)
    install = [uv, "pip", "install", "--quiet", "--python", directory / "bin" / "python", *options(env)]
    if wheels is not None:
        install += ["--find-links", wheels]
    if wanted.build:
        _run([*install, *wanted.build], env, wanted)
    if not wanted.packages:
        return
    # A file, so that lines like "-r requirements.txt" or "--extra-index-url ..." keep their meaning. It is beside the
    # project's file, because includes are relative to it.
    listing = wanted.file.parent / f".legion-requirements-{os.getpid()}.txt"
    try:
        listing.write_text("\n".join(wanted.packages) + "\n", encoding="utf-8")
        _run([*install, "--requirement", listing], env, wanted)
    finally:
        listing.unlink(missing_ok=True)
    if _has_old_mlflow_beside_new_sqlalchemy(directory):
        # The project does not ask for it, it only leaves it open. Without it, the file store works too.
        with contextlib.suppress(Refusal):
            _run([*install, _SQLALCHEMY_FOR_MLFLOW_2], env, wanted)


def _has_old_mlflow_beside_new_sqlalchemy(directory: Path) -> bool:
    ask = (
        "from importlib.metadata import version as v\n"
        "print(int(v('mlflow').split('.')[0]) < 3 and tuple(map(int, v('sqlalchemy').split('.')[:2])) >= (2, 1))"
    )
    asked = subprocess.run([directory / "bin" / "python", "-c", ask], capture_output=True, text=True)
    return asked.stdout.strip() == "True"


def _run(command: list[object], env: Mapping[str, str], wanted: Wanted) -> None:
    done = subprocess.run(
        [str(part) for part in command],
        env=dict(env),
        cwd=wanted.file.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode != 0:
        print(done.stdout, file=sys.stderr, flush=True)
        field, remedy = causes.of(done.stdout, wanted.file.name)
        raise Refusal(
            "EnvironmentFailed",
            f"the environment of {wanted.file.name} cannot be built. uv says: {causes.first_words(done.stdout)}",
            field,
            remedy,
            ENVIRONMENT,
        )
