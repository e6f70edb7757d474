"""CPU time and processes."""

from __future__ import annotations

import sys
from pathlib import Path

from machine import TICKS, parse_stat
from processes import START_TIME, alive, family, start
from servers import free_port, predictions

# Starts a process in another session, as BentoML does, and waits.
PARENT = """
import subprocess, sys
child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
print("started", flush=True)
child.wait()
"""


def test_softirq_is_busy_and_steal_is_not() -> None:
    busy, stolen = parse_stat("cpu  100 20 30 4000 5 6 70 8 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n")
    assert (busy, stolen) == ((100 + 20 + 30 + 6 + 70) / TICKS, 8 / TICKS)


def test_processes_in_other_sessions_belong_to_their_parent() -> None:
    def fields(parent: int, session: int) -> list[str]:
        return ["S", str(parent), "0", str(session)]

    # 10 leads the session of 11. 12 began a session, and 13 lost its parent there.
    processes = {1: fields(0, 1), 10: fields(1, 10), 11: fields(10, 10), 12: fields(11, 12), 13: fields(1, 12)}
    assert set(family(10, processes)) == {10, 11, 12, 13}


def test_a_stopped_server_leaves_no_process(tmp_path: Path) -> None:
    log = tmp_path / "log"
    running = start([sys.executable, "-c", PARENT], {}, free_port(), log)
    while "started" not in log.read_text():
        assert running.process.poll() is None, log.read_text()
    members = running.members()
    count, memory = running.memory()
    assert len(members) == count == 2 and memory > 0
    running.stop()
    assert alive({pid: fields[START_TIME] for pid, fields in members.items()}) == []


def test_answers_of_all_forms() -> None:
    assert predictions(b'{"predictions": [1, 2.5]}') == [1.0, 2.5]
    assert predictions(b"[3.0]") == [3.0]
    assert predictions(b'{"outputs": [{"shape": [2, 1], "data": [1, 2]}]}') == [1.0, 2.0]
