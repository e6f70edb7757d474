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

from legion_mlflow.protocol import cache_directory


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


def open_store(work: Path, attempt: int, env: dict[str, str], toolchain: str) -> Store:
    """Opens the user's server, else a new store: sqlite if this MLflow can use it, files otherwise.

    Sets MLflow's variables in `env`, for this process and for the project's command. `toolchain` is the prefix of the
    toolchain's environment.
    """
    named = env.get("MLFLOW_TRACKING_URI", "")
    if named.startswith(("http://", "https://")):
        return Store(named, None)
    directory = work / f"mlflow-{attempt}"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    if _sqlite_works():
        database = directory / "mlflow.db"
        _from_template(database, directory, toolchain)
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


def _shipped(prefix: str) -> Path:
    """Returns the directory of databases that come with the toolchain's environment."""
    return Path(prefix) / "share" / "legion-mlflow"


def make_template(places: list[Path], writable: list[Path]) -> Path | None:
    """Returns an empty database with all tables. MLflow needs seconds to create one, a copy takes none.

    Only MLflow's version decides what is in it. So all environments with that version share one: the first of `places`
    that has it. Otherwise it is created in the first of `writable` that is. Returns None if none is.
    """
    import mlflow

    name = f"tracking-{mlflow.__version__}.db"
    for place in places:
        if (place / name).exists():
            return place / name
    for place in writable:
        with contextlib.suppress(OSError):
            place.mkdir(parents=True, exist_ok=True)
            return _create(place / name)
    return None


def _create(template: Path) -> Path:
    """Creates the database, once for any number of concurrent callers."""
    lock = template.with_suffix(".lock").open("w")
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if template.exists():
            return template
        building = template.with_suffix(f".{os.getpid()}")
        building.unlink(missing_ok=True)
        _initialize(building)
        building.rename(template)
    return template


def prepare() -> None:
    """Creates the database of this interpreter's MLflow, to be shipped in an image."""
    make_template([_shipped(sys.prefix)], [_shipped(sys.prefix)])


def _initialize(database: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    SqlAlchemyStore(f"sqlite:///{database}", str(database.parent))


def _from_template(database: Path, directory: Path, toolchain: str) -> None:
    places = [_shipped(toolchain), cache_directory(os.environ) / "tracking"]
    # The toolchain's own database belongs to its environment, if that is writable. One of a project's MLflow does not.
    template = make_template(places, places if sys.prefix == toolchain else places[1:])
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
