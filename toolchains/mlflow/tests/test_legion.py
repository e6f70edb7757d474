"""The promise: a project completed by `mlflow run` gives the same parameters, metrics, tags and model as a training.

Each project is run both ways, with both generations of MLflow: by plain `mlflow run`, and by Legion as a whole
(manifest, operator, pod, MLflow, publishing, status).
"""

import json
import math
import os
import shutil
import subprocess
import tarfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from comparison import Plain, of_events, plain, same_files, same_model
from harness import LEFT_OUT, REPOSITORY, interpreter, sampled

# The environment of `./test` for MLflow 2.22, as a project declares it. SQLAlchemy is left to the toolchain.
MLFLOW_2 = {
    "build_dependencies": ["pip==25.3", "setuptools==80.9.0"],
    "dependencies": ["mlflow==2.22.5", "scikit-learn==1.9.1", "pandas==2.3.3"],
}


@dataclass(frozen=True, eq=False)
class Case:
    """A project with its training."""

    name: str
    version: str
    project: Path
    spec: dict = field(default_factory=dict)

    @property
    def entry(self) -> str:
        return self.spec.get("entrypoint", "main")

    @property
    def parameters(self) -> dict[str, str]:
        return self.spec.get("hyperParameters", {})

    @property
    def arguments(self) -> dict:
        return self.spec.get("arguments", {})

    def __str__(self) -> str:
        return f"{self.name}-{self.version}"


def example(name: str, version: str = "3") -> Case:
    directory = REPOSITORY / "examples" / name
    spec = yaml.safe_load((directory / "example.yaml").read_text())["spec"]
    return Case(name, version, directory / "project", spec)


