"""Why did uv fail? Its first words, its hints, and the remedy for the cause."""

from __future__ import annotations

import re
from dataclasses import dataclass

_LONGEST = 700


@dataclass
class Cause:
    """A cause of a failed installation: how uv tells it, the field that heals it, and how."""

    words: re.Pattern[str]
    field: str
    remedy: str


def _cause(words: str, field: str, remedy: str) -> Cause:
    return Cause(re.compile(words, re.IGNORECASE), field, remedy)


# The first match counts. uv names several causes in a chain, so a more specific one comes first.
CAUSES = (
    _cause(
        r"peer certificate|UnknownIssuer|certificate verify failed|self.signed certificate",
        "spec.env",
        "Set SSL_CERT_FILE in spec.env of the training or of the toolchain, to the file with the certificates of the "
        "package index or proxy, as /etc/ssl/certs/ca-certificates.crt.",
    ),
    _cause(
        r"index-strategy",
        "spec.env",
        "If all indexes are equally trusted, set UV_INDEX_STRATEGY to unsafe-best-match in spec.env. Then the best "
        "version of all indexes is taken, as by pip.",
    ),
    _cause(
        r"network was disabled",
        "spec.env",
        "Remove UV_OFFLINE from spec.env, or put the wheels into the source and name their directory in "
        "spec.arguments.wheels.",
    ),
    _cause(
        r"no wheels with a matching|only found wheels|doesn't have a (?:source distribution|wheel)|"
        r"does not satisfy Python|depends on Python",
        "spec.arguments.python",
        "Set spec.arguments.python to a version of Python that the package supports, name another version of the "
        "package in {file}, or set spec.arguments.environment to toolchain.",
    ),
    _cause(
        r"failed to build|build backend",
        "spec.source",
        "Name a version of the package with a wheel for this machine in {file}, or use an image with the tools that "
        "the build needs (spec.image).",
    ),
    _cause(
        r"\b(?:401|403)\b|unauthorized|forbidden",
        "spec.env",
        "Check the address of the package index and its credentials (UV_DEFAULT_INDEX, UV_INDEX) in spec.env.",
    ),
    _cause(r"no space left", "spec.workspace.size", "Raise spec.workspace.size."),
    _cause(
        r"error sending request|failed to fetch|dns error|timed out|connection",
        "spec.env",
        "Check the address of the package index (UV_DEFAULT_INDEX) and the proxy (HTTPS_PROXY) in spec.env. Without "
        "network put the wheels into the source and name their directory in spec.arguments.wheels.",
    ),
)
_OTHER = Cause(
    re.compile(""),
    "spec.source",
    "Correct {file} in the project's source. For a private index set UV_DEFAULT_INDEX in spec.env.",
)


def of(output: str, file: str) -> tuple[str, str]:
    """Returns field and remedy for uv's output. `file` declares the environment."""
    cause = next((cause for cause in CAUSES if cause.words.search(output)), _OTHER)
    return cause.field, cause.remedy.format(file=file)


def first_words(output: str) -> str:
    """Returns uv's first lines and all its hints, in one line. What is left out is marked."""
    lines = [" ".join(line.split()) for line in output.splitlines() if line.strip()]
    at = next((i for i, line in enumerate(lines) if line.startswith("hint:")), len(lines))
    hints = _cut(" ".join(lines[at:]), _LONGEST // 2)
    words = _cut(" ".join(lines[:at]), _LONGEST - len(hints))
    return f"{words} {hints}".strip()


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
