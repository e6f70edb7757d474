"""What is a local path? The one answer for every line of requirements that uv and pip accept."""

from __future__ import annotations

import codecs
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

# A requirement by name: `name`, `name[extra]`, `name==1; marker`, and `name @ address` for a remote address. All other
# text is a path, or may be one. So the pattern lists what an index or a host delivers, and not the forms of a path:
# `lib/x`, `x.whl`, `..`, `file:x`, `x @ lib/x`, `lib[extra]/` and those of a later uv.
_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_EXTRAS = r"(?:\s*\[[A-Za-z0-9._,\s-]*\])?"
_VERSIONS = r"\(?\s*(?:[<>=!~]=?=?\s*[A-Za-z0-9.*+!_-]+\s*,?\s*)*\)?"
_REMOTE = r"(?:(?:git|hg|svn|bzr)\+)?(?:https?|ssh|s3|gs)://\S*"
_BY_NAME = re.compile(rf"{_NAME}{_EXTRAS}\s*(?:{_VERSIONS}|@\s*{_REMOTE})\s*(?:;.*)?")
_BY_ADDRESS = re.compile(rf"{_REMOTE}(?:\s*;.*)?")
# pip takes such a word as the path of an archive, also without a slash.
_ARCHIVE = re.compile(
    r"\.(?:whl|zip|tar|tgz|tbz2?|txz|tlz|tar\.(?:gz|bz2|xz|lzma?|lz|zst))(?:\[|\s|;|$)", re.IGNORECASE
)

# Options whose value is an address, and options that say nothing on a place.
_INDEX_OPTIONS = ("-i", "--index-url", "--extra-index-url", "--pypi-url")
_INCLUDES = ("-r", "--requirement", "--requirements", "-c", "--constraint", "--constraints")
_PLAIN_OPTIONS = (
    *("--no-index", "--pre", "--prefer-binary", "--require-hashes", "--hash", "--no-binary", "--only-binary"),
    *("--trusted-host", "--use-feature", "--no-use-pep517", "--use-pep517"),
)
_COMMENT = re.compile(r"(?:^|\s)#.*$")
# uv's and pip's own pattern. uv sets PROJECT_ROOT itself, to the working directory.
_VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)\}")
_OPTIONS = re.compile(r"\s+(?=--[a-z])")
_BOMS = (
    *((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32")),
    *((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16")),
)
_CODING = re.compile(rb"^[ \t\f]*#.*?coding[:=][ \t]*([-_.a-zA-Z0-9]+)")


def read_requirements(path: Path) -> str:
    """Returns the text of a requirements file in the encodings that uv and pip take: UTF-8, and any with a mark.

    Raises OSError, or UnicodeError for bytes that are not text.
    """
    data = path.read_bytes()
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return data[len(mark) if encoding == "utf-8" else 0 :].decode(encoding)
    for line in data.split(b"\n")[:2]:
        named = _CODING.match(line)
        if named:
            try:
                return data.decode(named.group(1).decode("ascii"))
            except LookupError:
                break
    return data.decode("utf-8")


def statements(text: str, env: Mapping[str, str]) -> list[str]:
    """Returns the requirements and options of a text: lines joined, without comments, with the variables' values."""
    joined = re.sub(r"\\\r?\n", " ", text)
    lines = (_COMMENT.sub("", line).strip() for line in joined.splitlines())
    return [_VARIABLE.sub(lambda found: env.get(found[1]) or found[0], line) for line in lines if line]


def included(statement: str) -> str | None:
    """Returns the file that a `-r` or a `-c` names, as written, else None."""
    option, value = _option(statement)
    return value if option in _INCLUDES else None


def is_local(statement: str) -> bool:
    """Returns whether a statement installs, or may install, something from a path of this machine.

    Text that this function does not know is local: then it costs a build, otherwise an outdated package would run.
    """
    if statement.startswith("-"):
        option, value = _option(statement)
        if option in _PLAIN_OPTIONS:
            return False
        if option in _INDEX_OPTIONS or option in ("-f", "--find-links"):
            return not is_remote(value)
        if option in _INCLUDES:
            # A local file is read, too. The content of a remote one is unknown.
            return "://" in value and not value.startswith("file://")
        return True
    requirement = _OPTIONS.split(statement)[0].strip()
    if _BY_ADDRESS.fullmatch(requirement):
        return False
    if "@" not in requirement.split(";")[0] and _ARCHIVE.search(requirement.split(";")[0]):
        return True
    return _BY_NAME.fullmatch(requirement) is None


def is_remote(address: str) -> bool:
    """Returns whether an address of an index, or of a page with links, is at another host."""
    return re.match(r"(?:[\w.-]+=)?https?://", address) is not None


def _option(statement: str) -> tuple[str, str]:
    """Returns the first option of a statement and its value: `-r x`, `-rx`, `--requirement=x`."""
    if not statement.startswith("-"):
        return "", ""
    try:
        words = shlex.split(statement)
    except ValueError:
        words = statement.split()
    first = words[0]
    if not first.startswith("--") and len(first) > 2:
        return first[:2], first[2:].lstrip("=")
    option, equals, value = first.partition("=")
    return option, value if equals else " ".join(words[1:])
