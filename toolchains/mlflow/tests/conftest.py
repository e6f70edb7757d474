"""Fixtures: a workspace, and the MLflow versions."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(params=["3", "2"])
def mlflow_version(request: pytest.FixtureRequest) -> str:
    """Both generations of MLflow."""
    return request.param
