"""What is a local path? Held against uv's and pip's own grammar, and against what a project gets."""

import itertools
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from harness import document, mlflow_command, run

from legion_mlflow import places, requirements, venv
from legion_mlflow.project import Project

PYPROJECT = '[project]\nname = "ruler"\nversion = "0.1"\n[project.optional-dependencies]\nlong = []\n'
# A build backend inside the package, so that nothing is downloaded.
BACKEND = """
import zipfile
def build_wheel(directory, config_settings=None, metadata_directory=None):
    name = "ruler-0.1-py3-none-any.whl"
    with zipfile.ZipFile(directory + "/" + name, "w") as wheel:
        wheel.write("ruler/__init__.py")
        wheel.writestr("ruler-0.1.dist-info/METADATA", "Metadata-Version: 2.1\\nName: ruler\\nVersion: 0.1\\n")
        wheel.writestr("ruler-0.1.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("ruler-0.1.dist-info/RECORD", "")
    return name
build_editable = build_wheel
"""
BUILD = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'


def package(directory: Path, length: int) -> None:
    """Creates the package `ruler` as a source tree that knows its length."""
    (directory / "ruler").mkdir(parents=True, exist_ok=True)
    (directory / "pyproject.toml").write_text(PYPROJECT + BUILD)
    (directory / "backend.py").write_text(BACKEND)
    (directory / "ruler" / "__init__.py").write_text(f"def length(): return {length}\n")


def forms(root: Path) -> Iterator[tuple[str, bool]]:
    """Generates statements of all forms, each with whether it means a path."""
    wheel = "ruler-0.1-py3-none-any.whl"
    paths = ["vendor/ruler", "./vendor/ruler", "../project/vendor/ruler", f"{root}/vendor/ruler", "vendor/ruler/"]
    paths += [f"file://{root}/vendor/ruler", "${BASE}/vendor/ruler", "vendor/../vendor/ruler"]
    paths += [f"wheels/{wheel}", wheel, f"./{wheel}", f"file://{root}/{wheel}"]
    for path, extra, marker in itertools.product(paths, ("", "[long]"), ("", " ; python_version >= '3.8'")):
        yield f"{path}{extra}{marker}", True
    for path, marker in itertools.product(paths, ("", " ; python_version >= '3.8'", "  # the ruler")):
        if path.startswith(("file:", "${")):
            yield f"ruler @ {path}{marker}", True
            yield f"ruler[long]@ {path}{marker}", True
    for path in paths[:7]:
        yield f"-e {path}", True
        yield f"--editable {path}", True
        yield f"--editable={path}[long]", True
    names = ["ruler", "ruler==0.1", "ruler >= 0.1, < 2", "ruler~=0.1", "Ruler_x.y", "ruler!=1.*", "ruler===0.1"]
    names += ["ruler[long]", "ruler[long, wide]>=0.1", "ruler (>=0.1)", "vendor"]
    for name, marker in itertools.product(names, ("", "; python_version >= '3.8'", " # a name")):
        yield f"{name}{marker}", False
    yield f"ruler==0.1 --hash=sha256:{'0' * 64}", False
    yield "ruler @ https://127.0.0.1:9/ruler-0.1-py3-none-any.whl", False
    yield "https://127.0.0.1:9/ruler-0.1-py3-none-any.whl", False
    yield "ruler @ git+https://127.0.0.1:9/ruler.git@main#subdirectory=x", False


# Prints, for each line of standard input, whether pip takes it as a local path: yes, no, or its error.
ASK_PIP = """
import logging, sys, tempfile
from pip._internal.network.session import PipSession
from pip._internal.req.constructors import install_req_from_parsed_requirement
from pip._internal.req.req_file import parse_requirements
logging.disable()
for line in sys.stdin.read().splitlines():
    with tempfile.NamedTemporaryFile("w", suffix=".txt", dir=".") as file:
        file.write(line + "\\n")
        file.flush()
        try:
            (parsed,) = parse_requirements(file.name, PipSession())
            requirement = install_req_from_parsed_requirement(parsed)
            print("yes" if requirement.link and requirement.link.scheme == "file" else "no")
        except Exception as error:
            print("error", str(error).replace("\\n", " "))
"""


