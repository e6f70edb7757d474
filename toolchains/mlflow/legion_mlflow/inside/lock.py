"""The closure of a model's requirements, as installed in this interpreter."""

from __future__ import annotations

from importlib import metadata

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name


def closure(lines: list[str]) -> list[str]:
    """Returns `name==version` of everything the lines need, sorted. A package not installed stays as written."""
    locked: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    pending: list[tuple[Requirement, str]] = []
    for line in lines:
        text = line.split(" #")[0].strip()
        if not text or text.startswith(("#", "-")):
            continue
        try:
            pending.append((Requirement(text), text))
        except InvalidRequirement:
            locked[text] = text
    while pending:
        requirement, text = pending.pop()
        name = canonicalize_name(requirement.name)
        try:
            distribution = metadata.distribution(requirement.name)
        except metadata.PackageNotFoundError:
            locked.setdefault(name, text)
            continue
        locked[name] = f"{name}=={distribution.version}"
        for extra in ("", *requirement.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            pending += _needs(distribution, extra)
    return [locked[name] for name in sorted(locked)]


def _needs(distribution: metadata.Distribution, extra: str) -> list[tuple[Requirement, str]]:
    needs = []
    for text in distribution.requires or []:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            needs.append((requirement, text))
    return needs
