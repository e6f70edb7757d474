"""wrk's output, and wrk itself where it is installed."""

from __future__ import annotations

import http.server
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from load import LOADS, LoadFailure, Target, parse, run

OUTPUT = """Running 2s test @ http://127.0.0.1:1/invocations
  1 threads and 8 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.21ms  310.40us   9.10ms   90.12%
Requests/sec:   2000.00
FIGURES {"requests": 4000, "microseconds": 2000000, "p50": 1200, "p99": 4500, "status": 0, "socket": 0, "timeout": 0}
"""


def test_figures_are_read() -> None:
    figures = parse(OUTPUT)
    assert (figures.rate, figures.p50_ms, figures.p99_ms) == (2000, 1.2, 4.5)
    assert (figures.requests, figures.refused) == (4000, 0)


@pytest.mark.parametrize(
    ("was", "becomes", "reason"),
    [
        ('"status": 0', '"status": 7', "7 of 4000 answers have the wrong status"),
        ('"socket": 0', '"socket": 2', "2 socket errors, 0 timeouts in 4000 requests"),
        ('"timeout": 0', '"timeout": 1', "0 socket errors, 1 timeouts in 4000 requests"),
        ('"requests": 4000', '"requests": 0', "no request was answered"),
        ("FIGURES", "", "wrk printed no figures"),
    ],
)
def test_what_is_no_measurement_fails(was: str, becomes: str, reason: str) -> None:
    with pytest.raises(LoadFailure, match=reason):
        parse(OUTPUT.replace(was, becomes))


def test_all_answers_must_be_refusals_where_these_are_measured() -> None:
    assert parse(OUTPUT.replace('"status": 0', '"status": 4000'), is_refused=True).refused == 4000
    with pytest.raises(LoadFailure, match="1 of 4000 answers"):
        parse(OUTPUT.replace('"status": 0', '"status": 3999'), is_refused=True)


def test_loads_have_different_names() -> None:
    assert [load.key for load in LOADS] == ["c1", "c8", "c64", "c256", "1000 rows c1", "1000 rows c8"]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen: ClassVar[set[tuple[str, bytes]]] = set()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        Handler.seen.add((self.headers["content-type"], body))
        self.send_response(400 if b"wrong" in body else 200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Logs nothing."""


class Quiet(http.server.ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Prints nothing: wrk breaks its connections at the end."""


@pytest.fixture
def url() -> Iterator[str]:
    server = Quiet(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_wrk_sends_the_body_and_reports_refusals(url: str, tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_bytes(b'{"a": 1}')
    figures, seconds = run(Target(url, body), connections=2, seconds=1)
    assert figures.requests > 0 and figures.rate > 0 and seconds > 0
    assert Handler.seen == {("application/json", b'{"a": 1}')}
    body.write_bytes(b"wrong")
    with pytest.raises(LoadFailure, match="wrong status"):
        run(Target(url, body), connections=2, seconds=1)
