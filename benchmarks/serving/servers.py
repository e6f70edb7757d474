"""The servers that are measured: how each is started, and what a request to it looks like."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

APPS = Path(__file__).parent / "apps"


@dataclass(frozen=True)
class Place:
    """What a server needs to start."""

    python: Path
    legion_server: Path
    model: Path
    raw: Path
    work: Path
    port: int

    def program(self, name: str) -> str:
        """Returns a program of the environment."""
        return str(self.python.parent / name)


Words = list[str]
Variables = dict[str, str]
Start = Callable[[Place], tuple[Words, Variables]]


@dataclass(frozen=True)
class Server:
    """One row of the tables."""

    key: str
    title: str
    environment: str
    # Whether the row skips pyfunc and pandas.
    is_raw: bool
    start: Start
    path: str = "/invocations"
    # The form of the request: `split`, `records`, `instances` or `tensor`.
    body: str = "split"

    @property
    def is_legion(self) -> bool:
        return self.key.startswith("legion")


def predictions(answer: bytes) -> list[float]:
    """Returns the numbers of an answer. BentoML answers with the list alone."""
    value: Any = json.loads(answer)
    if isinstance(value, dict):
        value = value["outputs"][0]["data"] if "outputs" in value else value["predictions"]
    return [float(number) for number in value]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def mlflow(place: Place) -> tuple[Words, Variables]:
    command = [place.program("mlflow"), "models", "serve", "--model-uri", str(place.model), "--env-manager", "local"]
    return [*command, "--host", "127.0.0.1", "--port", str(place.port)], {}


def mlserver(place: Place) -> tuple[Words, Variables]:
    """Starts it as `mlserver start` does, with the runtime for MLflow and one worker."""
    return serve_with_mlserver(place, {"implementation": "mlserver_mlflow.MLflowRuntime"}, place.model, {})


def mlserver_batching(place: Place) -> tuple[Words, Variables]:
    """Starts it with the library's own runtime, batches, and no worker beside the server."""
    booster = place.raw / "model.ubj"
    name = "mlserver_xgboost.XGBoostModel" if booster.exists() else "mlserver_sklearn.SKLearnModel"
    file = booster if booster.exists() else place.raw / "model.joblib"
    # As many rows as legion-server takes, and the wait of MLServer's own example.
    batches = {"implementation": name, "max_batch_size": 256, "max_batch_time": 0.01}
    return serve_with_mlserver(place, batches, file, {"parallel_workers": 0})


def serve_with_mlserver(
    place: Place, model: dict[str, Any], uri: Path, settings: dict[str, Any]
) -> tuple[Words, Variables]:
    ports = {"http_port": place.port, "grpc_port": free_port(), "metrics_port": free_port()}
    settings = {"host": "127.0.0.1", "debug": False, **ports, **settings}
    model = {"name": "m", **model, "parameters": {"uri": str(uri)}}
    (place.work / "settings.json").write_text(json.dumps(settings))
    (place.work / "model-settings.json").write_text(json.dumps(model))
    return [place.program("mlserver"), "start", str(place.work)], {}


def bentoml(place: Place) -> tuple[Words, Variables]:
    command = [place.program("bentoml"), "serve", "bentoml_service:Model", "--working-dir", str(APPS)]
    variables = {
        "MODEL_DIR": str(place.model),
        "BENTOML_HOME": str(place.work / "home"),
        "BENTOML_DO_NOT_TRACK": "True",
    }
    return [*command, "--host", "127.0.0.1", "--port", str(place.port)], variables


def kserve(place: Place) -> tuple[Words, Variables]:
    return [str(place.python), str(APPS / "kserve_model.py")], {"RAW_DIR": str(place.raw), "PORT": str(place.port)}


def fastapi(place: Place) -> tuple[Words, Variables]:
    command = [place.program("uvicorn"), "fastapi_app:app", "--app-dir", str(APPS), "--no-access-log"]
    variables = {"MODEL_DIR": str(place.model)}
    return [*command, "--host", "127.0.0.1", "--port", str(place.port)], variables


def gunicorn(place: Place) -> tuple[Words, Variables]:
    command = [place.program("gunicorn"), "flask_app:app", "--chdir", str(APPS), "--workers", "2"]
    return [*command, "--bind", f"127.0.0.1:{place.port}"], {"MODEL_DIR": str(place.model)}


def legion(batching: str, raw: str) -> Start:
    def start(place: Place) -> tuple[Words, Variables]:
        variables = {
            "LEGION_MODEL_DIR": str(place.model),
            "LEGION_BIND": f"127.0.0.1:{place.port}",
            "LEGION_PYTHON": str(place.python),
            "LEGION_BATCHING": batching,
            "LEGION_RAW": raw,
        }
        return [str(place.legion_server), "serve"], variables

    return start


# The servers by hand and legion-server have one environment, so only the servers differ.
ALL = (
    Server("mlflow", "`mlflow models serve`", "mlflow", False, mlflow),
    Server("mlserver", "MLServer, MLflow runtime", "mlserver", False, mlserver),
    Server(
        "mlserver-raw",
        "MLServer, own runtime, batches (raw)",
        "mlserver",
        True,
        mlserver_batching,
        "/v2/models/m/infer",
        "tensor",
    ),
    Server("bentoml", "BentoML", "bentoml", False, bentoml, "/predict", "records"),
    Server("kserve", "KServe's server (raw)", "kserve", True, kserve, "/v1/models/m:predict", "instances"),
    Server("fastapi", "FastAPI by hand", "legion", False, fastapi),
    Server("gunicorn", "Flask by hand, gunicorn, 2 processes", "legion", False, gunicorn),
    Server("legion-unbatched", "legion-server without batching", "legion", False, legion("off", "off")),
    Server("legion", "legion-server", "legion", False, legion("auto", "off")),
    Server("legion-raw", "legion-server (raw)", "legion", True, legion("auto", "auto")),
)
