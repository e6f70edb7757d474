"""The remedy follows from uv's own words. The outputs are those of uv 0.13."""

import pytest

from legion_mlflow import causes

NO_WHEEL = """error: No solution found when resolving dependencies
  cause: Because tensorflow==1.15.0 has no wheels with a matching Python ABI tag (e.g., `cp311`) and you require
  tensorflow==1.15, we can conclude that your requirements are unsatisfiable.

hint: You require CPython 3.11 (`cp311`), but we only found wheels for `tensorflow` (v1.15.0) with other tags
"""
TLS = """error: Failed to fetch: https://index/simple/numpy/
  cause: error sending request for url (https://index/simple/numpy/)
  cause: client error (Connect)
  cause: invalid peer certificate: UnknownIssuer

hint: Consider enabling use of system TLS certificates with the `--system-certs` command-line flag
"""
EXTRA_INDEX = """error: No solution found when resolving dependencies
  cause: Because there is no version of iniconfig==2.0.0 and you require iniconfig==2.0.0, we can conclude that your
  requirements are unsatisfiable.

hint: `iniconfig` was found on https://one/simple/, but not at the requested version (iniconfig==2.0.0). A compatible
version may be available on a subsequent index (e.g., https://two/simple/). By default, uv will only consider versions
that are published on the first index that contains a given package. Use `--index-strategy unsafe-best-match` to
consider all versions
"""
OFFLINE = """error: No solution found when resolving dependencies
  cause: Because legion-no-such-package was not found in the cache and you require legion-no-such-package==1, we can
  conclude that your requirements are unsatisfiable.

hint: Packages were unavailable because the network was disabled.
"""


@pytest.mark.parametrize(
    ("output", "field", "words"),
    [
        (TLS, "spec.env", "SSL_CERT_FILE"),
        (EXTRA_INDEX, "spec.env", "UV_INDEX_STRATEGY to unsafe-best-match"),
        (NO_WHEEL, "spec.arguments.python", "spec.arguments.environment to toolchain"),
        (OFFLINE, "spec.env", "spec.arguments.wheels"),
        ("error: Failed to build `a`\n  cause: The build backend returned an error", "spec.source", "with a wheel"),
        ("error: HTTP status client error (401 Unauthorized) for url", "spec.env", "credentials"),
        ("error: failed to write\n  cause: No space left on device (os error 28)", "spec.workspace.size", "Raise"),
        ("error: Failed to fetch: x\n  cause: dns error", "spec.env", "HTTPS_PROXY"),
        ("cause: Because there is no version of iniconfig==77.0", "spec.source", "Correct python_env.yaml"),
    ],
)
def test_each_cause_has_its_field_and_remedy(output: str, field: str, words: str) -> None:
    assert causes.of(output, "python_env.yaml")[0] == field
    assert words in causes.of(output, "python_env.yaml")[1]


def test_the_first_words_and_the_hints_are_shown() -> None:
    words = causes.first_words(EXTRA_INDEX)
    assert words.startswith("error: No solution found")
    assert "hint: `iniconfig` was found on https://one/simple/" in words
    long = causes.first_words("error: the first\n" + "more\n" * 1000 + "\nhint: the hint\n")
    assert long.startswith("error: the first more") and long.endswith("… hint: the hint") and len(long) <= 710
