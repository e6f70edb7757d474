"""`cargo xtask bench serving` runs this. It needs only the standard library, uv and wrk."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import environments
import load
import machine
from environments import EnvironmentFailure
from goals import verdicts
from measure import Options, Prepared, Run
from report import Report, replaced
from servers import ALL, Server

HERE = Path(__file__).parent
MODELS = ("sklearn", "xgboost")
QUICK = ("fastapi", "legion", "legion-raw")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="cargo xtask bench serving", description="Measures model servers.")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=positive)
    parser.add_argument("--seconds", type=positive)
    parser.add_argument("--peers", type=lambda text: text.split(","))
    parser.add_argument("--models", type=lambda text: text.split(","))
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--page", type=Path)
    parser.add_argument("--legion-server", type=Path, required=True)
    parser.add_argument("--echo", type=Path, required=True)
    options = parser.parse_args()
    for chosen, known in ((options.peers, [server.key for server in ALL]), (options.models, MODELS)):
        for name in chosen or []:
            if name not in known:
                parser.error(f"{name!r} is none of {', '.join(known)}")
    return options


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def choose(options: argparse.Namespace) -> list[Server]:
    """Returns the servers of the run."""
    chosen = options.peers or (QUICK if options.quick else [server.key for server in ALL])
    return [server for server in ALL if server.key in chosen]


def end(number: int, _frame: object) -> None:
    """Ends the run as an exception does, so that the servers are stopped."""
    sys.exit(128 + number)


def main() -> int:
    options = arguments()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, end)
    servers = choose(options)
    missing: dict[str, str] = {}
    models = options.models or list(MODELS[:1] if options.quick else MODELS)
    options.output.mkdir(parents=True, exist_ok=True)
    work = options.output / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()

    pythons: dict[str, Path] = {}
    for name in dict.fromkeys(server.environment for server in servers):
        try:
            pythons[name] = environments.environment(name)
        except EnvironmentFailure as failure:
            print(f"{name}: cannot be installed: {failure}", file=sys.stderr)
            missing |= {
                server.key: f"cannot be installed: {failure}" for server in servers if server.environment == name
            }
    trainer = pythons.get("legion") or environments.environment("legion")
    subprocess.run([trainer, str(HERE / "train.py"), str(work / "models"), *models], check=True)

    run = Run(
        Options(
            rounds=options.rounds or (1 if options.quick else 5),
            seconds=options.seconds or (2 if options.quick else 4),
            starts=1 if options.quick else 3,
            attempts=1 if options.quick else 3,
            patience=1.0 if options.quick else 20.0,
        ),
        options.legion_server.absolute(),
        options.echo.absolute(),
        work.absolute(),
    )
    began = datetime.datetime.now(datetime.UTC)
    measured = [server for server in servers if server.key not in missing]
    for model in models:
        prepared = [Prepared(one, pythons[one.environment], work.absolute() / "models" / model) for one in measured]
        run.model(model, prepared)
        front = [one for one in prepared if one.server.key == "legion"]
    for one in front:
        run.front_overhead(one)

    ended = datetime.datetime.now(datetime.UTC)
    facts = machine.describe() | {
        "wrk": load.version(),
        "rounds": f"{run.options.rounds}, {run.options.seconds} s for each figure",
        "began": f"{began:%Y-%m-%d %H:%M} UTC, took {(ended - began).total_seconds() / 60:.0f} minutes",
        "others' CPU": others(run),
    }
    for name in pythons:
        facts[f"environment `{name}`"] = ", ".join(f"{k} {v}" for k, v in environments.versions(name).items())
    left_out = [server for server in ALL if server not in servers]
    report = Report(facts, models, servers, run.samples, run.front, run.starts, run.failed, missing, left_out)
    write(options, report)
    return 1 if run.failed else 0


def others(run: Run) -> str:
    """Returns how much other programs and the host took during the repetitions that count."""
    kept = [sample for sample in [*run.samples.all, *run.front.all] if sample.is_kept]
    if not kept:
        return "nothing was measured"
    foreign, stolen = max(s.foreign_cores for s in kept), max(s.stolen_cores for s in kept)
    again = len(run.samples.all) + len(run.front.all) - len(kept)
    return f"at most {foreign:.2f} cores, and {stolen:.2f} taken by the host; {again} repetitions were done again"


def write(options: argparse.Namespace, report: Report) -> None:
    text = report.markdown()
    print(text)
    (options.output / "results.md").write_text(text)
    everything = {
        "facts": report.facts,
        "samples": [dataclasses.asdict(sample) for sample in report.samples.all],
        "front": [dataclasses.asdict(sample) for sample in report.front.all],
        "starts": [
            {"model": model, "server": server, **dataclasses.asdict(start)}
            for (model, server), start in report.starts.items()
        ],
        "failed": [
            {"model": model, "server": server, "reason": reason} for (model, server), reason in report.failed.items()
        ],
        "missing": report.missing,
        "left_out": [server.key for server in report.left_out],
        "goals": [
            {**dataclasses.asdict(verdict), "met": verdict.is_met}
            for verdict in verdicts(report.samples, report.front, report.models)
        ],
    }
    (options.output / "results.json").write_text(json.dumps(everything, indent=1))
    if options.page is not None:
        options.page.write_text(replaced(options.page.read_text(), text))
    print(f"written: {options.output / 'results.md'} and results.json", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
