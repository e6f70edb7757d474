"""Measures the first run of a small project: its environment is built, and MLflow's tables are created or copied.

The duration depends on what else the machine does. The processor time of all processes hardly does.

Every round has a new cache of environments. uv's cache of packages is warm, after one round that is not counted. Give
the toolchain of another commit with `--package` to compare both in turn, on the same machine and at the same time:

    git archive COMMIT toolchains/mlflow | tar x -C /tmp/before
    cd toolchains/mlflow/tests
    ~/.cache/legion-tests/mlflow-3/bin/python first_run.py --package /tmp/before/toolchains/mlflow

Run `./test` once before. It creates the toolchain's environment.
"""

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import document, variables

HERE = Path(__file__).parents[1]
CODE = "import mlflow\nmlflow.log_metric('loss', 0.5)\n"
ENVIRONMENT = "dependencies: [mlflow==3.17.2]\n"


def seconds(package: Path) -> tuple[float, float]:
    """Returns the duration of a first run with that package, and the processor time of all its processes."""
    with tempfile.TemporaryDirectory() as directory:
        project = Path(directory) / "project"
        project.mkdir()
        (project / "train.py").write_text(CODE)
        (project / "python_env.yaml").write_text(ENVIRONMENT)
        (project / "MLproject").write_text("python_env: python_env.yaml\n")
        training = document(entrypoint="train.py", arguments={"requireModel": False})
        env = variables(Path(directory) / "work", training, project)
        env |= {"LEGION_CACHE": str(Path(directory) / "cache"), "PYTHONPATH": str(package)}
        # The home directory of a run is new, so uv would look for its packages there.
        env.setdefault("UV_CACHE_DIR", str(Path.home() / ".cache" / "uv"))
        began, used = time.monotonic(), processor_time()
        command = [sys.executable, "-m", "legion_mlflow"]
        done = subprocess.run(command, cwd=directory, env=env, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(done.stdout + done.stderr)
        return time.monotonic() - began, processor_time() - used


def processor_time() -> float:
    """Returns the seconds of processor time that ended child processes took."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--package", type=Path, action="append", default=[], help="toolchains/mlflow of another commit")
parser.add_argument("--rounds", type=int, default=5)
options = parser.parse_args()
packages = [HERE, *(path.resolve() for path in options.package)]
seconds(HERE)
found: dict[Path, list[tuple[float, float]]] = {package: [] for package in packages}
for _ in range(options.rounds):
    for package in packages:
        found[package].append(seconds(package))
        print("%.1f s, %.1f s of processor time: %s" % (*found[package][-1], package), flush=True)
print(f"{os.cpu_count()} processors, load {os.getloadavg()[1]:.1f}, Python {platform.python_version()}")
for package, rounds in found.items():
    wall, processor = (statistics.median(column) for column in zip(*rounds))
    print(f"median {wall:.1f} s, {processor:.1f} s of processor time: {package}")
