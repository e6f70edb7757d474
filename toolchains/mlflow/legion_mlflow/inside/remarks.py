"""Notices about a successful run: what MLflow shows in its own pages, and a training's status would hide."""

from __future__ import annotations

from collections import Counter
from typing import Any

from legion_mlflow.inside.store import Store
from legion_mlflow.protocol import Context, Result


def add(client: Any, runs: list[Any], ended_as: str, store: Store, context: Context, result: Result) -> None:
    """Adds the notices. The main run is the first of `runs`. `ended_as` is the status that the code gave to it."""
    main, children = runs[0], runs[1:]
    if ended_as in ("FAILED", "KILLED"):
        result.notice(
            "RunEndedAs",
            f"the code ended with exit code 0, but it ended its MLflow run as {ended_as}. The exit code counts",
        )
    if children:
        count = ", ".join(f"{number} {status}" for status, number in Counter(r.info.status for r in children).items())
        result.notice("ChildRuns", f"runs besides the main one: {count}. Their values are in the series")
    _objective(main, children, context, result)
    if store.is_private:
        _registry(client, result)


def _objective(main: Any, children: list[Any], context: Context, result: Result) -> None:
    metric = (context.training.get("objective") or {}).get("metric")
    if not metric or metric in main.data.metrics:
        return
    having = [run for run in children if metric in run.data.metrics]
    if having:
        named = ", ".join(f"{run.info.run_name} (id {run.info.run_id})" for run in having[:2])
        more = f" and {len(having) - 2} more" if len(having) > 2 else ""
        result.notice(
            "ObjectiveInOtherRun",
            f"the main run did not log {metric!r}. It was logged in {named}{more}. To have it in the status, log it in "
            "the main run",
        )


def _registry(client: Any, result: Result) -> None:
    names = [model.name for model in client.search_registered_models(max_results=100)]
    if names:
        result.notice(
            "RegistryNotKept",
            f"the code registered {', '.join(names)} in the store of this attempt, which is not kept. To use a model "
            "registry, set MLFLOW_TRACKING_URI in spec.env",
        )
