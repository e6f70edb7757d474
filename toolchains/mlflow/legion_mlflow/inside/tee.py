"""Passes standard error through and keeps its end."""

from __future__ import annotations

import os
import select
import threading
from collections import deque


class StderrTail:
    """While entered, file descriptor 2 of this process and of its children runs through a pipe.

    MLflow's advice for common mistakes is only in the command's output. A remaining child may keep the pipe open. It is
    not waited for.
    """

    _LIMIT = 32 * 1024

    def __init__(self) -> None:
        self._tail: deque[bytes] = deque()
        self._size = 0
        self._done = threading.Event()

    def __enter__(self) -> StderrTail:
        self._real = os.dup(2)
        self._reader, writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.dup2(writer, 2)
        os.close(writer)
        self._thread = threading.Thread(target=self._copy, name="legion-stderr", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.dup2(self._real, 2)
        self._done.set()
        self._thread.join()
        os.close(self._real)
        os.close(self._reader)

    def text(self) -> str:
        """Returns the end of standard error."""
        return b"".join(self._tail).decode("utf-8", "replace")

    def _copy(self) -> None:
        while True:
            # After the end of the command all its output is in the pipe. An empty pipe means done.
            ending = self._done.is_set()
            ready, _, _ = select.select([self._reader], [], [], 0 if ending else 0.1)
            if not ready:
                if ending:
                    return
                continue
            data = os.read(self._reader, 65536)
            if not data:
                return
            self._remember(data)
            while data:
                data = data[os.write(self._real, data) :]

    def _remember(self, data: bytes) -> None:
        self._tail.append(data)
        self._size += len(data)
        while self._size - len(self._tail[0]) > self._LIMIT:
            self._size -= len(self._tail.popleft())
