"""The conformance cases of docs/toolchain-protocol.md, read as `legionctl toolchain test` reads them."""

from pathlib import Path

import pytest
import yaml
from harness import SCRIPT_COMMAND, TOOLCHAINS, Outcome, document, mlflow_command, run

CASES = sorted(TOOLCHAINS.glob("*/conformance/*/case.yaml"))


@pytest.mark.parametrize("path", CASES, ids=lambda p: f"{p.parents[2].name}-{p.parent.name}")
def test_case(path: Path, tmp_path: Path) -> None:
    case = yaml.safe_load(path.read_text())
    command = SCRIPT_COMMAND if path.parents[2].name == "script" else mlflow_command("3")
    project = path.parent / "project"
    training = document(**case["training"])
    outcome = run(command, tmp_path, training, project if project.exists() else None, case.get("env"))
    check(case["expect"], outcome)


def check(expect: dict, outcome: Outcome) -> None:
    assert outcome.code == expect["exitCode"], outcome.log
    for kind, key in (("param", "params"), ("tag", "tags")):
        assert expect.get(key, {}).items() <= outcome.pairs(kind).items()
    series = outcome.metrics()
    for name, wanted in expect.get("metrics", {}).items():
        assert len(series[name]) == wanted.get("count", len(series[name]))
        assert series[name][-1][1] == wanted.get("last", series[name][-1][1])
    if "children" in expect:
        assert len({e["id"] for e in outcome.events if e["type"] == "child"}) == expect["children"]
    assert any(p.is_file() for p in outcome.model.rglob("*")) == expect.get("model", outcome.code == 0)
    for name in expect.get("modelFiles", []):
        assert (outcome.model / name).is_file(), name
    if "signature" in expect:
        assert outcome.result["model"]["signature"] is expect["signature"]
    assert set(expect.get("notices", [])) <= outcome.notices()
    for text in expect.get("log", []):
        assert text in outcome.log
    error = dict(expect.get("error", {}))
    for text in error.pop("contains", []):
        assert text in outcome.error["message"]
    assert error.items() <= outcome.error.items()
    assert not (outcome.code == 0 and outcome.error)
