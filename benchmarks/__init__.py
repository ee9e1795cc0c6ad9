"""Benchmarks of speed, and experiments on the sound world."""

import sys
from pathlib import Path

# For the models that the tests use, and for the parts of the tiny backbone's build.
sys.path += [str(Path(__file__).parent.parent / name) for name in ("tests", "tools")]
