"""Processes of a server: start, the first answer, memory, CPU time, end."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from machine import TICKS

START_LIMIT = 180.0
# Seconds of wrong answers, after which they stay wrong.
WRONG_LIMIT = 30.0
# OpenMP's threads wait for one another in busy loops. On cores that a server and wrk use too, a prediction of XGBoost
# takes many times as long with two threads as with one. All servers get one, so that this does not decide the figures.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# Fields of /proc/PID/stat, counted from the state.
STATE, PARENT, SESSION, START_TIME = 0, 1, 3, 19


class StartFailure(Exception):
    """A server that does not answer, with the reason."""


@dataclass
class Running:
    """A server that was started, in a session of its own."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def members(self) -> dict[int, list[str]]:
        """Returns its processes: their ids with the fields of `/proc/PID/stat` from the state on.

        They are those below the first one and in the sessions of these. BentoML starts its workers in other sessions.
        """
        return family(self.process.pid, everything())

    def cpu(self) -> float:
        """Returns the CPU seconds of its processes and of those that they waited for."""
        return sum(sum(map(int, fields[11:15])) for fields in self.members().values()) / TICKS

    def memory(self) -> tuple[int, float]:
        """Returns the number of its processes and their proportional set size in MB."""
        members = self.members()
        return len(members), sum(map(pss, members)) / 1000

    def post(self, path: str, body: bytes, timeout: float = 60) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def wait(self, path: str, body: bytes | None) -> None:
        """Waits for the first prediction, or without a body for the first connection."""
        began = time.monotonic()
        deadline = began + START_LIMIT
        answer = "no connection"
        is_answering = False
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise StartFailure(f"it ended with {self.process.returncode}: {self.last_line()}")
            try:
                status, content = self.post(path, body or b"")
                if status == 200 or body is None:
                    return
                answer = f"{status} {content[:200]!r}"
                if not is_answering:
                    is_answering, deadline = True, min(deadline, time.monotonic() + WRONG_LIMIT)
            except (OSError, http.client.HTTPException) as error:
                answer = repr(error)
            time.sleep(0.02)
        raise StartFailure(f"no prediction after {time.monotonic() - began:.0f} s, but {answer}")

    def last_line(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1].strip()[:300] if lines else "its log is empty"

    def stop(self) -> None:
        """Ends it with SIGTERM, and with SIGKILL what is left of it after a while."""
        # A process without a parent is not found later. Another one with the same id has another start.
        known = {pid: fields[START_TIME] for pid, fields in self.members().items()}
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(20)
        until = time.monotonic() + 2
        while (left := alive(known)) and time.monotonic() < until:
            self.process.poll()
            time.sleep(0.05)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(20)
        while alive(known) and time.monotonic() < until + 20:
            time.sleep(0.01)


def everything() -> dict[int, list[str]]:
    """Returns all processes of the machine with the fields of `/proc/PID/stat` from the state on."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                stat = (entry / "stat").read_text()
                # The name in parentheses may hold anything.
                found[int(entry.name)] = stat.rpartition(")")[2].split()
    return found


def family(root: int, processes: dict[int, list[str]]) -> dict[int, list[str]]:
    """Returns the processes below `root`, and those in the sessions that they lead."""
    members = {pid for pid in processes if pid == root}
    while True:
        more = {
            pid
            for pid, fields in processes.items()
            if pid not in members and (int(fields[PARENT]) in members or int(fields[SESSION]) in members)
        }
        if not more:
            return {pid: processes[pid] for pid in members}
        members |= more


def alive(known: dict[int, str]) -> list[int]:
    """Returns those of the known processes that still run."""
    now = everything()
    return [
        pid
        for pid, started in known.items()
        if pid in now and now[pid][START_TIME] == started and now[pid][STATE] != "Z"
    ]


def start(command: list[str], variables: dict[str, str], port: int, log: Path) -> Running:
    """Starts a server. Its environment is the same for all."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("LEGION_", "MLFLOW_"))}
    # Compiled files of the small apps are kept, as those of packages are.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    # `mlflow models serve` looks for uvicorn there.
    environment["PATH"] = os.pathsep.join([str(Path(command[0]).parent), environment.get("PATH", "")])
    environment |= dict.fromkeys(THREADS, "1")
    environment |= {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1"}
    environment |= variables
    output: BinaryIO
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env=environment,
            cwd=log.parent,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    return Running(process, port, log)


def pss(pid: int) -> int:
    """Returns the proportional set size of a process in kB. 0 if it has ended."""
    try:
        text = Path("/proc", str(pid), "smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")), 0)
