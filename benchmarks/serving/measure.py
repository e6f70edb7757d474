"""The order of a run: starts, memory, interleaved rounds, the front beside a bare echo."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import machine
import processes
from figures import Sample, Samples
from load import LOADS, Load, LoadFailure, Target
from load import run as run_load
from processes import Running, StartFailure
from servers import Place, Server, free_port, predictions

# Cores that others may use during a repetition.
FOREIGN_LIMIT = 0.10
# What legion-server logs when a process calls the library with arrays.
RAW_LINE = "the model takes arrays"
# The servers by hand and the bare echo, as rows of the front's table.
FRONT_LOADS = (Load(1), Load(64))
# Pairs of a request that the front answers alone and the same request to the bare echo.
FRONT_PAIRS = {
    "health": "GET /v2/health/live",
    "refused": "POST /invocations, a row with a text in place of its last number (400)",
}


@dataclass(frozen=True)
class Options:
    rounds: int
    seconds: int
    starts: int
    attempts: int
    # Seconds to wait for a quiet machine before a repetition.
    patience: float


@dataclass
class Start:
    """What the starts of a server have shown."""

    seconds: list[float] = field(default_factory=list)
    processes: int = 0
    idle_mb: float = 0.0
    loaded_mb: float = 0.0


@dataclass(frozen=True)
class Prepared:
    """A server with its environment and model."""

    server: Server
    python: Path
    directory: Path


class Run:
    """A run, and everything that it has found."""

    def __init__(self, options: Options, legion_server: Path, echo: Path, work: Path) -> None:
        self.options = options
        self.legion_server = legion_server
        self.echo = echo
        self.work = work
        self.samples = Samples()
        self.front = Samples()
        self.starts: dict[tuple[str, str], Start] = {}
        # Rows that failed, by model and server.
        self.failed: dict[tuple[str, str], str] = {}

    def model(self, model: str, prepared: list[Prepared]) -> None:
        """Measures all servers with one model."""
        for index in range(self.options.starts):
            for one in prepared:
                self.attempt(model, one, partial(self.start_alone, model, one, index == 0))
        running: list[tuple[Prepared, Running]] = []
        try:
            for one in self.alive(model, prepared):
                self.attempt(model, one, partial(self.keep, one, running))
            for one, process in running:
                self.attempt(model, one, partial(self.warm_up, one, process))
            for index in range(self.options.rounds):
                self.round(model, index, running)
            for one, process in running:
                self.attempt(model, one, partial(check, one, process))
        finally:
            for _, process in running:
                process.stop()

    def alive(self, model: str, prepared: list[Prepared]) -> list[Prepared]:
        return [one for one in prepared if (model, one.server.key) not in self.failed]

    def attempt(self, model: str, one: Prepared, action: Callable[[], object]) -> None:
        """Does something with a server. A failure ends its row, not the run."""
        key = (model, one.server.key)
        if key in self.failed:
            return
        try:
            action()
        except (StartFailure, LoadFailure, OSError, ValueError, KeyError) as error:
            self.failed[key] = str(error) or repr(error)
            self.samples.drop(*key)
            say(f"{model}, {one.server.key}: FAILED: {self.failed[key]}")

    def start(self, one: Prepared) -> tuple[Running, float]:
        """Starts a server. Returns it with the seconds until its first prediction."""
        work = self.work / f"{one.directory.name}-{one.server.key}"
        work.mkdir(parents=True, exist_ok=True)
        place = Place(
            python=one.python,
            legion_server=self.legion_server,
            model=one.directory / "model",
            raw=one.directory / "raw",
            work=work,
            port=free_port(),
        )
        command, variables = one.server.start(place)
        began = machine.cpu().at
        running = processes.start(command, variables, place.port, work / "log")
        try:
            running.wait(one.server.path, body(one, 1).read_bytes())
            if one.server.key == "legion-raw" and RAW_LINE not in running.log.read_text(errors="replace"):
                raise StartFailure("it does not use arrays: its predictions differ, or the model has no sample")
        except BaseException:
            running.stop()
            raise
        return running, machine.cpu().at - began

    def keep(self, one: Prepared, running: list[tuple[Prepared, Running]]) -> None:
        running.append((one, self.start(one)[0]))

    def start_alone(self, model: str, one: Prepared, with_memory: bool) -> None:
        """Measures a start, and memory. Nothing else runs, so no pages are shared with other servers."""
        machine.settle(self.options.patience, FOREIGN_LIMIT)
        running, seconds = self.start(one)
        found = self.starts.setdefault((model, one.server.key), Start())
        found.seconds.append(seconds)
        try:
            if with_memory:
                check(one, running)
                found.processes, found.idle_mb = running.memory()
                for load in (Load(64), Load(8, 1000)):
                    run_load(target(one, running, load), load.connections, self.options.seconds)
                found.loaded_mb = running.memory()[1]
        finally:
            running.stop()
        say(f"{model}, {one.server.key}: ready after {seconds:.1f} s")

    def warm_up(self, one: Prepared, running: Running) -> None:
        check(one, running)
        for load in (Load(8), Load(1, 1000)):
            run_load(target(one, running, load), load.connections, min(2, self.options.seconds))

    def round(self, model: str, index: int, running: list[tuple[Prepared, Running]]) -> None:
        """Measures each load with each server. Every round begins with another server."""
        first = index % max(1, len(running))
        for load in LOADS:
            for one, process in running[first:] + running[:first]:
                name = (model, one.server.key, load.key, index)
                to = target(one, process, load)
                self.attempt(model, one, partial(self.repeat, self.samples, name, process, to, load))

    def repeat(
        self, samples: Samples, name: tuple[str, str, str, int], process: Running, to: Target, load: Load
    ) -> None:
        """Measures one repetition, and again beside too much other work."""
        model, server, key, index = name
        for attempt in range(1, self.options.attempts + 1):
            waited = machine.settle(self.options.patience, FOREIGN_LIMIT)
            before, own_before = machine.cpu(), process.cpu()
            figures, generator = run_load(to, load.connections, self.options.seconds)
            after, own_after = machine.cpu(), process.cpu()
            took = after.at - before.at
            own = own_after - own_before
            foreign = max(0.0, (after.busy - before.busy - own - generator) / took)
            is_quiet = foreign <= FOREIGN_LIMIT
            is_last = is_quiet or attempt == self.options.attempts
            samples.add(
                Sample(
                    model=model,
                    server=server,
                    load=key,
                    round=index,
                    attempt=attempt,
                    rate=figures.rate,
                    p50_ms=figures.p50_ms,
                    p99_ms=figures.p99_ms,
                    requests=figures.requests,
                    server_cores=own / took,
                    generator_cores=generator / took,
                    foreign_cores=foreign,
                    stolen_cores=(after.stolen - before.stolen) / took,
                    load_average=os.getloadavg()[0],
                    waited=waited,
                    is_noisy=not is_quiet,
                    is_kept=is_last,
                )
            )
            say(
                f"{model}, round {index + 1}, {key}, {server}: {figures.rate:.0f}/s, p50 {figures.p50_ms:.2f} ms, "
                f"server {own / took:.2f}, others {foreign:.2f} cores"
            )
            if is_last:
                return

    def front_overhead(self, one: Prepared) -> None:
        """Measures requests that never reach Python, beside the same requests to the bare echo."""
        self.attempt("front", one, partial(self.measure_front, one))
        if ("front", one.server.key) in self.failed:
            self.front = Samples()

    def measure_front(self, one: Prepared) -> None:
        refused = one.directory / "refused.json"
        legion, _ = self.start(one)
        work = self.work / "echo"
        work.mkdir(parents=True, exist_ok=True)
        port = free_port()
        echo = processes.start([str(self.echo), f"127.0.0.1:{port}"], {}, port, work / "log")
        try:
            echo.wait("/", None)
            status, answer = legion.post("/invocations", refused.read_bytes())
            if status != 400:
                raise LoadFailure(f"the wrong row was answered with {status} {answer[:200]!r}")
            paths = {"health": "/v2/health/live", "refused": "/invocations"}
            for index in range(self.options.rounds):
                for load in FRONT_LOADS:
                    for pair in FRONT_PAIRS:
                        order = [("legion", legion), ("echo", echo)]
                        for server, process in order if index % 2 == 0 else order[::-1]:
                            is_refused = pair == "refused" and server == "legion"
                            url = f"http://127.0.0.1:{process.port}{paths[pair]}"
                            to = Target(url, refused if pair == "refused" else None, is_refused)
                            self.repeat(self.front, (pair, server, load.key, index), process, to, load)
        finally:
            legion.stop()
            echo.stop()


def body(one: Prepared, rows: int) -> Path:
    return one.directory / f"{one.server.body}-{rows}.json"


def target(one: Prepared, running: Running, load: Load) -> Target:
    return Target(f"http://127.0.0.1:{running.port}{one.server.path}", body(one, load.rows))


def check(one: Prepared, running: Running) -> None:
    """Compares predictions with those of the model itself."""
    expected = json.loads((one.directory / "expected.json").read_text())
    for rows in (1, len(expected)):
        status, answer = running.post(one.server.path, body(one, rows).read_bytes())
        if status != 200:
            raise LoadFailure(f"{rows} rows were answered with {status} {answer[:200]!r}")
        got = predictions(answer)
        if len(got) != rows:
            raise LoadFailure(f"{rows} rows got {len(got)} predictions")
        # XGBoost computes with 32 bits, and libraries round differently for different numbers of rows.
        for number, (left, right) in enumerate(zip(got, expected, strict=False)):
            if not math.isclose(left, right, rel_tol=1e-5):
                raise LoadFailure(f"prediction {number} is {left}, the model itself gives {right}")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
