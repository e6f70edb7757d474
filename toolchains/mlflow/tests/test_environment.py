"""Declared environments: built by the real uv, used by real runs, kept for the next one."""

import os
import pwd
import zipfile
from pathlib import Path

import pytest
from harness import Outcome, document, mlflow_command, run

from legion_mlflow import environment

pytestmark = pytest.mark.slow


def wheel(directory: Path, name: str, version: str, tells: str | None = None) -> None:
    """Creates a wheel with one module that tells its version. It needs no index."""
    directory.mkdir(exist_ok=True)
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(directory / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{name}.py", f"VERSION = {tells or version!r}\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")


def test_a_user_unknown_to_the_image_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    own = environment.Environment(source="toolchain", bin=Path("/opt/bin"), driver=Path("/opt/bin/python"))
    assert environment.command_environment(own, {"PATH": "/bin"})["LOGNAME"] == str(os.getuid())
    monkeypatch.setenv("USER", "ann")
    assert "LOGNAME" not in environment.command_environment(own, {"USER": "ann"})


@pytest.fixture
def project(tmp_path: Path) -> Path:
    directory = tmp_path / "project"
    directory.mkdir()
    wheel(directory / "wheels", "legion_probe", "1.2.3")
    (directory / "train.py").write_text(
        "import sys, legion_probe\nprint('probe', legion_probe.VERSION, 'in', sys.prefix)\n"
        "try:\n    import sklearn\nexcept ImportError:\n    print('nothing of the toolchain')\n"
    )
    return directory


def train(project: Path, tmp_path: Path, **fields) -> Outcome:
    arguments = {"requireModel": False, "wheels": "wheels", **fields.pop("arguments", {})}
    work = tmp_path / f"work-{len(list(tmp_path.glob('work-*')))}"
    env = {"LEGION_CACHE": str(tmp_path / "cache"), "UV_OFFLINE": "1"}
    return run(mlflow_command("3"), work, document(entrypoint="train.py", arguments=arguments, **fields), project, env)


def test_an_environment_without_mlflow_is_built_once_and_holds_nothing_else(project: Path, tmp_path: Path) -> None:
    (project / "conda.yaml").write_text("dependencies: [gcc_linux-64, pip: [legion-probe==1.2.3]]")
    first = train(project, tmp_path)
    assert first.code == 0, first.log
    assert f"probe 1.2.3 in {tmp_path}/cache/environments/" in first.log and "nothing of the toolchain" in first.log
    assert first.result["environment"]["from"] == "project"
    assert "CondaPackagesIgnored" in first.notices()
    built = list((tmp_path / "cache" / "environments").glob("*[!.lock]"))

    again = train(project, tmp_path)
    assert again.code == 0, again.log
    assert "building the environment" in first.log and "building the environment" not in again.log
    assert list((tmp_path / "cache" / "environments").glob("*[!.lock]")) == built


def test_a_training_may_choose_the_toolchains_environment(project: Path, tmp_path: Path) -> None:
    (project / "python_env.yaml").write_text("dependencies: [legion-probe]")
    outcome = train(project, tmp_path, arguments={"environment": "toolchain"})
    assert outcome.code == 1
    assert outcome.error["reason"] == "ModuleMissing" and "legion_probe" in outcome.error["message"]
    assert "python_env.yaml" in outcome.error["remedy"]


def test_a_project_with_its_own_mlflow_is_driven_by_that_one(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "python_env.yaml").write_text("dependencies: [mlflow-skinny==3.16.0]")
    (project / "train.py").write_text(
        "import mlflow\nmlflow.log_metric('a', 1.0, step=1)\nmlflow.log_metric('a', 2.0, step=2)\n"
    )
    training = document(entrypoint="train.py", arguments={"requireModel": False})
    outcome = run(mlflow_command("3"), tmp_path / "work", training, project)
    assert outcome.code == 0, outcome.log
    assert outcome.result["external"]["version"] == "3.16.0"
    assert outcome.metrics() == {"a": [(1, "1.0"), (2, "2.0")]}


def test_requirements_in_utf16_install(project: Path, tmp_path: Path) -> None:
    (project / "python_env.yaml").write_text("dependencies: [-r requirements.txt]")
    (project / "requirements.txt").write_bytes("legion-probe==1.2.3\r\n".encode("utf-16"))
    outcome = train(project, tmp_path)
    assert outcome.code == 0 and "probe 1.2.3" in outcome.log, outcome.log


def test_a_wheel_that_was_built_again_is_installed(project: Path, tmp_path: Path) -> None:
    """Same name, same size, other content."""
    (project / "python_env.yaml").write_text("dependencies: [legion-probe]")
    assert "probe 1.2.3" in train(project, tmp_path).log
    wheel(project / "wheels", "legion_probe", "1.2.3", "3.2.1")
    assert "probe 3.2.1" in train(project, tmp_path).log


def test_an_mlflow_that_is_too_old_is_named_with_what_is_supported(project: Path, tmp_path: Path) -> None:
    wheel(project / "wheels", "mlflow", "1.30.1")
    (project / "python_env.yaml").write_text("dependencies: [mlflow==1.30.1, legion-probe]")
    outcome = train(project, tmp_path)
    assert outcome.code == 2 and outcome.error["reason"] == "MlflowNotSupported"
    assert "MLflow 1.30.1" in outcome.error["message"] and "MLflow 2 and 3" in outcome.error["message"]


def test_a_project_in_a_directory_with_a_number_sign_runs(project: Path, tmp_path: Path) -> None:
    work = tmp_path / "exp#2"
    training = document(entrypoint="train.py", arguments={"requireModel": False})
    (project / "train.py").write_text("import mlflow\nmlflow.log_param('a', 1)\n")
    outcome = run(mlflow_command("3"), work, training, project, {"LEGION_SOURCE": str(work / "source")})
    assert outcome.code == 0 and outcome.pairs("param") == {"a": "1"}, outcome.log


@pytest.mark.parametrize("wheels", ["../elsewhere", "missing", "train.py"])
def test_wheels_are_a_directory_of_the_project(project: Path, tmp_path: Path, wheels: str) -> None:
    (project / "python_env.yaml").write_text("dependencies: [legion-probe]")
    outcome = train(project, tmp_path, arguments={"wheels": wheels})
    assert outcome.code == 2 and outcome.error["field"] == "spec.arguments.wheels"
    assert repr(wheels) in outcome.error["message"]


def test_a_project_without_environment_cannot_use_its_own(project: Path, tmp_path: Path) -> None:
    outcome = train(project, tmp_path, arguments={"environment": "project"})
    assert outcome.code == 2 and outcome.error["reason"] == "NoProjectEnvironment"
