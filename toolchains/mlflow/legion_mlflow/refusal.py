"""The one way in which this toolchain says no."""

from __future__ import annotations


class Refusal(Exception):
    """A run that the toolchain itself refuses, in words that end up in the training's status."""

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
    """A file of the project that is not what MLflow reads."""

    def __init__(self, message: str, remedy: str = "Write it as MLflow's documentation has it.") -> None:
        super().__init__("InvalidProject", message, "spec.source", remedy)