def ask_pip(lines: list[str], root: Path, env: dict[str, str]) -> list[str]:
    command = [sys.executable, "-c", ASK_PIP]
    text = "\n".join(lines)
    done = subprocess.run(command, cwd=root, env=env, input=text, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def ask_uv(uv: Path, line: str, root: Path, env: dict[str, str], number: int) -> str:
    """Resolves one line with uv, without an index: what it finds is local. Returns yes, no, or uv's error."""
    listing = root / f"requirements-{number}.txt"
    listing.write_text(line + "\n")
    command = [str(uv), "pip", "compile", "--no-deps", "--no-index", "--offline", listing.name]
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True)
    if done.returncode == 0:
        return "yes"
    remote = ("was not found", "network", "git", "Git", "no-index", "no versions")
    return "no" if any(word in done.stderr for word in remote) else f"error {done.stderr}"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    package(root / "vendor" / "ruler", 1)
    (root / "wheels").mkdir()
    for name in ("wheels/ruler-0.1-py3-none-any.whl", "ruler-0.1-py3-none-any.whl"):
        with zipfile.ZipFile(root / name, "w") as archive:
            archive.writestr("ruler-0.1.dist-info/METADATA", "Metadata-Version: 2.1\nName: ruler\nVersion: 0.1\n")
            archive.writestr("ruler-0.1.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            archive.writestr("ruler-0.1.dist-info/RECORD", "")
    return root


def test_local_is_what_uv_or_pip_take_from_a_path(root: Path) -> None:
    env = {**os.environ, "BASE": f"file://{root}", "UV_CACHE_DIR": str(root.parent / "cache")}
    for name in ("UV_FIND_LINKS", "PIP_FIND_LINKS"):
        env.pop(name, None)
    table = list(forms(root))
    lines = [line for line, _ in table]
    # uv's own search for its program is not safe in threads.
    program = venv.find_uv()
    with ThreadPoolExecutor(4) as pool:
        uv = list(pool.map(lambda pair: ask_uv(program, pair[1], root, env, pair[0]), enumerate(lines)))
    pip = ask_pip(lines, root, env)
    wrong = []
    for (line, expected), of_uv, of_pip in zip(table, uv, pip):
        (statement,) = places.statements(line, env)
        mine = places.is_local(statement)
        if mine is not expected or (mine is False and "yes" in (of_uv, of_pip)):
            wrong.append((line, mine, of_uv, of_pip))
        # Without this the rule "everything is local" would pass.
        if mine and of_uv != "yes" and of_pip != "yes":
            wrong.append((line, "neither uv nor pip takes it as a path", of_uv, of_pip))
    assert not wrong, "\n".join(map(str, wrong))
    assert {"yes", "no"} <= set(uv) and {"yes", "no"} <= set(pip)


@pytest.mark.parametrize(
    ("statement", "local"),
    [
        ("--index-url https://host/simple", False),
        ("--extra-index-url=https://host/simple", False),
        ("--extra-index-url ./simple", True),
        ("-f wheels", True),
        ("--find-links https://host/wheels", False),
        ("--no-index", False),
        ("-r more.txt", False),
        ("-r https://host/more.txt", True),
        ("--an-option-of-a-later-uv x", True),
        ("ruler @ git+file:///srv/ruler", True),
        ("ruler @ vendor/ruler", True),
        ("${NOT_SET}", True),
    ],
)
def test_options_and_addresses(statement: str, local: bool) -> None:
    assert places.is_local(statement) is local


def wanted(root: Path, *lines: str) -> requirements.Wanted:
    (root / "python_env.yaml").write_text("dependencies:\n" + "".join(f"- {line}\n" for line in lines))
    return requirements.read(Project(root, python_env=root / "python_env.yaml"))


def test_included_files_and_settings_are_searched_too(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("numpy==2.1\n-c sub/b.txt\n")
    (tmp_path / "sub").mkdir()
    for name, text in (("b.txt", "ruler \\\n  @ ./x\n"), ("c.txt", "numpy\n")):
        (tmp_path / "sub" / name).write_text(text)
    assert wanted(tmp_path, "-r a.txt").uses_project_files({})
    (tmp_path / "sub" / "b.txt").write_text("ruler==1\n")
    plain = wanted(tmp_path, "-r a.txt")
    assert not plain.uses_project_files({})
    assert not plain.uses_project_files({"UV_CONSTRAINT": "sub/c.txt", "UV_INDEX": "https://a/ mine=https://b/"})
    assert plain.uses_project_files({"UV_INDEX": "./simple"})
    (tmp_path / "sub" / "c.txt").write_text("ruler @ file:///x\n")
    assert plain.uses_project_files({"UV_CONSTRAINT": "sub/c.txt"})
    (tmp_path / "pyproject.toml").write_text("[tool.uv]\nfind-links = ['./wheels']\n")
    assert plain.uses_project_files({})


def test_build_dependencies_may_be_paths(tmp_path: Path) -> None:
    (tmp_path / "python_env.yaml").write_text("build_dependencies: [vendor/ruler]\n")
    assert requirements.read(Project(tmp_path, python_env=tmp_path / "python_env.yaml")).uses_project_files({})


def test_the_value_of_a_variable_is_part_of_the_content(tmp_path: Path) -> None:
    declared = wanted(tmp_path, "ruler @ https://${HOST}/ruler.whl")
    assert declared.content({"HOST": "one"}) != declared.content({"HOST": "two"})


@pytest.mark.parametrize(
    "data",
    [
        "größe==1\n".encode("utf-16"),
        b"\xef\xbb\xbf" + "größe==1\n".encode(),
        "# -*- coding: latin-1 -*-\ngröße==1\n".encode("latin-1"),
        "größe==1\n".encode(),
    ],
)
def test_requirements_in_every_encoding(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "r.txt").write_bytes(data)
    assert "größe==1" in places.read_requirements(tmp_path / "r.txt").splitlines()


@pytest.mark.slow
def test_a_package_of_the_project_belongs_to_the_attempt(tmp_path: Path) -> None:
    """As in the case found by use: a changed package, and the same text in another project."""

    def length(work: str, package_length: int) -> str:
        # A new workspace at the same place, as in a pod.
        shutil.rmtree(tmp_path / work, ignore_errors=True)
        project = tmp_path / work / "source"
        package(project / "vendor" / "ruler", package_length)
        (project / "python_env.yaml").write_text("dependencies:\n  - vendor/ruler\n")
        (project / "train.py").write_text("import ruler\nprint('length', ruler.length(), ruler.__file__)\n")
        training = document(entrypoint="train.py", arguments={"requireModel": False})
        env = {"LEGION_CACHE": str(tmp_path / "cache"), "UV_OFFLINE": "1"}
        outcome = run(mlflow_command("3"), tmp_path / work, training, None, env)
        assert outcome.code == 0, outcome.log
        return outcome.log.split("length ")[1][0]

    assert length("one", 1) == "1"
    # uv's own cache must see the change, too.
    assert length("one", 2) == "2"
    assert length("other", 9) == "9"
    assert not (tmp_path / "cache" / "environments").exists()
