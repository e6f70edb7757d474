"""python_env.yaml and conda.yaml, and the search for their interpreter."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from legion_mlflow import interpreter, requirements, venv
from legion_mlflow.project import Project
from legion_mlflow.refusal import Refusal


def python_env(tmp_path: Path, text: str) -> requirements.Wanted:
    (tmp_path / "python_env.yaml").write_text(text)
    return requirements.read(Project(tmp_path, python_env=tmp_path / "python_env.yaml"))


def conda_env(tmp_path: Path, text: str) -> requirements.Wanted:
    (tmp_path / "conda.yaml").write_text(text)
    return requirements.read(Project(tmp_path, conda_env=tmp_path / "conda.yaml"))


def test_python_env(tmp_path: Path) -> None:
    wanted = python_env(
        tmp_path, 'python: "3.11"\nbuild_dependencies: [pip]\ndependencies: [-r requirements.txt, a==1]'
    )
    assert (wanted.python, wanted.build, wanted.packages) == ("3.11", ["pip"], ["-r requirements.txt", "a==1"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("python: 3.10", "3.10 becomes 3.1"),
        ("python: 3", "Quote it"),
        ("dependencies: numpy", "dependencies: 'numpy', but this is not a list"),
        ("build_dependencies: {pip: 1}", "build_dependencies: {'pip': 1}"),
        ("packages: [numpy]\npip: []", "unknown to MLflow: packages, pip"),
        ("", "python_env.yaml is empty"),
    ],
)
def test_an_unreadable_python_env_is_refused_with_its_field(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(Refusal) as caught:
        python_env(tmp_path, text)
    assert words in f"{caught.value.message} {caught.value.remedy}"


def test_conda_follows_mlflow_and_lists_ignored_packages(tmp_path: Path) -> None:
    text = "dependencies:\n- python=3.11\n- pip=24.0\n- numpy=2.1\n- gcc_linux-64\n- pip:\n  - mlflow==3.17.2\n  - b"
    wanted = conda_env(tmp_path, text)
    assert (wanted.python, wanted.build) == ("3.11", ["pip==24.0"])
    assert wanted.packages == ["mlflow==3.17.2", "b"]
    assert wanted.ignored == ["numpy=2.1", "gcc_linux-64"]


@pytest.mark.parametrize("entry", ["python", "python<3.12", "python!=3.9"])
def test_an_environment_has_one_version_of_python(tmp_path: Path, entry: str) -> None:
    with pytest.raises(Refusal, match=entry):
        conda_env(tmp_path, f"dependencies: ['{entry}']")
    assert conda_env(tmp_path, "dependencies: ['python>=3.9']").python == "3.9"


@pytest.mark.parametrize(
    ("entry", "version"),
    [
        ("python=3.10.*", "3.10"),
        ("python==3.10.*", "3.10"),
        ("python=3.10", "3.10"),
        ("python 3.10", "3.10"),
        ("python >=3.10,<3.11", "3.10"),
        ("conda-forge::python=3.10.4", "3.10.4"),
        ("python=3.10.4=h12debd9_0", "3.10.4"),
    ],
)
def test_every_pin_of_python_in_conda_counts(tmp_path: Path, entry: str, version: str) -> None:
    assert conda_env(tmp_path, f"dependencies: ['{entry}']").python == version


def test_build_tools_of_conda_keep_their_pins(tmp_path: Path) -> None:
    wanted = conda_env(tmp_path, "dependencies: [pip=24.*, 'setuptools<80', wheel, conda-forge::pip, 'pip>20,<24']")
    assert wanted.build == ["pip==24.*", "setuptools<80", "wheel", "pip"]
    assert wanted.ignored == ["pip>20,<24"]


def test_included_files_are_part_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("-r more.txt\na\n")
    (tmp_path / "more.txt").write_text("b\n")
    wanted = python_env(tmp_path, "dependencies: [-r requirements.txt]")
    before = wanted.content({})
    (tmp_path / "more.txt").write_text("c\n")
    assert wanted.content({}) != before
    (tmp_path / "more.txt").unlink()
    with pytest.raises(Refusal, match=r"more\.txt"):
        wanted.content({})


def fake_python(directory: Path, name: str, version: str) -> Path:
    path = directory / name
    path.write_text(f"#!/bin/sh\necho {version}\necho {path}\n")
    path.chmod(0o755)
    return path


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's home without interpreters."""
    monkeypatch.setattr(interpreter, "_home", lambda: tmp_path / "home")
    return tmp_path / "home"


@pytest.mark.parametrize("place", [".pyenv/versions/3.4.9/bin", ".local/share/uv/python/cpython-3.4.9-linux/bin"])
def test_an_interpreter_of_pyenv_or_uv_is_found_in_the_users_home(tmp_path: Path, home: Path, place: str) -> None:
    for version in ("3.4.8", "3.4.9", "3.4.10"):
        directory = home / place.replace("3.4.9", version)
        directory.mkdir(parents=True)
        fake_python(directory, "python3.4", version)
    assert find("3.4.8", tmp_path).version == "3.4.8"
    assert find("3.4", tmp_path).version == "3.4.10"


def find(wanted: str | None, path: Path) -> interpreter.Interpreter:
    env = {"PATH": f"{path}{os.pathsep}/usr/bin:/bin", "UV_PYTHON_DOWNLOADS": "never"}
    return interpreter.find(wanted, env, Path("/bin/false"), "spec.arguments.python", may_download=False)


def test_the_toolchains_own_interpreter_comes_first(tmp_path: Path) -> None:
    own = "{}.{}.{}".format(*sys.version_info[:3])
    for wanted in (None, own, own.rsplit(".", 1)[0]):
        assert find(wanted, tmp_path).version == own


def test_the_same_minor_is_taken_and_never_another(tmp_path: Path) -> None:
    expected = fake_python(tmp_path, "python3.4", "3.4.9")
    assert find("3.4.9", tmp_path).path == expected
    assert find("3.4.2", tmp_path).path == expected
    with pytest.raises(Refusal) as caught:
        find("3.5", tmp_path)
    assert caught.value.reason == "PythonNotAvailable"
    assert "3.5" in caught.value.message and "3.4.9" in caught.value.message
    assert caught.value.field == "spec.arguments.python" and "spec.image" in caught.value.remedy


def test_a_broken_shim_is_not_an_interpreter(tmp_path: Path) -> None:
    (tmp_path / "python3.4").write_text("#!/bin/sh\nexit 127\n")
    (tmp_path / "python3.4").chmod(0o755)
    with pytest.raises(Refusal, match=r"3\.4"):
        find("3.4", tmp_path)


def test_settings_of_pip_reach_uv_unless_uv_has_its_own() -> None:
    env = {"PIP_INDEX_URL": "https://one/", "PIP_FIND_LINKS": "/w", "UV_FIND_LINKS": "/mine", "VIRTUAL_ENV": "/v"}
    settings = venv.uv_environment(env)
    assert settings["UV_DEFAULT_INDEX"] == "https://one/"
    assert settings["UV_FIND_LINKS"] == "/mine"
    assert "VIRTUAL_ENV" not in settings
