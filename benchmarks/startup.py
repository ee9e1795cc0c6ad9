"""Caption one short file, from the start of the process to the caption, against a bare import of torch.

--python takes the interpreter of another environment, such as a plain install.
"""

import sys
from dataclasses import dataclass

from benchmarks.harness import Bench, Contender
from benchmarks.options import option
from benchmarks.processes import DEFAULTS, Measured, run_process
from benchmarks.sounds import tiny_model, world_sounds


@dataclass(frozen=True)
class Sizes:
    """Where to measure."""

    python: str = option(sys.executable, "interpreter that textcap is installed for")


def run(bench: Bench, sizes: Sizes) -> None:
    """Measure both processes."""
    [sound] = world_sounds(bench.work, 1, 1.0).iterdir()
    model = tiny_model(bench.work)

    def python(*arguments: object) -> Measured:
        return run_process([sizes.python, *map(str, arguments)], bench.work, DEFAULTS)

    contenders = [
        Contender(
            "textcap caption", lambda: python("-m", "textcap", "caption", sound, "-m", model), before=bench.empty_stores
        ),
        Contender("import torch", lambda: python("-c", "import torch")),
    ]
    found = bench.compare("one 1 s file", contenders, lambda ours, theirs: "", n_rounds=5)
    ratio = found["textcap caption"].median_s / found["import torch"].median_s
    bench.bar("one 1 s file, process start to caption", "import torch", ratio, 2.8, is_most=True)
