"""Explains mistakes with obscure messages in MLflow: with a field and a remedy."""

from __future__ import annotations

import re

from legion_mlflow.protocol import Context

_EXPERIMENT = re.compile(
    r"Cannot start run with ID \S+ because active (?:run|experiment) ID\s+does not match environment run ID"
)
_RUN_NOT_FOUND = re.compile(r"(?:Run with id=|Run ')([0-9a-f]{32})'? not found|No run with id=([0-9a-f]{32}) exists")
_NO_MLFLOW = re.compile(r"ModuleNotFoundError: No module named '([^']+)'")


def recognize(stderr: str, context: Context) -> dict[str, str] | None:
    """Returns the `error` of the result document if the end of the command's standard error shows a known mistake."""
    if _EXPERIMENT.search(stderr):
        return {
            "reason": "SetExperimentInProject",
            "field": "spec.arguments.experiment",
            "message": "the project calls mlflow.set_experiment() with another experiment than the run's",
            "remedy": "Remove the call and name the experiment in spec.arguments.experiment.",
        }
    if _RUN_NOT_FOUND.search(stderr):
        return {
            "reason": "SetTrackingUriInProject",
            "field": "spec.env",
            "message": "MLflow did not find the run created for this training. The project seems to call "
            "mlflow.set_tracking_uri()",
            "remedy": "Remove the call. For a tracking server set MLFLOW_TRACKING_URI in spec.env.",
        }
    missing = _NO_MLFLOW.search(stderr)
    if missing:
        return {
            "reason": "ModuleMissing",
            "field": "",
            "message": f"the module {missing.group(1)!r} is not installed in the environment of this run",
            "remedy": "Declare the project's requirements in a python_env.yaml beside its MLproject, or use an image "
            f"with this module (spec.image). The environment was chosen by spec.arguments.environment: "
            f"{context.argument('environment', 'auto')}.",
        }
    return None
