import traceback

import mlflow

try:
    import fastmath_gpu
except ImportError:
    traceback.print_exc()
with mlflow.start_run():
    mlflow.log_param("rows", 0)
    raise ValueError("the table has no rows after the filter year >= 2031")
