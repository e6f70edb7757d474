"""Chooses the logged model of a training."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from legion_mlflow.protocol import Context
from legion_mlflow.refusal import Refusal

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


def candidates(client: Any, runs: list[Any], origin: str) -> list[Candidate]:
    """Returns the models of the main run, or of the runs below it, oldest first."""
    chosen = runs[:1] if origin == "main" else runs[1:]
    if hasattr(client, "search_logged_models"):
        found = _logged_models(client, chosen)
    else:
        found = [model for run in chosen for model in _from_history(run)]
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


def choose(found: list[Candidate], context: Context) -> Candidate | None:
    """Returns the one model. The training's arguments decide when there are none or several."""
    ready = [model for model in found if model.status == "READY"]
    listing = "; ".join(str(model) for model in found)
    name = context.argument("model")
    if name:
        named = [model for model in ready if model.name == name]
        if named:
            return named[-1]
        raise Refusal(
            "ModelNotFound",
            f"spec.arguments.model is {name!r}, but the run logged " + (listing or "no model"),
            "spec.arguments.model",
            "Name one of these." if ready else "Log a model with that name in the project.",
        )
    if len({model.name for model in ready}) > 1 or len({model.run_id for model in ready}) > 1:
        raise Refusal(
            "SeveralModels",
            f"the run logged {len(ready)} models: {listing}",
            "spec.arguments.model",
            "Name the one to take in spec.arguments.model.",
        )
    if ready:
        return ready[-1]
    if not context.argument("requireModel", True):
        return None
    unfinished = f". Not finished: {listing}" if listing else ""
    raise Refusal(
        "NoModel",
        f"the run succeeded, but logged no model{unfinished}",
        "spec.arguments.requireModel",
        "Log one with mlflow.<flavor>.log_model() inside the run, set spec.arguments.modelFrom to children if the "
        "runs below log it, or set spec.arguments.requireModel to false.",
    )
