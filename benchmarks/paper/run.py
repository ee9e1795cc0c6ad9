"""Run the paper's five experiments on the sound world, in about two hours on two cores.

    python -m benchmarks.paper [--work FOLDER] [--jobs 2] [--half-shift] [--experiments 1 2 3 4 5] [--seeds 3]
        [--jars FOLDER]

Each mapper is one part. Its captions are kept in the work folder, and so are embeddings and scores, so an interrupted
run continues. Prints a table for each experiment, writes the tables to results.md in the work folder, and draws the
noise sweep. SPICE is skipped if its jars are missing; --jars names the file or folder to take CoreNLP's from.
"""

import argparse
import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import torch

from benchmarks.dial.narrow import narrow_backbone, weights_hash
from benchmarks.paper.parts import part_path, run_part
from benchmarks.paper.plan import EXPERIMENTS, HALF, SEEDS, Part, Plan, parts_of
from benchmarks.paper.scores import score_parts
from benchmarks.paper.tables import write_tables
from benchmarks.paper.worlds import prepare
from benchmarks.sound_world import fill_jars, refuse_other_plan
from textcap.models.backbone import Backbone


def main() -> None:
    """Run the missing parts, score them, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("paper-benchmark"), help="folder to keep results in")
    parser.add_argument("--jobs", type=int, default=2, help="mappers to train at once, one thread each")
    numbers = sorted(EXPERIMENTS)
    parser.add_argument("--experiments", type=int, nargs="+", choices=numbers, default=numbers, help="which to run")
    parser.add_argument("--half-shift", action="store_true", help="on the dial's gap, of which half is a shift")
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="how many seeds of each mapper to run")
    parser.add_argument("--jars", type=Path, help="file or folder with CoreNLP 3.6.0 and its models, for SPICE")
    parser.add_argument("--plot", type=Path, help="file for the plot of the noise sweep (default: in the work folder)")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    started_s, plan = time.monotonic(), Plan()
    weights = Backbone.load(plan.backbone).content_hash
    if options.half_shift:
        plan = Plan(backbone=str(narrow_backbone(options.work / "backbone")), shift=HALF)
        weights = weights_hash()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    refuse_other_plan(options.work, plan, weights)
    if options.jars is not None:
        fill_jars(options.work, options.jars)
    prepare(plan, options.work, options.jobs)
    parts = parts_of(options.experiments, options.seeds)
    run_parts(plan, options.work, parts, options.jobs)
    text = write_tables(options.work, score_parts(options.work, parts), options.plot or options.work / "noise.svg")
    print(f"{text}\n{(time.monotonic() - started_s) / 60:.0f} minutes", flush=True)


def run_parts(plan: Plan, work: Path, parts: list[Part], n_jobs: int) -> None:
    """Run the parts without a result, several at once."""
    missing = [part for part in parts if not part_path(work, part).exists()]
    one_thread = {"initializer": torch.set_num_threads, "initargs": (1,)}
    with ProcessPoolExecutor(n_jobs, mp_context=get_context("spawn"), **one_thread) as pool:
        futures = [pool.submit(run_part, plan, work, part) for part in missing]
        for place, future in enumerate(as_completed(futures)):
            print(f"{place + 1} of {len(missing)}: {future.result()}", flush=True)


if __name__ == "__main__":
    main()
