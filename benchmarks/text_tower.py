"""Embed captions of ordinary length, against msclap, which pads each of them to 77 tokens."""

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from benchmarks.audio_tower import differing_embeddings
from benchmarks.harness import Bench, Contender
from benchmarks.options import option
from benchmarks.reference import TextTower
from benchmarks.weights import CLAP, weights_in
from textcap.demo.folder import training_captions
from textcap.models.tokenizer import Tokenizer

MSCLAP_BATCH = 32


@dataclass(frozen=True)
class Sizes:
    """How much to embed."""

    captions: int = option(2000, "captions")
    padded_captions: int = option(64, "captions for the towers that pad to 77 tokens, which take long")


def run(bench: Bench, sizes: Sizes) -> None:
    """Measure the towers; all figures are per caption."""
    weights, few = weights_in(bench.work), sizes.padded_captions
    tokenizer, config = weights.msclap_2023.tokenizer, weights.config.clap
    encoder = weights.msclap_2023.text_encoder()
    captions = captions_of_ordinary_length(tokenizer, sizes.captions)
    lengths = [len(ids) for ids in tokenizer.encode_for_clap(captions, config.text_tower.max_tokens)]
    bench.note(f"{np.mean(lengths):.1f} tokens a caption, end included; {few} captions where they are padded to 77")
    padded = TextTower(config, weights.tensors(CLAP))
    max_tokens = config.text_tower.max_tokens

    def transformers() -> Tensor:
        return padded(*pad(tokenizer.encode_for_clap(captions[:few], max_tokens), max_tokens))

    contenders = [
        Contender("textcap", lambda: encoder.encode(captions), sizes.captions),
        Contender("transformers, padded", transformers, few),
    ]
    if weights.has_msclap:
        wrapper = weights.msclap(CLAP)

        def msclap() -> Tensor:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # msclap uses deprecated functions
                batches = [captions[start : start + MSCLAP_BATCH] for start in range(0, few, MSCLAP_BATCH)]
                return normalize(torch.cat([wrapper.get_text_embeddings(batch) for batch in batches]), dim=-1)

        contenders.append(Contender("msclap", msclap, few))
    what = f"text tower, {sizes.captions:,} captions"
    found = bench.compare(what, contenders, differing_embeddings, n_rounds=3, counts_flops=True)
    if "msclap" in found:
        bench.bar(what, "msclap", found["msclap"].median_s / found["textcap"].median_s, 6)


def captions_of_ordinary_length(tokenizer: Tokenizer, n: int) -> list[str]:
    """Return captions of the sound world, cut so that their lengths in tokens are those of captions by people.

    Without GPT-2's real vocabulary, the same text has more tokens; so the lengths are drawn, and the text follows.
    """
    rng = np.random.default_rng(0)
    wanted = np.clip(np.round(rng.normal(11, 3.5, n)), 4, 30).astype(int)
    captions = []
    for text, other, most in zip(training_captions(n, 1), training_captions(n, 2), wanted, strict=True):
        [ids] = tokenizer.encode([f"{text} while {other}"])
        # msclap takes the token "!" for padding.
        captions.append(tokenizer.decode(ids[:most]).replace("!", ".").strip())
    return captions


def pad(rows: list[list[int]], length: int) -> tuple[Tensor, Tensor]:
    """Return token ids as `[B, length]`, padded with 0, and the lengths `[B]`."""
    tokens = torch.zeros(len(rows), length, dtype=torch.long)
    for index, ids in enumerate(rows):
        tokens[index, : len(ids)] = torch.tensor(ids)
    return tokens, torch.tensor([len(ids) for ids in rows])
