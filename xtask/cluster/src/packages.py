"""Prints the ten largest packages of the image that runs it, Debian's and Python's: bytes, name and version."""

import subprocess
from importlib.metadata import distributions
from importlib.util import cache_from_source
from pathlib import Path


def size(path: Path) -> int:
    """Returns the size of a file and of its compiled form, 0 for a file that the image leaves out."""
    files = [path, Path(cache_from_source(str(path)))] if path.suffix == ".py" else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


found = []
for package in distributions():
    files = [Path(str(file.locate())) for file in package.files or () if file.suffix != ".pyc"]
    found.append((sum(map(size, files)), f"{package.metadata['Name']} {package.version}"))
# Debian gives sizes in units of 1024 bytes.
query = ["dpkg-query", "--show", "--showformat=${Installed-Size} ${Package} ${Version}, of Debian\\n"]
for line in subprocess.run(query, check=True, capture_output=True, text=True).stdout.splitlines():
    units, name = line.split(" ", 1)
    found.append((int(units) * 1024, name))
for number, name in sorted(found, reverse=True)[:10]:
    print(number, name)
