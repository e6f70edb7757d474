"""The machine: what it is, and how busy it is."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cpu:
    """CPU seconds of the whole machine since its start."""

    busy: float
    # What the host gave to other machines.
    stolen: float
    at: float


def parse_stat(text: str) -> tuple[float, float]:
    """Returns busy and stolen seconds from `/proc/stat`.

    Softirq is part of it: the kernel counts the network's share there, and in the process that it interrupts.
    """
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(word) for word in text.split()[1:9])
    return (user + nice + system + irq + softirq) / TICKS, steal / TICKS


def cpu() -> Cpu:
    busy, stolen = parse_stat(Path("/proc/stat").read_text())
    return Cpu(busy, stolen, time.monotonic())


def settle(limit: float, quiet: float) -> float:
    """Waits until less than `quiet` cores are busy. Returns the seconds.

    A slow server still works on requests after the load generator has left.
    """
    began = time.monotonic()
    while time.monotonic() - began < limit:
        before = cpu()
        time.sleep(0.5)
        after = cpu()
        if (after.busy - before.busy) / (after.at - before.at) < quiet:
            break
    return time.monotonic() - began


def describe() -> dict[str, str]:
    """Returns what a report says about the machine."""
    models = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith(("model name", "Model"))
    ]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": models[0] if models else platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory:.0f} GiB",
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
