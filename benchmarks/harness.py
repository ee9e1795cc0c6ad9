"""The common harness of the benchmarks: contenders in turn, outputs compared first, a table, bars and a JSON file.

A benchmark is a module with a function `run(bench, sizes)`. It gives its contenders to `Bench.compare`, and what was
promised to `Bench.bar`; nothing else prints, measures time or writes results.
"""

import dataclasses
import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.machine import Machine, count_gflop, gemm_gflops, inspect_machine
from benchmarks.processes import Measured

RESULTS = Path(__file__).parent / "results"
_TABLE_WIDTH = 130


class OutputsDifferError(Exception):
    """A contender's output is not that of the first: what it takes does not count."""


@dataclass(frozen=True)
class Contender:
    """One way to do the work.

    Attributes:
        name: As shown in the table.
        run: Does the work, and returns what the other contenders' outputs are compared with.
        n_items: How many items one call does; all figures are per item.
        n_rounds: Rounds to take part in, if not all.
        warms_up: Whether its first call, whose output is compared, is not timed. Only what is very slow is not warmed.
        before: Called before each call, outside the measured time.
    """

    name: str
    run: Callable[[], Any]
    n_items: int = 1
    n_rounds: int | None = None
    warms_up: bool = True
    before: Callable[[], None] = lambda: None


@dataclass
class Timing:
    """What was measured of one contender, per item.

    Attributes:
        what: The work.
        contender: Who did it.
        wall_s, cpu_s: Seconds of each round.
        gflop: Floating-point operations, if they were counted.
        share_of_peak: Speed as a share of the GEMM peak measured in the same rounds.
        peak_mb: The largest resident set, if the contender has a process of its own.
    """

    what: str
    contender: str
    wall_s: list[float] = dataclasses.field(default_factory=list)
    cpu_s: list[float] = dataclasses.field(default_factory=list)
    gflop: float | None = None
    share_of_peak: float | None = None
    peak_mb: float | None = None

    @property
    def median_s(self) -> float:
        """Median wall time."""
        return statistics.median(self.wall_s)


@dataclass(frozen=True)
class Bar:
    """What was promised of a figure, and what was measured.

    Attributes:
        question: What is measured.
        against: What it is compared with.
        measured: The figure.
        limit: The least that it may be, or the most.
        unit: Worded to follow a number, such as "times".
        is_most: Whether the limit is the most.
    """

    question: str
    against: str
    measured: float
    limit: float
    unit: str = "times"
    is_most: bool = False

    @property
    def is_met(self) -> bool:
        """Whether the figure is within the limit."""
        return self.measured <= self.limit if self.is_most else self.measured >= self.limit

    def __str__(self) -> str:
        rule = f"at {'most' if self.is_most else 'least'} {self.limit:g} {self.unit}"
        verdict = "met" if self.is_met else "missed"
        return f"{self.question}, against {self.against}: {self.measured:.3g} {self.unit}, {rule}: {verdict}"


