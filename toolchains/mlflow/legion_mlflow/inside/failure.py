"""What ended the run? The exception that ended the project's code, with the place in the project's own files."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from legion_mlflow.inside import ending
from legion_mlflow.protocol import Context, bounded
from legion_mlflow.refusal import CODE, Refusal

_EXPERIMENT = re.compile(
    r"Cannot start run with ID \S+ because active (?:run|experiment) ID\s+does not match environment run ID"
)
_RUN_NOT_FOUND = re.compile(r"(?:Run with id=|Run ')([0-9a-f]{32})'? not found|No run with id=([0-9a-f]{32}) exists")
_NO_MODULE = re.compile(r"ModuleNotFoundError: No module named '([^']+)'")
# A shell's words for a program that it does not find: bash's and dash's.
_NO_PROGRAM = re.compile(r"^[^:\n]+: (?:(?:line )?\d+: )?([^:\n]+): (?:command )?not found$", re.MULTILINE)
_EXIT_NO_PROGRAM = 127
_TRACE = "Traceback (most recent call last):"
# Exceptions that say only that another process failed.
_OF_ANOTHER_PROCESS = ("CalledProcessError", "ExecutionException", "ChildFailedError")
_LONGEST_MESSAGE = 900


@dataclass
class Raised:
    """The exception that ended the code."""

    type: str
    message: str
    # File and line in the project, as `train.py, line 3`. Empty if no frame is in the project.
    place: str

    def __str__(self) -> str:
        words = bounded(f"{self.type}: {self.message}" if self.message else self.type, _LONGEST_MESSAGE)
        return f"{words} ({self.place})" if self.place else words


class Recorder:
    """Lets the Python programs of the project's command record how they end."""

    def __init__(self, work: Path) -> None:
        self._directory = work / "ending"

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Within it, a Python program that this process starts records its end."""
        shutil.rmtree(self._directory, ignore_errors=True)
        self._directory.mkdir(parents=True)
        shutil.copyfile(ending.__file__, self._directory / "sitecustomize.py")
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join([str(self._directory), *([before] if before else [])])
        try:
            yield
        finally:
            if before is None:
                del os.environ["PYTHONPATH"]
            else:
                os.environ["PYTHONPATH"] = before

    def recorded(self) -> bool:
        """Returns whether a Python program of the command recorded its end: also one that raised nothing."""
        return (self._directory / ending.FILE).is_file()

    def raised(self, source: Path) -> Raised | None:
        """Returns the exception that ended the last Python program of the command."""
        try:
            record = json.loads((self._directory / ending.FILE).read_text(encoding="utf-8"))
            return None if record is None else Raised(record["type"], record["message"], _place(record, source))
        # The project's code can write there.
        except (OSError, ValueError, KeyError, TypeError):
            return None


def _place(record: dict[str, Any], source: Path) -> str:
    root = os.path.realpath(source)
    for file, line in reversed(record["frames"]):
        path = Path(os.path.realpath(file))
        if path.is_relative_to(root) and "site-packages" not in path.parts:
            return f"{path.relative_to(root)}, line {line}"
    return ""


def explain(recorder: Recorder, stderr: str, code: int, context: Context) -> dict[str, str] | None:
    """Returns the `error` of the result document for code that failed, or None if its exit code is all that is known.

    A program without a record is no Python program, or an isolated one. Then the last trace in its output counts.
    """
    raised = recorder.raised(context.source)
    last_trace = stderr.rpartition(_TRACE)[2] if _TRACE in stderr else ""
    text = str(raised) if raised else ""
    if raised is None and not recorder.recorded():
        text = last_trace
    elif raised is not None and raised.type.rpartition(".")[2] in _OF_ANOTHER_PROCESS:
        text = f"{text}\n{last_trace}"
    known = _mistake_with_mlflow(text) or _missing_module(text, raised, context)
    if known is None and raised is not None:
        known = Refusal("ExceptionRaised", str(raised), "spec.source", origin=CODE)
    elif known is None and code == _EXIT_NO_PROGRAM:
        known = _missing_program(stderr)
    return known.document() if known else None


def _mistake_with_mlflow(text: str) -> Refusal | None:
    """Explains mistakes with obscure messages in MLflow."""
    if _EXPERIMENT.search(text):
        return Refusal(
            "SetExperimentInProject",
            "the project calls mlflow.set_experiment() with another experiment than the run's",
            "spec.arguments.experiment",
            "Remove the call and name the experiment in spec.arguments.experiment.",
            CODE,
        )
    if _RUN_NOT_FOUND.search(text):
        return Refusal(
            "SetTrackingUriInProject",
            "MLflow did not find the run created for this training. The project seems to call "
            "mlflow.set_tracking_uri()",
            "spec.env",
            "Remove the call. For a tracking server set MLFLOW_TRACKING_URI in spec.env.",
            CODE,
        )
    return None


def _missing_module(text: str, raised: Raised | None, context: Context) -> Refusal | None:
    missing = _NO_MODULE.search(text)
    if not missing:
        return None
    place = f" ({raised.place})" if raised and raised.place else ""
    return Refusal(
        "ModuleMissing",
        f"ModuleNotFoundError: No module named {missing.group(1)!r}{place}: it is not in the environment of this run",
        "spec.source",
        "Declare the project's requirements in a python_env.yaml beside its MLproject, or use an image "
        "with this module (spec.image). The environment was chosen by spec.arguments.environment: "
        f"{context.argument('environment', 'auto')}.",
        CODE,
    )


def _missing_program(stderr: str) -> Refusal | None:
    """Explains a command that the shell did not find: `Rscript` of a project in R, or a tool in a script."""
    missing = _NO_PROGRAM.findall(stderr)
    if not missing:
        return None
    return Refusal(
        "ProgramMissing",
        f"the project's command needs the program {missing[-1]!r}, which is not on PATH in the image of this run",
        "spec.image",
        "Use an image that has legion-mlflow and this program, or correct the name in the project.",
        CODE,
    )
