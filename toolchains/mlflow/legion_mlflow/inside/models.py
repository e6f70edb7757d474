"""Chooses the logged model of a training."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from legion_mlflow.protocol import Context
from legion_mlflow.refusal import OUTPUT, Refusal

_HISTORY_TAG = "mlflow.log-model.history"


@dataclass
class Candidate:
    """A model logged by a run."""

    name: str
    id: str
    run_id: str
    status: str
    uri: str
    created: int

    def __str__(self) -> str:
        return f"{self.name} (id {self.id}, run {self.run_id}, {self.status})"


def logged(client: Any, runs: list[Any]) -> list[Candidate]:
    """Returns the models of all runs, oldest first."""
    if hasattr(client, "search_logged_models"):
        found = _logged_models(client, runs)
    else:
        found = [model for run in runs for model in _from_history(run)]
    return sorted(found, key=lambda model: model.created)


def _logged_models(client: Any, runs: list[Any]) -> list[Candidate]:
    """MLflow 3: logged models are entities of their own."""
    found = []
    for run in runs:
        token = None
        while True:
            query = f"source_run_id = '{run.info.run_id}'"
            page = client.search_logged_models([run.info.experiment_id], filter_string=query, page_token=token)
            found += [_entity(model) for model in page]
            token = page.token
            if not token:
                break
    return found


def _entity(model: Any) -> Candidate:
    # The tracking server may keep artifacts elsewhere, so the model's own location counts.
    return Candidate(
        model.name,
        model.model_id,
        model.source_run_id,
        getattr(model.status, "name", str(model.status)),
        model.artifact_location,
        model.creation_timestamp,
    )


def _from_history(run: Any) -> list[Candidate]:
    """MLflow 2: a tag of the run lists its models. They are among its artifacts."""
    found = {}
    for position, entry in enumerate(json.loads(run.data.tags.get(_HISTORY_TAG, "[]"))):
        path = entry["artifact_path"]
        # A model logged again under the same path replaces the earlier one.
        found[path] = Candidate(
            path,
            entry.get("model_uuid", ""),
            run.info.run_id,
            "READY",
            f"{run.info.artifact_uri.rstrip('/')}/{path}",
            position,
        )
    return list(found.values())


def choose(found: list[Candidate], runs: list[Any], context: Context) -> Candidate | None:
    """Returns the model that becomes the artifact, of those in the main run or in the runs below it.

    Without `spec.arguments.model` the rule of `_preferred` decides. The other models are kept among the run's files.
    """
    main = context.argument("modelFrom", "main") == "main"
    wanted = {run.info.run_id for run in (runs[:1] if main else runs[1:])}
    here = [model for model in found if model.run_id in wanted]
    ready = [model for model in here if model.status == "READY"]
    listing = "; ".join(str(model) for model in here)
    name = context.argument("model")
    if name:
        named = [model for model in ready if model.name == name]
        if named:
            return _preferred(named, runs, context)
        raise Refusal(
            "ModelNotFound",
            f"spec.arguments.model is {name!r}, but the run logged " + (listing or "no model"),
            "spec.arguments.model",
            "Name one of these." if ready else "Log a model with that name in the project.",
            OUTPUT,
        )
    if ready:
        return _preferred(ready, runs, context)
    if not context.argument("requireModel", True):
        return None
    unfinished = f". Not finished: {listing}" if listing else ""
    elsewhere = [str(model) for model in found if model.run_id not in wanted]
    other = f". The {'runs below it' if main else 'main run'} logged: {'; '.join(elsewhere)}" if elsewhere else ""
    raise Refusal(
        "NoModel",
        f"the code succeeded, but the {'run' if main else 'runs below it'} logged no model{unfinished}{other}",
        "spec.arguments.modelFrom" if elsewhere else "spec.arguments.requireModel",
        "Log one with mlflow.<flavor>.log_model() inside the run, set spec.arguments.modelFrom to "
        f"{'children' if main else 'main'} if it is logged there, or set spec.arguments.requireModel to false.",
        OUTPUT,
    )


def _preferred(ready: list[Candidate], runs: list[Any], context: Context) -> Candidate:
    """Returns one of several models, oldest first. In this order:

    1. those of the run with the best value of `spec.objective`, if models of several runs are there,
    2. those named `model`, which is MLflow's own name for the result of a run,
    3. the newest.
    """
    objective = context.training.get("objective") or {}
    values = {run.info.run_id: run.data.metrics.get(objective.get("metric")) for run in runs}
    scores = {model.run_id: values[model.run_id] for model in ready}
    numbers = [value for value in scores.values() if value is not None and not math.isnan(value)]
    if len(scores) > 1 and numbers:
        best = max(numbers) if objective.get("goal") == "Maximize" else min(numbers)
        ready = [model for model in ready if scores[model.run_id] == best]
    return ([model for model in ready if model.name == "model"] or ready)[-1]


def several(found: list[Candidate], chosen: Candidate) -> str | None:
    """Returns the words for a choice among several names or runs, else None: a model logged again is no choice."""
    ready = [model for model in found if model.status == "READY"]
    others = [model for model in ready if (model.name, model.run_id) != (chosen.name, chosen.run_id)]
    if not others:
        return None
    names = ", ".join(dict.fromkeys(model.name for model in others))
    return (
        f"{len(others) + 1} models were logged. {chosen.name} is the artifact, the others are among the run's files: "
        f"{names}. To take another one, set spec.arguments.model"
    )
