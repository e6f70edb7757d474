"""Tables."""

from __future__ import annotations

import pytest
from test_figures import sample, samples

from figures import Samples, Spread
from report import BEGIN, END, Report, cell_of, number, replaced, table
from servers import ALL


def test_numbers_have_three_digits() -> None:
    assert [number(value) for value in (12345.6, 99.96, 12.34, 0.5)] == ["12,346", "100.0", "12.3", "0.50"]
    assert cell_of(Spread(2, 1, 3)) == "2.00 (1.00 to 3.00)"
    assert cell_of(None) == "-"


def test_tables_have_one_width() -> None:
    assert table(["a", "b"], [["x|y"]]) == "| a | b |\n|---|---|\n| x\\|y |  |"


def test_only_the_part_between_the_marks_is_replaced() -> None:
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert replaced(page, "new\n") == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    with pytest.raises(ValueError, match="lacks"):
        replaced("no marks", "new")


def test_rows_without_figures_say_why() -> None:
    report = Report(
        facts={"cores": "2"},
        models=["sklearn"],
        servers=list(ALL[1:]),
        samples=samples(sample("legion", 5, load="c1"), sample("mlflow", 2, load="c1")),
        front=Samples(),
        starts={},
        failed={("sklearn", "fastapi"): "3 of 9 answers have the wrong status"},
        missing={"bentoml": "cannot be installed: no network"},
        left_out=[ALL[0]],
    )
    text = report.markdown()
    assert "| BentoML | not measured: cannot be installed: no network |" in text
    assert "| FastAPI by hand | failed: 3 of 9 answers have the wrong status |" in text
    assert text.count("| BentoML |") == 1
    assert "| legion-server | 5.00 |" in text
    assert "Not part of this run: `mlflow`." in text
    assert "not measured" in text.split("### Goals")[1]
