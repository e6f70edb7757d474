"""Downloads a published Go toolchain, verifies it and unpacks it: URL SHA256 DIRECTORY."""

import hashlib
import io
import pathlib
import sys
import urllib.request
import zipfile

url, sha256, directory = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])
with urllib.request.urlopen(url) as response:
    archive = response.read()
found = hashlib.sha256(archive).hexdigest()
if found != sha256:
    sys.exit(f"{url} has the digest {found}, expected {sha256}")
with zipfile.ZipFile(io.BytesIO(archive)) as files:
    for name in files.namelist():
        # The first part is module@version. It contains a slash.
        relative = name.split("/", 2)[2]
        path = directory / relative
        if name.endswith("/") or ".." in path.parts:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(files.read(name))
        # A module archive has no permissions. The go command sets them as well.
        if relative.startswith(("bin/", "pkg/tool/")):
            path.chmod(0o755)
