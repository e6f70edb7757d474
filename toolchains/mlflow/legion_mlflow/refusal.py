"""Refusals: the only errors this toolchain reports itself."""

from __future__ import annotations


class Refusal(Exception):
    """A run refused by the toolchain itself. Its words appear in the training's status."""

    def __init__(self, reason: str, message: str, field: str = "", remedy: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.field = field
        self.message = message
        self.remedy = remedy

    def document(self) -> dict[str, str]:
        """The ``error`` of a result document."""
        return {"reason": self.reason, "field": self.field, "message": self.message, "remedy": self.remedy}


class InvalidProject(Refusal):
    """A file of the project in a form unknown to MLflow."""

    def __init__(self, message: str, remedy: str = "Write it as MLflow's documentation describes.") -> None:
        super().__init__("InvalidProject", message, "spec.source", remedy)
