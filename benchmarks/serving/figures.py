"""Samples of a run, and what is computed from them."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Sample:
    """One repetition."""

    model: str
    server: str
    load: str
    round: int
    # From 1. Repetitions beside too much other work are done again.
    attempt: int
    rate: float
    p50_ms: float
    p99_ms: float
    requests: int
    server_cores: float
    generator_cores: float
    foreign_cores: float
    stolen_cores: float
    load_average: float
    waited: float
    # Still beside too much other work, after the last attempt.
    is_noisy: bool
    # Whether it counts: the last attempt does, unless the row fails.
    is_kept: bool


@dataclass(frozen=True)
class Spread:
    """Median with smallest and largest value."""

    median: float
    least: float
    most: float


def spread(values: Iterable[float]) -> Spread | None:
    """Returns median and extremes, or nothing without values."""
    found = sorted(values)
    if not found:
        return None
    return Spread(statistics.median(found), found[0], found[-1])


class Samples:
    """All samples of a run."""

    def __init__(self) -> None:
        self.all: list[Sample] = []

    def add(self, sample: Sample) -> None:
        self.all.append(sample)

    def drop(self, model: str, server: str) -> None:
        """Lets no sample of a failed row count."""
        self.all = [
            dataclasses.replace(sample, is_kept=False) if (sample.model, sample.server) == (model, server) else sample
            for sample in self.all
        ]

    def of(self, model: str, server: str, load: str) -> list[Sample]:
        """Returns the repetitions that count."""
        wanted = (model, server, load)
        return [s for s in self.all if s.is_kept and (s.model, s.server, s.load) == wanted]

    def rate(self, model: str, server: str, load: str) -> Spread | None:
        return spread(sample.rate for sample in self.of(model, server, load))

    def ratio(self, model: str, server: str, base: str, load: str) -> Spread | None:
        """Returns how many times the rate of `base` a server has, each within the same round.

        The speed of a machine changes over minutes, so figures of different rounds are not compared.
        """
        bases = {sample.round: sample.rate for sample in self.of(model, base, load)}
        own = self.of(model, server, load)
        return spread(sample.rate / bases[sample.round] for sample in own if sample.round in bases)
