"""Building a project's virtual environment with uv, once per content."""

from __future__ import annotations

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

from legion_mlflow.interpreter import Interpreter
from legion_mlflow.protocol import Events
from legion_mlflow.refusal import Refusal
from legion_mlflow.requirements import Wanted

# pip's settings under the names that uv reads; a setting of uv's own wins.
_FROM_PIP = {
    "PIP_INDEX_URL": "UV_DEFAULT_INDEX",
    "PIP_EXTRA_INDEX_URL": "UV_INDEX",
    "PIP_FIND_LINKS": "UV_FIND_LINKS",
    "PIP_CERT": "SSL_CERT_FILE",
}
_INDEX_SETTINGS = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS")


def find_uv() -> Path:
    """The uv that was installed with this package, else the one on PATH."""
    try:
        from uv import find_uv_bin

        return Path(find_uv_bin())
    except (ImportError, FileNotFoundError):
        found = shutil.which("uv")
    if found is None:
        raise Refusal(
            "ToolchainBroken",
            "the project declares an environment, and uv, which builds it, is not installed",
            "spec.image",
            "Use an image with uv, or set spec.arguments.environment to toolchain.",
        )
    return Path(found)


def uv_environment(env: Mapping[str, str]) -> dict[str, str]:
    """The environment for uv: the user's `UV_*` settings, and pip's where uv has none."""
    result = dict(env)
    for theirs, ours in _FROM_PIP.items():
        if env.get(theirs) and not env.get(ours):
            result[ours] = env[theirs]
    result.pop("VIRTUAL_ENV", None)
    return result


def cache_directory(env: Mapping[str, str]) -> Path:
    """Where environments are kept: below LEGION_MLFLOW_CACHE, else the user's cache directory."""
    if env.get("LEGION_MLFLOW_CACHE"):
        return Path(env["LEGION_MLFLOW_CACHE"])
    home = env.get("XDG_CACHE_HOME") or str(Path(env.get("HOME", "~")).expanduser() / ".cache")
    return Path(home) / "legion-mlflow"


def prepare(
    wanted: Wanted, interpreter: Interpreter, wheels: Path | None, env: Mapping[str, str], uv: Path, events: Events
) -> Path:
    """The directory of a virtual environment with everything that is wanted, built unless it is there already."""
    settings = uv_environment(env)
    final = cache_directory(env) / "environments" / _key(wanted, interpreter, wheels, settings)
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
        building = final.with_suffix(f".{os.getpid()}")
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
    parts = [*wanted.content(), str(interpreter.path).encode(), interpreter.version.encode()]
    parts += [sysconfig.get_platform().encode(), platform.libc_ver()[1].encode()]
    parts += [env.get(name, "").encode() for name in _INDEX_SETTINGS]
    if wheels is not None:
        parts += [f"{p.name} {p.stat().st_size}".encode() for p in sorted(wheels.iterdir())]
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()[:24]


def _build(
    directory: Path,
    wanted: Wanted,
    interpreter: Interpreter,
    wheels: Path | None,
    env: Mapping[str, str],
    uv: Path,
) -> None:
    # Relocatable, because it is renamed once it is whole.
    _run([uv, "venv", "--quiet", "--relocatable", "--python", interpreter.path, directory], env, wanted)
    install = [uv, "pip", "install", "--quiet", "--python", directory / "bin" / "python"]
    if wheels is not None:
        install += ["--find-links", wheels]
    if wanted.build:
        _run([*install, *wanted.build], env, wanted)
    if not wanted.packages:
        return
    # A file, so that lines like "-r requirements.txt" or "--extra-index-url ..." mean what they mean there. It lies
    # beside the project's file, because includes are relative to it.
    listing = wanted.file.parent / f".legion-requirements-{os.getpid()}.txt"
    try:
        listing.write_text("\n".join(wanted.packages) + "\n", encoding="utf-8")
        _run([*install, "--requirement", listing], env, wanted)
    finally:
        listing.unlink(missing_ok=True)


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
        raise Refusal(
            "EnvironmentFailed",
            f"the environment that {wanted.file.name} declares cannot be built. uv says: "
            + " ".join(done.stdout.split())[-700:],
            remedy=f"Correct {wanted.file.name} in the project's source; with a private index set UV_DEFAULT_INDEX in "
            "spec.env, without network put the wheels into the source and name them in spec.arguments.wheels.",
        )
