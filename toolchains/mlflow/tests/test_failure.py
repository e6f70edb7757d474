"""What ended the run, for real programs: with the record of the Python that ran them, and as the status shows it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from harness import document, mlflow_command, run

from legion_mlflow.inside import failure
from legion_mlflow.protocol import Context

HANDLED = "import traceback\ntry:\n    import fastmath_gpu\nexcept ImportError:\n    traceback.print_exc()\n"


def explain(tmp_path: Path, program: str, *command: str) -> tuple[int, dict[str, str] | None]:
    """Runs a program as the project's command, and returns its exit code and the `error` of the result document."""
    source = tmp_path / "source"
    source.mkdir(exist_ok=True)
    (source / "train.py").write_text(program)
    recorder = failure.Recorder(tmp_path)
    with recorder.installed():
        done = subprocess.run(command or [sys.executable, "train.py"], cwd=source, capture_output=True, text=True)
    context = Context(document(), source, tmp_path, tmp_path, tmp_path, tmp_path)
    return done.returncode, failure.explain(recorder, done.stderr, done.returncode, context)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (HANDLED + "raise ValueError('no rows')", "ValueError: no rows (train.py, line 6)"),
        ("class Own(Exception): pass\nraise Own", "Own (train.py, line 2)"),
        ("import json\njson.loads('{')", "json.decoder.JSONDecodeError: Expecting property name"),
        ("def f(:\n", "SyntaxError: invalid syntax (train.py, line 1)"),
        ("import atexit, sys\natexit.register(print, 'bye', file=sys.stderr)\n1 / 0", "ZeroDivisionError: division by"),
        ("import sys\nsys.excepthook = lambda *_: print('own')\n{}['price']", "KeyError: 'price' (train.py, line 3)"),
        ("try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise OSError('a') from e", "OSError: a (train.py"),
        ("import subprocess, sys\nsubprocess.check_call([sys.executable, '-c', '1/0'])", "CalledProcessError: Command"),
    ],
)
def test_the_exception_that_ended_the_code_is_reported(tmp_path: Path, program: str, message: str) -> None:
    code, error = explain(tmp_path, program)
    assert code == 1 and error is not None
    assert (error["reason"], error["origin"], error["field"]) == ("ExceptionRaised", "code", "spec.source")
    assert message in error["message"]


@pytest.mark.parametrize(
    "command",
    [
        ("bash", "-c", "Rscript-3 train.R"),
        ("sh", "-c", "Rscript-3 train.R"),
    ],
)
def test_a_program_that_the_image_does_not_have_is_named(tmp_path: Path, command: tuple[str, ...]) -> None:
    code, error = explain(tmp_path, "", *command)
    assert code == 127 and error is not None
    assert (error["reason"], error["origin"], error["field"]) == ("ProgramMissing", "code", "spec.image")
    assert "'Rscript-3'" in error["message"]


def test_a_program_that_was_not_needed_did_not_end_the_code(tmp_path: Path) -> None:
    assert explain(tmp_path, "", "bash", "-c", "Rscript-3 train.R; exit 4") == (4, None)


@pytest.mark.parametrize(
    "program",
    [
        HANDLED + "import sys\nsys.exit(1)",
        HANDLED + "import os\nos._exit(1)",
        "import os, sys\nif os.fork() == 0:\n    1 / 0\nos.wait()\nsys.exit(1)",
        "import subprocess, sys\nsubprocess.call([sys.executable, '-c', '1/0'])\nsys.exit(1)",
        "import sys, threading\none = threading.Thread(target=lambda: 1 / 0)\none.start()\none.join()\nsys.exit(1)",
    ],
)
def test_a_handled_exception_did_not_end_the_code(tmp_path: Path, program: str) -> None:
    assert explain(tmp_path, program) == (1, None)


def test_the_last_program_of_a_shell_counts(tmp_path: Path) -> None:
    shell = f"'{sys.executable}' -c 1/0; '{sys.executable}' -c 'import sys; sys.exit(1)'"
    assert explain(tmp_path, "", "sh", "-c", shell) == (1, None)


def test_a_missing_module_is_a_failure_of_the_code(tmp_path: Path) -> None:
    code, error = explain(tmp_path, "\nimport fastmath_gpu\n")
    assert code == 1 and error is not None
    assert (error["reason"], error["origin"]) == ("ModuleMissing", "code")
    assert "fastmath_gpu" in error["message"] and "train.py, line 2" in error["message"]
    # An isolated Python does not record its end. Then its output counts.
    code, error = explain(tmp_path, "import fastmath_gpu\n", sys.executable, "-I", "train.py")
    assert code == 1 and error is not None and error["reason"] == "ModuleMissing"


def test_the_program_sees_nothing_of_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "sitecustomize.py").write_text("import builtins\nbuiltins.OWN = True\n")
    program = "import os, sys\nassert OWN\nprint(sys.path)\nassert os.environ['PYTHONPATH'] == {!r}\n"
    monkeypatch.setenv("PYTHONPATH", str(own))
    code, error = explain(tmp_path, program.format(str(own)) + "assert not [p for p in sys.path if 'ending' in p]\n")
    assert (code, error) == (0, None)
    assert os.environ["PYTHONPATH"] == str(own)


@pytest.mark.slow
def test_the_failure_of_a_training_names_exception_file_and_line(tmp_path: Path) -> None:
    """The case found by use: an optional module is looked for, and another exception ends the run."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "MLproject").write_text("entry_points:\n  main:\n    command: 'python train.py'\n")
    code = "import mlflow\nwith mlflow.start_run():\n    mlflow.log_param('rows', 0)\n    raise ValueError('no rows')\n"
    (project / "train.py").write_text(HANDLED + code)
    outcome = run(mlflow_command("3"), tmp_path / "work", document(), project)
    assert outcome.code == 1
    assert outcome.error == {
        "reason": "ExceptionRaised",
        "field": "spec.source",
        "message": "ValueError: no rows (train.py, line 9)",
        "remedy": "",
        "origin": "code",
    }
    assert outcome.pairs("param") == {"rows": "0"}
