"""The harness is a directory of modules, without a package."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
