"""``python -m legion_mlflow``."""

import sys

from legion_mlflow.cli import main

sys.exit(main())