def package_settings() -> list[dict[str, str]]:
    """Returns this machine's settings for the package index: a pod has none of the machine's own variables."""
    named = ("SSL_CERT_FILE", "SSL_CERT_DIR", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
    settings = {k: v for k, v in os.environ.items() if k.upper() in named or k.startswith(("UV_", "PIP_"))}
    # Packages downloaded by `./test` for its own environments are not downloaded again.
    settings.setdefault("UV_CACHE_DIR", str(Path.home() / ".cache" / "uv"))
    return [{"name": name, "value": value} for name, value in sorted(settings.items())]


def steps(version: str) -> Case:
    spec = {"model": {"name": "steps", "version": "1"}, "toolchain": "mlflow", "entrypoint": "main"}
    spec["hyperParameters"] = {"c": "0.50", "more": "1.10"}
    spec["objective"] = {"metric": "odd", "goal": "Maximize"}
    return Case("steps", version, Path(__file__).parent / "projects" / "steps", spec)


CASES = [
    *(example("wine"), example("diabetes"), example("grid-search"), steps("3")),
    *(steps("2"), example("grid-search", "2")),
]


SAMPLE = sampled(CASES, lambda case: case.version)


@pytest.fixture(scope="session")
def plainly(tmp_path_factory, request):
    """Runs plain `mlflow run` for each case, one after the other, while Legion trains on the other processor."""
    named = {item.callspec.params["case"] for item in request.session.items if "plainly" in item.fixturenames}
    named &= set(SAMPLE)
    stores = tmp_path_factory.mktemp("stores")
    with ThreadPoolExecutor(max_workers=1) as pool:
        yield {
            case: pool.submit(
                plain,
                case.version,
                stores / f"mlflow-{case.version}.db",
                str(case),
                tmp_path_factory.mktemp("plain") / "work",
                case.project,
                case.entry,
                case.parameters,
            )
            for case in CASES
            if case in named
        }


@pytest.fixture(scope="session")
def legion(tmp_path_factory):
    """Trains a manifest with the built `legionctl` named by `cargo xtask test`, and returns the training's status."""
    legionctl = os.environ.get("LEGIONCTL")
    if not legionctl:
        pytest.skip("LEGIONCTL is not set: Legion itself is NOT compared; set it to a built legionctl")
    data = tmp_path_factory.mktemp("data")

    def train(manifest: Path) -> dict:
        command = [legionctl, "local", "run", "-f", str(manifest), "--output", "json", "--data-dir", str(data)]
        done = subprocess.run(command, cwd=manifest.parent, capture_output=True, text=True, timeout=1800)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["status"]

    return train


@pytest.mark.slow
@pytest.mark.parametrize("case", [pytest.param(c, marks=() if c in SAMPLE else LEFT_OUT) for c in CASES], ids=str)
def test_legion_and_mlflow_run_give_the_same(case: Case, legion, plainly, tmp_path: Path) -> None:
    status = legion(manifest(case, tmp_path))
    expected: Plain = plainly[case].result()

    main = expected.logged.main
    assert status.get("parameters", {}) == one_line(main["params"])
    assert status["tags"] == one_line(main["tags"])
    assert status["omitted"] == {"metrics": 0, "parameters": 0, "tags": 0}
    found = {metric["name"]: metric for metric in status["metrics"]}
    assert found.keys() == main["metrics"].keys()
    for name, points in main["metrics"].items():
        summarized(found[name], points)
    name, score = status["score"].split("=")
    assert name == case.spec["objective"]["metric"]
    # Four significant digits of the last value.
    assert math.isclose(float(score), float(max(main["metrics"][name])[1]), rel_tol=1e-3)
    assert status["external"]["version"].startswith("3." if case.version == "3" else "2.22.")
    assert status["environment"]["from"] == ("toolchain" if case.version == "3" else "project")

    logged = of_events(json.loads(line) for line in place(status["series"]).read_text().splitlines())
    assert logged.main == main
    assert logged.children == expected.logged.children

    unpack(place(status["artifact"]), tmp_path / "artifact")
    if "files" in status:
        unpack(place(status["files"]), tmp_path / "files")
    same_files(tmp_path / "files", tmp_path / "artifact", status["artifact"]["model"], expected)
    # The files first. Python writes compiled files into the model when it is loaded.
    same_model(tmp_path / "artifact" / "model", expected, case.version)
    validate = [interpreter("3"), "-m", "legion_mlflow", "validate-gppi", str(tmp_path / "artifact")]
    assert subprocess.run(validate, cwd=tmp_path).returncode == 0
    assert status["artifact"]["signature"] is (case.name != "steps")
    assert status["artifact"]["model"] == case.arguments.get("model", "model")


def manifest(case: Case, tmp_path: Path) -> Path:
    """Returns the manifest of the case: an example's own one, or one with the same project in a ConfigMap."""
    shipped = case.project.parent / "training.yaml"
    if case.version == "3" and shipped.exists():
        return shipped
    project = tmp_path / "project"
    shutil.copytree(case.project, project)
    if case.version == "2":
        (project / "python_env.yaml").write_text(yaml.safe_dump(MLFLOW_2))
        if not (project / "MLproject").exists():
            (project / "MLproject").write_text("python_env: python_env.yaml\n")
    name = f"{case.name}-{case.version}"
    source = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}
    source["data"] = {path.name: path.read_text() for path in project.iterdir()}
    training = {"apiVersion": "legion-platform.org/v1alpha1", "kind": "ModelTraining", "metadata": {"name": name}}
    training["spec"] = {**case.spec, "source": {"configMap": {"name": name}}, "env": package_settings()}
    path = tmp_path / "training.yaml"
    path.write_text(yaml.safe_dump_all([source, training]))
    return path


def unpack(file: Path, target: Path) -> None:
    with tarfile.open(file) as archive:
        # Debian 12 has Python 3.11.2, without filters.
        if hasattr(tarfile, "data_filter"):
            archive.extraction_filter = tarfile.data_filter
        archive.extractall(target)


def one_line(pairs: dict[str, str]) -> dict[str, str]:
    """Returns texts as in the status."""
    return {name: " ".join(value.split("\n")) for name, value in pairs.items()}


def place(published: dict) -> Path:
    """Returns the file of a URI in the status."""
    return Path(urlsplit(published["uri"]).path)


def summarized(metric: dict, points: list) -> None:
    """Checks one metric of the status against its points. For a step logged twice the order in time decides."""
    assert metric["count"] == len(points)
    step, last = max(points)
    assert metric["step"] == step
    if last == "measured":
        return
    if len([point for point in points if point[0] == step]) == 1:
        assert float(metric["value"]) == float(last) or last == metric["value"] == "NaN"
    values = [float(value) for _, value in points if value != "NaN"]
    assert (float(metric["min"]), float(metric["max"])) == (min(values), max(values))
