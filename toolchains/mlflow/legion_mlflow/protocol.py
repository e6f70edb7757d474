"""Legion's toolchain protocol, version 1: its input, and the two files of its output."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from legion_mlflow.refusal import TOOLCHAIN, Refusal

VERSION = 1
MAX_NAME = 250
MAX_VALUE = 8192
EXIT_REFUSED = 2


@dataclass
class Context:
    """The content of the protocol's environment variables and of the training document."""

    training: dict[str, Any]
    source: Path
    output: Path
    events: Path
    result: Path
    work: Path

    @classmethod
    def from_environment(cls, env: Mapping[str, str]) -> Context:
        """Reads the variables, and refuses with the name of a missing one."""

        def path(name: str) -> Path:
            value = env.get(name)
            if not value:
                raise Refusal(
                    "ProtocolError",
                    f"the environment variable {name} is not set",
                    remedy="Start legion-mlflow through Legion, or set the variables of the toolchain protocol.",
                    origin=TOOLCHAIN,
                )
            return Path(value)

        document = path("LEGION_TRAINING")
        try:
            training = json.loads(document.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise Refusal(
                "ProtocolError", f"the file of LEGION_TRAINING cannot be read: {error}", origin=TOOLCHAIN
            ) from error
        if training.get("protocol") != VERSION:
            raise Refusal(
                "ProtocolError",
                f"the training document has protocol {training.get('protocol')!r}, but this toolchain speaks {VERSION}",
                remedy="Use a toolchain image of the same release as the operator.",
                origin=TOOLCHAIN,
            )
        output = path("LEGION_OUTPUT")
        # The protocol does not promise a workspace. Without it, files of the attempt are beside the output.
        work = Path(env.get("LEGION_WORK") or output.parent)
        return cls(training, path("LEGION_SOURCE"), output, path("LEGION_EVENTS"), path("LEGION_RESULT"), work)

    def argument(self, name: str, default: Any = None) -> Any:
        """One of ``spec.arguments``."""
        value = self.training.get("arguments", {}).get(name)
        return default if value is None else value

    @property
    def hyper_parameters(self) -> dict[str, str]:
        """``spec.hyperParameters``."""
        return self.training.get("hyperParameters", {})

    @property
    def entrypoint(self) -> str:
        """``spec.entrypoint``, or ``main`` as in `mlflow run`."""
        return self.training.get("entrypoint") or "main"


def cache_directory(env: Mapping[str, str]) -> Path:
    """Returns the directory for replaceable files. It outlives the attempt if possible, else it is in the home."""
    if env.get("LEGION_CACHE"):
        return Path(env["LEGION_CACHE"])
    home = env.get("XDG_CACHE_HOME") or str(Path(env.get("HOME", "~")).expanduser() / ".cache")
    return Path(home) / "legion-mlflow"


def bounded(text: str, limit: int) -> str:
    """Cuts the text to `limit` bytes of UTF-8, at the boundary of a character."""
    raw = text.encode("utf-8", "replace")
    return text if len(raw) <= limit else raw[:limit].decode("utf-8", "ignore")


class Events:
    """The event stream. A line is in the file when its method returns."""

    def __init__(self, path: Path) -> None:
        # Append: a line is one write, so another writer of the same file cannot tear it.
        self._file = path.open("ab", buffering=0)

    def emit(self, kind: str, **fields: Any) -> None:
        """Appends one event without its fields that are None."""
        self.emit_all([{"type": kind, **fields}])

    def emit_all(self, events: list[dict[str, Any]]) -> None:
        """Appends events with one write per batch of lines."""
        lines = [json.dumps({k: v for k, v in event.items() if v is not None}, ensure_ascii=True) for event in events]
        for start in range(0, len(lines), 200):
            data = ("\n".join(lines[start : start + 200]) + "\n").encode()
            while data:
                data = data[self._file.write(data) :]

    def notice(self, reason: str, text: str) -> None:
        """Appends a message for the training's status."""
        self.emit("message", level="notice", reason=reason, text=text)

    def progress(self, text: str) -> None:
        """Appends a message to read while the training runs."""
        self.emit("message", level="info", text=text)


def metric_event(
    name: str, value: float, step: int, timestamp: int | None, child: str | None, dataset: str | None
) -> dict[str, Any]:
    """Returns a point of a series. The three values outside JSON become their names."""
    written: Any = value
    if not math.isfinite(value):
        written = "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return {
        "type": "metric",
        "name": bounded(name, MAX_NAME),
        "value": written,
        "step": step,
        "timestamp": timestamp,
        "child": child,
        "dataset": dataset,
    }


def pair_event(kind: str, name: str, value: str, child: str | None) -> dict[str, Any]:
    """Returns the event of a parameter or a tag."""
    return {
        "type": kind,
        "name": bounded(name, MAX_NAME),
        "value": bounded(value, MAX_VALUE),
        "child": child,
    }


def dataset_event(name: str, digest: str | None, source: str | None) -> dict[str, Any]:
    """Returns the event of a data set declared by the project."""
    bounded_source = bounded(source, MAX_VALUE) if source else None
    return {"type": "dataset", "name": bounded(name, MAX_NAME), "digest": digest or None, "source": bounded_source}


@dataclass
class Result:
    """The result document, filled during the run."""

    external: dict[str, Any] | None = None
    environment: dict[str, str] = field(default_factory=dict)
    model: dict[str, Any] | None = None
    files: list[dict[str, str]] = field(default_factory=list)
    notices: list[dict[str, str]] = field(default_factory=list)
    error: dict[str, str] | None = None

    def notice(self, reason: str, message: str) -> None:
        """Adds a remark on a run, also on a successful one."""
        self.notices.append({"reason": reason, "message": message})

    def write(self, path: Path) -> None:
        """Writes the document by rename: it is complete or absent."""
        document: dict[str, Any] = {"protocol": VERSION}
        for name in ("external", "environment", "model", "files", "notices", "error"):
            value = getattr(self, name)
            if value:
                document[name] = value
        temporary = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}")
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(document, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