class Bench:
    """One run of one benchmark.

    Args:
        name: The benchmark; its results are written to `NAME.json`.
        work: Folder that keeps what takes long to make and never changes: weights, sounds, models.
        results: Folder of the results.
        n_rounds: Rounds of every comparison; by default each benchmark's own.
        console: Where tables and bars go.
    """

    def __init__(
        self,
        name: str,
        work: Path,
        *,
        results: Path = RESULTS,
        n_rounds: int | None = None,
        console: Console | None = None,
    ) -> None:
        self.name, self.work, self.results = name, work, results
        self.timings: list[Timing] = []
        self.bars: list[Bar] = []
        self.notes: list[str] = []
        self._n_rounds = n_rounds
        # Wider than a narrow terminal, rather than with words cut off.
        self._console = console or Console(highlight=False, width=max(Console().width, _TABLE_WIDTH))
        self._started = time.time()
        # A table must not depend on what an earlier run has left in the cache, nor fill the user's.
        self._caches = work / f"caches-{os.getpid()}"
        os.environ["TEXTCAP_CACHE"] = str(self._caches)

    @cached_property
    def machine(self) -> Machine:
        """This machine, with its GEMM peak and memory bandwidth, which are measured now."""
        return inspect_machine()

    def compare(
        self,
        what: str,
        contenders: Sequence[Contender],
        difference: Callable[[Any, Any], str],
        *,
        n_rounds: int = 3,
        counts_flops: bool = False,
    ) -> dict[str, Timing]:
        """Measure contenders in turn, after their outputs were found to be the same.

        Args:
            what: The work, as shown in the table.
            contenders: Who does it; the others are compared with the first.
            difference: Returns in what two outputs differ, worded to follow the contender's name; empty if they agree.
            n_rounds: Rounds, each with one call of every contender.
            counts_flops: Whether to count the floating-point operations, and to measure the GEMM peak in each round.

        Returns:
            What was measured, by the name of the contender.

        Raises:
            OutputsDifferError: A contender's output differs; nothing was measured.
        """
        n_rounds = self._n_rounds or n_rounds
        found = {one.name: Timing(what, one.name) for one in contenders}
        first: Any = None
        for index, one in enumerate(contenders):
            self._status(f"{what}: {one.name}")
            one.before()
            output = None

            def call(one: Contender = one) -> None:
                nonlocal output
                output = self._measure(one, found[one.name], keeps=not one.warms_up)

            if counts_flops and one.warms_up:
                found[one.name].gflop = count_gflop(call) / one.n_items or None
            else:
                call()
            if index == 0:
                first = output
            elif problem := difference(first, output):
                raise OutputsDifferError(f"{what}: {one.name} {problem}")
        peaks = [gemm_gflops()] if counts_flops else []
        for index in range(n_rounds):
            for one in contenders:
                # A call that was not a warm-up was the contender's first round.
                if index + (not one.warms_up) < min(one.n_rounds or n_rounds, n_rounds):
                    self._status(f"{what}: {one.name}, round {index + 1} of {n_rounds}")
                    one.before()
                    self._measure(one, found[one.name], keeps=True)
            peaks += [gemm_gflops()] if counts_flops else []
        for timing in found.values():
            if timing.gflop:
                timing.share_of_peak = timing.gflop / timing.median_s / statistics.median(peaks)
        self.timings += found.values()
        return found

    def bar(self, question: str, against: str, measured: float, limit: float, **options: Any) -> None:
        """Hold a figure against what was promised; see `Bar`."""
        self.bars.append(Bar(question, against, measured, limit, **options))

    def note(self, text: str) -> None:
        """Add a line to the results, for what the table does not say."""
        self.notes.append(text)

    def record(self, timing: Timing) -> None:
        """Add a row that was measured outside of a comparison."""
        self.timings.append(timing)

    def empty_stores(self) -> None:
        """Delete every embedding that textcap has kept during this run."""
        shutil.rmtree(self._caches / "embeddings", ignore_errors=True)

    def remove_caches(self) -> None:
        """Delete everything that textcap has kept during this run."""
        shutil.rmtree(self._caches, ignore_errors=True)

    def finish(self) -> Path:
        """Print the table and the bars, and return the path of the JSON file with both."""
        if self.timings:
            self._console.print(self._table())
        for line in (*self.notes, *map(str, self.bars)):
            self._console.print(line, markup=False, soft_wrap=True)
        self.results.mkdir(parents=True, exist_ok=True)
        path = self.results / f"{self.name}.json"
        report = {
            "benchmark": self.name,
            "date": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(self._started)) + " UTC",
            "seconds": round(time.time() - self._started, 1),
            "machine": dataclasses.asdict(self.machine),
            "timings": [dataclasses.asdict(one) | {"median_s": one.median_s} for one in self.timings],
            "notes": self.notes,
            "bars": [dataclasses.asdict(bar) | {"is_met": bar.is_met} for bar in self.bars],
        }
        path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        return path

    def _measure(self, one: Contender, timing: Timing, *, keeps: bool) -> Any:
        wall, cpu = time.perf_counter(), sum(os.times()[:4])
        output = one.run()
        wall, cpu = time.perf_counter() - wall, sum(os.times()[:4]) - cpu
        measured = output if isinstance(output, Measured) else Measured(output, wall, cpu)
        if keeps:
            timing.wall_s.append(measured.wall_s / one.n_items)
            timing.cpu_s.append(measured.cpu_s / one.n_items)
            if measured.peak_mb is not None:
                timing.peak_mb = max(timing.peak_mb or 0.0, measured.peak_mb)
        return measured.output

    def _status(self, text: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
        elif text:
            print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)

    def _table(self) -> Table:
        self._status("")
        machine = self.machine
        title = (
            f"{self.name}: {machine.cpu}, {machine.n_cores} cores, {machine.n_threads} threads, "
            f"GEMM {machine.gemm_gflops:.0f} GFLOP/s, memory {machine.memory_gb_per_s:.0f} GB/s, "
            f"load {machine.load:.1f}"
        )
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
        for column in ("work", "contender", "median", "fastest to slowest", "CPU", "GFLOP", "of peak", "peak memory"):
            table.add_column(column, justify="left" if column in ("work", "contender") else "right", no_wrap=True)
        before = ""
        for one in self.timings:
            table.add_row(
                one.what if one.what != before else "",
                one.contender,
                seconds(one.median_s),
                f"{seconds(min(one.wall_s))} to {seconds(max(one.wall_s))}",
                seconds(statistics.median(one.cpu_s)),
                f"{one.gflop:.1f}" if one.gflop else "",
                f"{one.share_of_peak:.0%}" if one.share_of_peak else "",
                f"{one.peak_mb:,.0f} MB" if one.peak_mb else "",
            )
            before = one.what
        return table


def seconds(value: float) -> str:
    """Return a time with three digits, in seconds or milliseconds."""
    return f"{value:.3g} s" if value >= 1 else f"{1000 * value:.3g} ms"
