"""Refusals: the errors that this toolchain reports itself."""

from __future__ import annotations

# Where an error comes from. The training's reason follows from it.
INPUT = "input"
CODE = "code"
OUTPUT = "output"
ENVIRONMENT = "environment"
TOOLCHAIN = "toolchain"


class Refusal(Exception):
    """A run that the toolchain itself ends. Its words appear in the training's status."""

    def __init__(self, reason: str, message: str, field: str = "", remedy: str = "", origin: str = INPUT) -> None:
        super().__init__(message)
        self.reason = reason
        self.field = field
        self.message = message
        self.remedy = remedy
        self.origin = origin

    def document(self) -> dict[str, str]:
        """The ``error`` of a result document."""
        return {
            "reason": self.reason,
            "field": self.field,
            "message": self.message,
            "remedy": self.remedy,
            "origin": self.origin,
        }


class InvalidProject(Refusal):
    """A file of the project in a form unknown to MLflow."""

    def __init__(self, message: str, remedy: str = "Write it as MLflow's documentation describes.") -> None:
        super().__init__("InvalidProject", message, "spec.source", remedy)
