"""Run benchmarks by name, each of several in a process of its own.

A single benchmark takes its sizes as further options, which `--sizes` lists.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent

# What `make bench` runs, in this order.
QUESTIONS = ("startup", "reading", "short-files", "audio-tower", "text-tower", "caption", "training-step", "busy")
# These take longer, need something special, or belong to other parts of textcap.
OTHERS = ("corpus", "growth", "page", "precision", "language-model", "gpu", "flops", "score", "store", "significance")
WORK = Path(os.environ.get("TEXTCAP_BENCH", Path(tempfile.gettempdir()) / "textcap-bench"))


def main() -> int:
    """Run the named benchmarks.

    Returns:
        0, also if a bar was missed or a benchmark cannot run here; 1 if a contender gave a wrong output.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join((*QUESTIONS, *OTHERS))}")
    parser.add_argument("--work", type=Path, default=WORK, help="folder that keeps weights and sounds (%(default)s)")
    parser.add_argument("--rounds", type=int, help="rounds of each comparison (default: each benchmark's own)")
    parser.add_argument("--sizes", action="store_true", help="show the sizes that one benchmark can take as options")
    options, rest = parser.parse_known_args()
    rest += ["--help"] if options.sizes else []
    names = options.names or QUESTIONS
    if unknown := sorted({*names} - {*QUESTIONS, *OTHERS}):
        parser.error(f"there is no benchmark {', '.join(unknown)}")
    if len(names) == 1:
        return _run(names[0], options.work, options.rounds, rest)
    if rest:
        parser.error(f"{' '.join(rest)} can be given to a single benchmark only")
    given = ["--work", str(options.work), *(["--rounds", str(options.rounds)] if options.rounds else [])]
    started = time.time()
    codes = [subprocess.run([sys.executable, "-m", "benchmarks", name, *given], cwd=ROOT).returncode for name in names]
    _print_bars(names, started)
    return max(codes)


def _run(name: str, work: Path, n_rounds: int | None, rest: list[str]) -> int:
    from benchmarks.harness import Bench, OutputsDifferError
    from benchmarks.options import parse_sizes
    from benchmarks.processes import CannotRunError

    module = importlib.import_module(f"benchmarks.{name.replace('-', '_')}")
    sizes = parse_sizes(module.Sizes, name, module.__doc__, rest)
    work.mkdir(parents=True, exist_ok=True)
    bench = Bench(name, work, n_rounds=n_rounds)
    try:
        module.run(bench, sizes)
    except (CannotRunError, OutputsDifferError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return int(isinstance(error, OutputsDifferError))
    finally:
        bench.remove_caches()
    print(f"written to {os.path.relpath(bench.finish())}")
    return 0


def _print_bars(names: tuple[str, ...] | list[str], started: float) -> None:
    from benchmarks.harness import RESULTS, Bar

    print("\nall bars:")
    for name in names:
        path = RESULTS / f"{name}.json"
        if path.exists() and path.stat().st_mtime > started:
            for bar in json.loads(path.read_text(encoding="utf-8"))["bars"]:
                bar.pop("is_met")
                print(Bar(**bar))
    print(f"{(time.time() - started) / 60:.0f} minutes")


if __name__ == "__main__":
    sys.exit(main())
