"""Records the exception that ends a Python program. It runs in the project's own processes, as ``sitecustomize``.

What a program prints cannot tell which exception ended it: programs print exceptions that they handle. Python itself
knows it: for an exception that no code handled it sets ``sys.last_value``, and then calls the functions of ``atexit``.

Only the standard library, and only what every Python 3 has. Nothing here may change or fail the program: it removes its
own directory from ``sys.path`` and from ``PYTHONPATH``, so the programs that the program starts do not record. Their
failure counts only if it fails their parent.
"""

import atexit
import json
import os
import sys

FILE = "exception.json"
_MOST_FRAMES = 100
_LONGEST_TEXT = 4000


def _begin():
    here = os.path.dirname(os.path.abspath(__file__))
    before = os.environ.get("PYTHONPATH", "")
    if before == here:
        del os.environ["PYTHONPATH"]
    elif before.startswith(here + os.pathsep):
        os.environ["PYTHONPATH"] = before[len(here) + 1 :]
    sys.path[:] = [entry for entry in sys.path if entry != here]
    path = os.path.join(here, FILE)
    # This also replaces what an earlier command of the same shell left.
    _write(path, None)
    atexit.register(_end, path, os.getpid(), os.getcwd())


def _end(path, process, directory):
    # A forked process has this function, too.
    if os.getpid() == process:
        error = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
        if error is not None:
            _write(path, _describe(error, directory))


def _describe(error, directory):
    kind = type(error)
    name = getattr(kind, "__qualname__", kind.__name__)
    if kind.__module__ not in ("builtins", "__main__"):
        name = kind.__module__ + "." + name
    try:
        message = str(error)
    except Exception:
        message = ""
    frames = []
    trace = error.__traceback__
    while trace is not None:
        frames.append([os.path.join(directory, trace.tb_frame.f_code.co_filename), trace.tb_lineno])
        trace = trace.tb_next
    if isinstance(error, SyntaxError) and error.filename:
        message = error.msg
        frames.append([os.path.join(directory, error.filename), error.lineno])
    return {"type": name, "message": message[:_LONGEST_TEXT], "frames": frames[-_MOST_FRAMES:]}


def _write(path, content):
    with open(path + ".part", "w", encoding="utf-8") as file:
        json.dump(content, file)
    os.replace(path + ".part", path)


def _next():
    """Runs the environment's own ``sitecustomize``, which this one hides."""
    own = sys.modules.pop("sitecustomize")
    try:
        import sitecustomize  # noqa: F401
    except ImportError:
        pass
    finally:
        sys.modules.setdefault("sitecustomize", own)


if __name__ == "sitecustomize":
    try:
        _begin()
    except Exception as error:
        sys.stderr.write("legion-mlflow: the end of this program is not recorded: %s\n" % error)
    _next()
