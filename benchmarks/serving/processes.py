"""Processes of a server: start, the first answer, memory, CPU time, end."""

from __future__ import annotations

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


class StartFailure(Exception):
    """A server that does not answer, with the reason."""


@dataclass
class Running:
    """A server that was started, in a session of its own."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def members(self) -> list[tuple[int, list[str]]]:
        """Returns the ids of its processes with the fields of `/proc/PID/stat` from the state on."""
        found = []
        for entry in os.listdir("/proc"):
            if not entry.isdigit():
                continue
            try:
                stat = Path("/proc", entry, "stat").read_text()
            except OSError:
                continue
            # The name in parentheses may hold anything.
            fields = stat.rpartition(")")[2].split()
            if int(fields[3]) == self.process.pid:
                found.append((int(entry), fields))
        return found

    def cpu(self) -> float:
        """Returns the CPU seconds of its processes and of those that they waited for."""
        return sum(sum(map(int, fields[11:15])) for _, fields in self.members()) / TICKS

    def memory(self) -> tuple[int, float]:
        """Returns the number of its processes and their proportional set size in MB."""
        members = self.members()
        return len(members), sum(pss(pid) for pid, _ in members) / 1000

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
        deadline = time.monotonic() + START_LIMIT
        answer = "no connection"
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise StartFailure(f"it ended with {self.process.returncode}: {self.last_line()}")
            try:
                status, content = self.post(path, body or b"")
                if status == 200 or body is None:
                    return
                answer = f"{status} {content[:200]!r}"
            except (OSError, http.client.HTTPException) as error:
                answer = repr(error)
            time.sleep(0.02)
        raise StartFailure(f"no prediction after {START_LIMIT:.0f} s, but {answer}")

    def last_line(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1].strip()[:300] if lines else "its log is empty"

    def stop(self) -> None:
        """Ends it with SIGTERM, and with SIGKILL what is left of its session."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                pass
        # Workers may outlive their parent for a moment.
        for grace in (2.0, 0.0):
            until = time.monotonic() + grace
            while self.members() and time.monotonic() < until:
                self.process.poll()
                time.sleep(0.05)
        for pid, _ in self.members():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait(20)


def start(command: list[str], variables: dict[str, str], port: int, log: Path) -> Running:
    """Starts a server. Its environment is the same for all."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("LEGION_", "MLFLOW_"))}
    # Compiled files of the small apps are kept, as those of packages are.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    # `mlflow models serve` looks for uvicorn there.
    environment["PATH"] = os.pathsep.join([str(Path(command[0]).parent), environment.get("PATH", "")])
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
