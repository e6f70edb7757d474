"""Medians, ratios and goals."""

from __future__ import annotations

from figures import Sample, Samples, Spread, spread
from goals import Verdict, verdicts


def sample(server: str, rate: float, round: int = 0, load: str = "c64", is_kept: bool = True) -> Sample:
    return Sample(
        model="sklearn",
        server=server,
        load=load,
        round=round,
        attempt=1,
        rate=rate,
        p50_ms=1,
        p99_ms=2,
        requests=1,
        server_cores=1,
        generator_cores=0.1,
        foreign_cores=0,
        stolen_cores=0,
        load_average=1,
        waited=0,
        is_noisy=False,
        is_kept=is_kept,
    )


def samples(*values: Sample) -> Samples:
    result = Samples()
    for value in values:
        result.add(value)
    return result


def test_spreads() -> None:
    assert spread([]) is None
    assert spread([3, 1, 2]) == Spread(2, 1, 3)
    assert spread([4, 1, 2, 3]) == Spread(2.5, 1, 4)


def test_ratios_are_taken_within_a_round() -> None:
    # The machine is half as fast in the second round. There is no third round of the base.
    found = samples(
        sample("mlflow", 100),
        sample("legion", 9000),
        sample("mlflow", 50, 1),
        sample("legion", 5000, 1),
        sample("legion", 1, 2),
    )
    assert found.ratio("sklearn", "legion", "mlflow", "c64") == Spread(95, 90, 100)
    assert found.ratio("sklearn", "legion", "mlflow", "c1") is None


def test_only_the_last_attempt_counts() -> None:
    found = samples(sample("legion", 10, is_kept=False), sample("legion", 30))
    assert found.rate("sklearn", "legion", "c64") == Spread(30, 30, 30)


def test_a_failed_row_has_no_figures_and_no_ratios() -> None:
    found = samples(sample("mlflow", 100), sample("legion", 9100))
    found.drop("sklearn", "mlflow")
    assert found.rate("sklearn", "mlflow", "c64") is None
    assert found.ratio("sklearn", "legion", "mlflow", "c64") is None
    assert found.rate("sklearn", "legion", "c64") is not None and len(found.all) == 2


def test_goals_are_met_or_not_or_not_measured() -> None:
    found = samples(sample("mlflow", 100), sample("kserve", 1000), sample("fastapi", 500), sample("legion", 9100))
    by_goal = {verdict.goal: verdict for verdict in verdicts(found, Samples(), ["sklearn"])}
    assert by_goal["c64: pyfunc / mlflow, at least 90"].is_met is True
    best = by_goal["c64: pyfunc / best Python peer, at least 10"]
    assert (best.is_met, best.remark) == (False, "KServe's server (raw)")
    best = by_goal["c64: pyfunc / best Python peer with pyfunc, at least 10"]
    assert (best.is_met, best.remark) == (True, "FastAPI by hand")
    assert by_goal["c64: raw / mlflow, at least 300"].is_met is None


def test_some_goals_are_upper_limits() -> None:
    assert Verdict("", "", Spread(1.4, 1, 2), 1.5, at_most=True).is_met is True
    assert Verdict("", "", Spread(1.6, 1, 2), 1.5, at_most=True).is_met is False
