"""The command `legion-mlflow`: runs the training of the environment variables, or checks a model directory."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from legion_mlflow import environment, project
from legion_mlflow.protocol import EXIT_REFUSED, Context, Events, Result
from legion_mlflow.refusal import Refusal

_USAGE = """usage: legion-mlflow                     run the training of LEGION_TRAINING
       legion-mlflow validate-gppi DIR   check a model directory against GPPI v1
       legion-mlflow prepare             create the files every run needs (for images)"""

# Loads only this package into the project's interpreter. With its parent directory on sys.path, the toolchain's other
# packages would be importable there too.
_LOADER = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("legion_mlflow", sys.argv[1], submodule_search_locations=[sys.argv[2]])
module = importlib.util.module_from_spec(spec)
sys.modules["legion_mlflow"] = module
spec.loader.exec_module(module)
from legion_mlflow.inside.drive import main
sys.exit(main(sys.argv[3], sys.argv[4]))
"""


def main(arguments: list[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments:
        return train()
    if arguments == ["prepare"]:
        from legion_mlflow.inside.store import prepare

        prepare()
        return 0
    if len(arguments) == 2 and arguments[0] == "validate-gppi":
        from legion_mlflow.gppi import validate

        problems = validate(Path(arguments[1]))
        for problem in problems:
            print(problem, file=sys.stderr)
        print(f"{arguments[1]}: " + (f"{len(problems)} problems" if problems else "is GPPI v1"))
        return 1 if problems else 0
    print(_USAGE, file=sys.stderr)
    return EXIT_REFUSED


def train() -> int:
    """Checks the training, chooses its environment and runs the driver there."""
    try:
        context = Context.from_environment(os.environ)
    except Refusal as refusal:
        print(f"legion-mlflow: {refusal.message}. {refusal.remedy}", file=sys.stderr)
        return EXIT_REFUSED
    try:
        events = Events(context.events)
        loaded = project.load(context.source)
        project.check(loaded, context, events)
        chosen = environment.choose(loaded, context, os.environ, events)
    except Refusal as refusal:
        return refuse(refusal, context)
    variables = environment.command_environment(chosen, os.environ)
    if chosen.is_own:
        os.environ.clear()
        os.environ.update(variables)
        from legion_mlflow.inside.drive import main as drive

        return drive(chosen.source, sys.prefix)
    package = Path(__file__).parent
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(
        chosen.driver,
        [str(chosen.driver), "-c", _LOADER, str(package / "__init__.py"), str(package), chosen.source, sys.prefix],
        variables,
    )


def refuse(refusal: Refusal, context: Context) -> int:
    """Reports a refusal in the log for people, and in the result document for the status."""
    where = f"{refusal.field}: " if refusal.field else ""
    print(f"legion-mlflow: {where}{refusal.message}. {refusal.remedy}", file=sys.stderr)
    Result(error=refusal.document()).write(context.result)
    return EXIT_REFUSED
