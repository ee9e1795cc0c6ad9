"""What language models of other kinds cost: decoding against transformers' own, and a training step of each size.

The weights are random, in the shapes of models that are often used; speed does not depend on their values.
"""

import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness import Bench, Contender
from benchmarks.options import option
from textcap.config import DecodingConfig, LanguageModelConfig, MapperConfig
from textcap.models.beam_search import beam_search
from textcap.models.causal_lm import CausalLm
from textcap.models.mapper import Mapper
from textcap.models.precision import prepare

_BEAMS, _PREFIX = 5, 40
# Name, class of transformers' configuration, and its settings.
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "SmolLM2-135M": (
        "LlamaConfig",
        {
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "vocab_size": 49152,
            "tie_word_embeddings": True,
        },
    ),
    "Pythia-160M": (
        "GPTNeoXConfig",
        {
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "vocab_size": 50304,
        },
    ),
    "Qwen3-0.6B": (
        "Qwen3Config",
        {
            "hidden_size": 1024,
            "intermediate_size": 3072,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "vocab_size": 151936,
            "tie_word_embeddings": True,
        },
    ),
}


@dataclass(frozen=True)
class Sizes:
    """How much to decode and to train on."""

    tokens: int = option(20, "tokens of each caption")
    clips: int = option(8, "clips decoded at once")
    captions: int = option(4, "captions of a training step")
    decoded: tuple[str, ...] = option(("SmolLM2-135M",), "shapes to decode with")
    trained: tuple[str, ...] = option(tuple(SHAPES), "shapes to train with")


def run(bench: Bench, sizes: Sizes) -> None:
    """Compare decoding with transformers' `generate`, then measure a training step of each shape."""
    for name in sizes.decoded:
        model = random_model(name)
        prefixes = torch.randn(sizes.clips, _PREFIX, model.config.width)
        theirs = partial(generate, model.model, prefixes, sizes.tokens)
        ours = partial(decode, prepare(random_model(name)), prefixes, sizes.tokens)
        contenders = [Contender("generate", theirs, sizes.clips), Contender("textcap", ours, sizes.clips)]
        found = bench.compare(f"{name}, {_BEAMS} beams", contenders, lambda ours, theirs: "")
        ratio = found["generate"].median_s / found["textcap"].median_s
        bench.bar(f"{name}, {_BEAMS} beams", "transformers' generate", ratio, 1.0)
    for name in sizes.trained:
        model = random_model(name)
        mapper = Mapper(MapperConfig(1024, model.config.width, _PREFIX, n_heads=8))
        started = time.monotonic()
        step(mapper, model, sizes.captions, sizes.tokens)
        seconds = (time.monotonic() - started) / sizes.captions
        n_parameters = sum(parameter.numel() for parameter in model.parameters())
        bench.note(f"{name}, {n_parameters / 1e6:,.0f} M parameters: {seconds:.2f} s a caption of a training step")


def random_model(name: str) -> CausalLm:
    """Return a model with random weights in one of the shapes."""
    import transformers

    kind, settings = SHAPES[name]
    torch.manual_seed(0)
    config = getattr(transformers, kind)(**settings)
    model = transformers.AutoModelForCausalLM.from_config(config).float()
    sizes = LanguageModelConfig(config.num_hidden_layers, config.hidden_size, 1, 1024, config.vocab_size)
    return CausalLm(model, sizes, [], [])


def decode(model: CausalLm, prefixes: Tensor, n_tokens: int) -> None:
    """Decode with our beam search; no token ends a caption."""
    beam_search(model, prefixes, DecodingConfig(beam_size=_BEAMS, max_tokens=n_tokens), end_id=-1)


@torch.inference_mode()
def generate(model: Any, prefixes: Tensor, n_tokens: int) -> None:
    """Decode with that of transformers; no token ends a caption."""
    options = {"num_beams": _BEAMS, "do_sample": False, "min_new_tokens": n_tokens, "max_new_tokens": n_tokens}
    mask = torch.ones(prefixes.shape[:2], dtype=torch.int64)
    model.generate(inputs_embeds=prefixes, attention_mask=mask, eos_token_id=None, pad_token_id=0, **options)


def step(mapper: Mapper, model: CausalLm, n_captions: int, n_tokens: int) -> None:
    """Compute the gradients of one step."""
    prefixes = mapper(torch.nn.functional.normalize(torch.randn(n_captions, 1024), dim=-1))
    tokens = torch.randint(1000, (n_captions, n_tokens))
    torch.autograd.backward(model.loss(prefixes, tokens, torch.full((n_captions,), n_tokens)))
