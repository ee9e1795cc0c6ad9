"""Caption 7-second clips with five beams, in a batch and one at a time, against the same model in transformers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from benchmarks import reference
from benchmarks.harness import Bench, Contender
from benchmarks.options import option
from benchmarks.weights import CLAPCAP, weights_in, window_sounds
from textcap.captioner import Captioner
from textcap.config import DecodingConfig

Caption = Callable[[Sequence[Path]], list[str]]


@dataclass(frozen=True)
class Sizes:
    """How much to caption."""

    clips: int = option(16, "clips of the batch")
    single_clips: int = option(4, "clips that are captioned one at a time")
    msclap_clips: int = option(1, "clips for msclap, which takes half a minute for each")
    tokens: int = option(20, "tokens of each caption")


def run(bench: Bench, sizes: Sizes) -> None:
    """Measure textcap, transformers and msclap."""
    weights = weights_in(bench.work)
    paths = window_sounds(bench.work, weights.config.clap.audio, sizes.clips)
    captioner = Captioner.released(weights.clapcap, torch.device("cpu"))
    decoding = DecodingConfig(max_tokens=sizes.tokens)

    def ours(batch: Sequence[Path]) -> list[str]:
        results = captioner.caption(batch, decoding=decoding, batch_size=len(batch))
        return [result.caption or str(result.error) for result in results]

    def contender(name: str, caption: Caption, batches: Sequence[Sequence[Path]]) -> Contender:
        def caption_all() -> list[str]:
            return [text for batch in batches for text in caption(batch)]

        return Contender(name, caption_all, sum(map(len, batches)), before=bench.empty_stores)

    theirs = reference.Captioner(weights, sizes.tokens)
    both = {"textcap": ours, "transformers": theirs}
    kinds = {
        f"captions, batch of {sizes.clips}": [paths],
        "captions, one at a time": [[path] for path in paths[: sizes.single_clips]],
    }
    least = {"transformers": (2.7, 1.9), "msclap": (28, 8)}
    medians: dict[str, list[float]] = {}
    for what, batches in kinds.items():
        contenders = [contender(name, caption, batches) for name, caption in both.items()]
        found = bench.compare(what, contenders, differing_captions, counts_flops=True)
        for name, timing in found.items():
            medians.setdefault(name, []).append(timing.median_s)
    del theirs, both
    if weights.has_msclap:
        msclap = weights.msclap(CLAPCAP)
        few = paths[: sizes.msclap_clips]
        generate = partial(msclap.generate_caption, beam_size=5, entry_length=sizes.tokens)
        slow = Contender(
            "msclap",
            lambda: [" ".join(text.split()) for text in generate(few)],
            len(few),
            n_rounds=1,
            warms_up=False,
        )
        found = bench.compare(
            "captions, msclap", [contender("textcap", ours, [few]), slow], differing_captions, n_rounds=2
        )
        medians["msclap"] = 2 * [found["msclap"].median_s]
    for against in medians.keys() - {"textcap"}:
        for index, what in enumerate(kinds):
            bench.bar(what, against, medians[against][index] / medians["textcap"][index], least[against][index])


def differing_captions(ours: list[str], theirs: list[str]) -> str:
    """Return how many captions differ, with the first of them."""
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if a != b]
    return f"differs in {len(pairs)} of {len(ours)} captions: {pairs[0][1]!r}, not {pairs[0][0]!r}" if pairs else ""
