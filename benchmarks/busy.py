"""Work beside other processes, with the default threads against one thread; and what that costs on an idle machine."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from benchmarks.harness import Bench, Contender
from benchmarks.options import option
from benchmarks.processes import DEFAULTS, ONE_THREAD, Measured, run_function, run_process, textcap
from benchmarks.short_files import differing_lines
from benchmarks.sounds import tiny_model, world_captions, world_sounds
from textcap.cli.app import IDLE_THREADS
from textcap.config import BackboneConfig, DecodingConfig
from textcap.models.backbone import read_backbone_config
from textcap.models.beam_search import beam_search
from textcap.models.gpt2 import Gpt2LanguageModel
from textcap.models.mapper import Mapper
from textcap.models.precision import prepare

STEP_CAPTIONS = 128
# How often the work on an idle machine is done for a model.
N_CALLS = {"full size": 1, "tiny": 60}


@dataclass(frozen=True)
class Sizes:
    """How much to do beside how many others."""

    files: int = option(100, "files of 1 s to caption")
    steps: int = option(20, "training steps")
    processes: int = option(4, "busy processes")
    idle_rounds: int = option(5, "rounds of the comparison on an idle machine; 0 leaves it out")


def run(bench: Bench, sizes: Sizes) -> None:
    """Measure captioning and training on a busy machine, then the policy of waiting threads on an idle one."""
    sounds, model = world_sounds(bench.work, sizes.files, 1.0), tiny_model(bench.work)
    captions, trained = world_captions(bench.work, STEP_CAPTIONS * sizes.steps), bench.work / f"busy-{os.getpid()}"

    def caption(env: dict[str, str | None]) -> Measured:
        return run_process(textcap("caption", "-m", model, "--quiet", sounds), bench.work, env)

    def train(env: dict[str, str | None]) -> Measured:
        options = ("--backbone", "tiny", "--epochs", "1", "--held-out", "0", "--force", "--quiet")
        return run_process(textcap("train", captions, "-o", trained, *options), bench.work, env)

    train(ONE_THREAD)  # keeps the embeddings of the captions
    threads = {"default threads": DEFAULTS, "one thread": ONE_THREAD}
    with busy(sizes.processes):
        # Training first: captioning empties the stores.
        for what, work, before in (
            (f"{sizes.steps} training steps", train, lambda: None),
            (f"{sizes.files} short files", caption, bench.empty_stores),
        ):
            contenders = [
                Contender(name, lambda env=env, work=work: work(env), n_rounds=2, before=before)
                for name, env in threads.items()
            ]
            default, one = bench.compare(f"{what}, busy", contenders, differing_lines, n_rounds=2).values()
            question = f"{what} beside {sizes.processes} busy processes"
            bench.bar(
                question, "one thread", default.median_s / one.median_s, 1.2, unit="times its wall time", is_most=True
            )
    shutil.rmtree(trained, ignore_errors=True)
    if sizes.idle_rounds:
        compare_policies(bench, sizes.idle_rounds)


def compare_policies(bench: Bench, n_rounds: int) -> None:
    """Measure what it costs on an idle machine that threads sleep while they wait."""

    def steady(backbone: str, settings: dict[str, str]) -> Measured:
        used = run_function("busy.steady_work", bench.work, backbone, env={**DEFAULTS, **settings})
        wall_s, cpu_s = map(float, used.output.split())
        return Measured("", wall_s, cpu_s)

    for backbone, n_calls in N_CALLS.items():
        contenders = [
            Contender(name, lambda settings=settings, backbone=backbone: steady(backbone, settings))
            for name, settings in (("threads sleep", IDLE_THREADS), ("torch's default", {}))
        ]
        what = f"{2 * n_calls} steps and {4 * n_calls} captions, {backbone}, idle"
        asleep, default = bench.compare(what, contenders, lambda ours, theirs: "", n_rounds=n_rounds).values()
        cost = 100 * (asleep.median_s / default.median_s - 1)
        bench.bar(what, "torch's default", cost, 3, unit="% slower", is_most=True)


def steady_work(backbone: str) -> None:
    """Train and caption, and print the seconds of wall and CPU time after one round to warm up."""
    config = BackboneConfig() if backbone == "full size" else read_backbone_config(backbone)
    torch.manual_seed(0)
    mapper, language_model = Mapper(config.mapper), Gpt2LanguageModel(config.language_model)
    decoder = prepare(Gpt2LanguageModel(config.language_model))
    embeddings = torch.nn.functional.normalize(torch.randn(8, config.mapper.embedding_width), dim=-1)
    tokens, lengths = torch.randint(0, config.language_model.vocab_size, (8, 12)), torch.full((8,), 12)

    def work() -> None:
        for _ in range(2):
            language_model.loss(mapper(embeddings), tokens, lengths).backward()
        with torch.inference_mode():
            beam_search(decoder, mapper(embeddings[:4]), DecodingConfig(max_tokens=10), end_id=-1)

    def work_all() -> None:
        for _ in range(N_CALLS[backbone]):
            work()

    work()
    wall, cpu = time.perf_counter(), time.process_time()
    work_all()
    print(time.perf_counter() - wall, time.process_time() - cpu)


@contextlib.contextmanager
def busy(n: int) -> Iterator[None]:
    """Keep processes busy within the block."""
    others = [subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]) for _ in range(n)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()
