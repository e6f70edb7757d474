"""Load by wrk: what it sends, and what it reports."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).parent / "load.lua"
MARK = "FIGURES "


class LoadFailure(Exception):
    """A measurement that does not count, with the reason."""


@dataclass(frozen=True)
class Load:
    """Connections that each send the next request after the answer, and the rows of a request."""

    connections: int
    rows: int = 1

    @property
    def key(self) -> str:
        return f"c{self.connections}" if self.rows == 1 else f"{self.rows} rows c{self.connections}"


LOADS = (Load(1), Load(8), Load(64), Load(256), Load(1, 1000), Load(8, 1000))


@dataclass(frozen=True)
class Figures:
    """What wrk measured."""

    rate: float
    p50_ms: float
    p99_ms: float
    requests: int
    # Answers with a status above 399.
    refused: int


@dataclass(frozen=True)
class Target:
    """What is requested. Without a body it is a GET."""

    url: str
    body: Path | None = None
    # Answers with a status above 399 are what is wanted.
    is_refused: bool = False


def parse(output: str, is_refused: bool = False) -> Figures:
    """Returns the figures in wrk's output. Fails if an answer is missing or has the wrong status."""
    lines = [line for line in output.splitlines() if line.startswith(MARK)]
    if len(lines) != 1:
        raise LoadFailure(f"wrk printed no figures: {output.strip()[-200:]}")
    found = json.loads(lines[0].removeprefix(MARK))
    requests = found["requests"]
    if requests == 0 or found["microseconds"] == 0:
        raise LoadFailure("no request was answered")
    if found["socket"] or found["timeout"]:
        raise LoadFailure(f"{found['socket']} socket errors, {found['timeout']} timeouts in {requests} requests")
    wrong = requests - found["status"] if is_refused else found["status"]
    if wrong:
        raise LoadFailure(f"{wrong} of {requests} answers have the wrong status")
    return Figures(
        rate=requests / (found["microseconds"] / 1e6),
        p50_ms=found["p50"] / 1000,
        p99_ms=found["p99"] / 1000,
        requests=requests,
        refused=found["status"],
    )


def run(target: Target, connections: int, seconds: int) -> tuple[Figures, float]:
    """Sends requests for some seconds. Returns the figures and wrk's own CPU seconds."""
    environment = {key: value for key, value in os.environ.items() if key != "LOAD_BODY"}
    if target.body is not None:
        environment["LOAD_BODY"] = str(target.body)
    # One thread, so it takes no more than one core. Slow servers need seconds for an answer at 256 connections.
    command = ["wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s"]
    command += ["--timeout", "60s", "--script", str(SCRIPT), target.url]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise LoadFailure(f"wrk ended with {process.returncode}: {output.strip()[-200:]}")
    return parse(output, target.is_refused), usage.ru_utime + usage.ru_stime


def version() -> str:
    # It prints its version with a usage text, and exits with 1.
    done = subprocess.run(["wrk", "--version"], capture_output=True, text=True, check=False)
    words = (done.stdout + done.stderr).split()
    return words[1] if len(words) > 1 else "unknown"
