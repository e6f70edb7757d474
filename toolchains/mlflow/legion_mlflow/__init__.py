"""Legion's MLflow toolchain.

The modules at this level run in the toolchain's interpreter and decide *where* a project runs. Those in ``inside`` run
in the chosen interpreter, beside the project's own MLflow.
"""

__version__ = "0.1.0"
