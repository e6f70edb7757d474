"""The goals of legion-server, compared with what was measured."""

from __future__ import annotations

from dataclasses import dataclass

from figures import Samples, Spread
from measure import FRONT_PAIRS
from servers import ALL

PEERS = [server for server in ALL if not server.is_legion]


@dataclass(frozen=True)
class Verdict:
    """A goal with its figure."""

    goal: str
    model: str
    figure: Spread | None
    # What the figure is compared with, and in which direction.
    limit: float
    at_most: bool = False
    remark: str = ""

    @property
    def is_met(self) -> bool | None:
        """Whether it is met. None if it was not measured."""
        if self.figure is None:
            return None
        return self.figure.median <= self.limit if self.at_most else self.figure.median >= self.limit


def best_peer(samples: Samples, model: str, load: str, only_pyfunc: bool) -> tuple[str, str] | None:
    """Returns key and title of the fastest Python server by its median."""
    found = []
    for server in PEERS:
        rate = samples.rate(model, server.key, load)
        if rate is not None and not (only_pyfunc and server.is_raw):
            found.append((rate.median, server.key, server.title))
    return max(found)[1:] if found else None


def verdicts(samples: Samples, front: Samples, models: list[str]) -> list[Verdict]:
    """Returns all goals."""
    result = []
    for model in models:

        def ratio(server: str, base: str, load: str, model: str = model) -> Spread | None:
            return samples.ratio(model, server, base, load)

        thousand = ("1000 rows c1", "1000 rows c8")
        result.append(Verdict("c64: pyfunc / mlflow, at least 90", model, ratio("legion", "mlflow", "c64"), 90))
        for only_pyfunc, kind in ((False, "best Python peer"), (True, "best Python peer with pyfunc")):
            best = best_peer(samples, model, "c64", only_pyfunc)
            figure = ratio("legion", best[0], "c64") if best else None
            goal = f"c64: pyfunc / {kind}, at least 10"
            result.append(Verdict(goal, model, figure, 10, remark=best[1] if best else ""))
        result += [
            Verdict("c64: raw / mlflow, at least 300", model, ratio("legion-raw", "mlflow", "c64"), 300),
            Verdict("c1: pyfunc / FastAPI by hand, at least 1", model, ratio("legion", "fastapi", "c1"), 1),
            Verdict("c1: raw / KServe's server, at least 1.3", model, ratio("legion-raw", "kserve", "c1"), 1.3),
        ]
        result += [
            Verdict(f"{load}: raw / mlflow, at least 5", model, ratio("legion-raw", "mlflow", load), 5)
            for load in thousand
        ]
    for pair, title in FRONT_PAIRS.items():
        figure = front.ratio(pair, "echo", "legion", "c64")
        result.append(Verdict(f"c64: bare echo / front, at most 1.5: {title}", "front", figure, 1.5, at_most=True))
    return result
