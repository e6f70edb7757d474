"""The tracking store of one attempt: a new one, unless the user names a server."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sqlite3
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit


@dataclass
class Store:
    """A tracking store."""

    uri: str
    # Directory of a store for this attempt only. None for a server.
    directory: Path | None
    # A store named by the user, but not used.
    ignored: str = ""

    @property
    def is_private(self) -> bool:
        """Whether everything in the store belongs to this attempt."""
        return self.directory is not None

    @property
    def address(self) -> str:
        """The address without name and password."""
        return without_credentials(self.uri)


def without_credentials(uri: str) -> str:
    """Returns a URI without its name and password."""
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def open_store(work: Path, attempt: int, env: dict[str, str]) -> Store:
    """Opens the user's server, else a new store: sqlite if this MLflow can use it, files otherwise.

    Sets MLflow's variables in `env`, for this process and for the project's command.
    """
    named = env.get("MLFLOW_TRACKING_URI", "")
    if named.startswith(("http://", "https://")):
        return Store(named, None)
    directory = work / f"mlflow-{attempt}"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    if _sqlite_works():
        database = directory / "mlflow.db"
        _from_template(database, directory)
        # Without this, MLflow 3 puts the default experiment's artifacts below the working directory.
        env["_MLFLOW_SERVER_ARTIFACT_ROOT"] = str(directory / "artifacts")
        uri = f"sqlite:///{database}"
    else:
        # MLflow 3 uses files only with this consent.
        env["MLFLOW_ALLOW_FILE_STORE"] = "true"
        uri = (directory / "runs").as_uri()
    env["MLFLOW_TRACKING_URI"] = uri
    env.pop("MLFLOW_REGISTRY_URI", None)
    return Store(uri, directory, ignored=without_credentials(named))


def _sqlite_works() -> bool:
    """Returns whether this MLflow has its SQL store. mlflow-skinny has none, nor has MLflow 2 beside SQLAlchemy 2.1."""
    try:
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
    except ImportError:
        return False
    return True


def _template() -> Path:
    import mlflow

    return Path(sys.prefix) / "share" / "legion-mlflow" / f"tracking-{mlflow.__version__}.db"


def make_template() -> Path | None:
    """Returns an empty database with all tables. MLflow needs seconds to create one, a copy takes none.

    Returns None if the interpreter's prefix is not writable.
    """
    template = _template()
    if template.exists():
        return template
    try:
        template.parent.mkdir(parents=True, exist_ok=True)
        lock = template.with_suffix(".lock").open("w")
    except OSError:
        return None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if template.exists():
            return template
        building = template.with_suffix(f".{os.getpid()}")
        building.unlink(missing_ok=True)
        _initialize(building)
        building.rename(template)
    return template


def _initialize(database: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    SqlAlchemyStore(f"sqlite:///{database}", str(database.parent))


def _from_template(database: Path, directory: Path) -> None:
    template = make_template()
    if template is None:
        return
    shutil.copyfile(template, database)
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        # The mode stays in the file. The harvest reads while the project writes, and a point costs one flush only.
        connection.execute("PRAGMA journal_mode=WAL")
        # In the template, the default experiment points below the template.
        connection.execute(
            "UPDATE experiments SET artifact_location = ? || '/' || experiment_id", (str(directory / "artifacts"),)
        )
