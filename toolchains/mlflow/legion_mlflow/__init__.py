"""Legion's MLflow toolchain.

The modules at this level run in the toolchain's interpreter and decide *where* a project runs. Those in ``inside`` run
in the interpreter that was chosen, next to the MLflow that the project uses.
"""

__version__ = "0.1.0"
