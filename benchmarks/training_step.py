"""One training step of the paper's recipe, against the usual padded loop.

The padded loop runs the text tower inside the loop, pads to 77 tokens, and computes logits at every position with
transformers' `GPT2LMHeadModel`. It takes its batch in parts, because the logits of 128 captions do not fit in the
memory of an ordinary machine. Both train textcap's mapper with Adam from the same weights, without noise; the gradients
are compared first.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn.utils import parameters_to_vector
from transformers import GPT2LMHeadModel

from benchmarks.harness import Bench, Contender, Timing
from benchmarks.options import option
from benchmarks.processes import run_function
from benchmarks.reference import TextTower, load_gpt2
from benchmarks.text_tower import captions_of_ordinary_length, pad
from benchmarks.weights import CLAP, GPT2, Weights, weights_in
from reference_models import gpt2_config
from textcap.config import BridgeConfig, TrainingConfig
from textcap.gap.bridge import Bridge
from textcap.models.backbone import Backbone
from textcap.training.data import Examples, make_examples
from textcap.training.loop import MapperTraining

SEED = 0
TOLERANCE = 1e-3  # of a gradient, relative to the length of all
BETA = 0.9  # after its first step, Adam's first moment is the gradient times 1 - BETA


@dataclass(frozen=True)
class Sizes:
    """How much to train on."""

    captions: int = option(128, "captions of the step")
    part: int = option(16, "captions that the padded loop takes at once")
    memory_processes: int = option(1, "processes whose memory is measured, of each loop; 0 leaves it out")
    padded_rounds: int = option(2, "rounds of the padded loop, which takes minutes")


class OurStep:
    """Training steps as `textcap train` makes them, with the embeddings already there."""

    def __init__(self, backbone: Backbone, captions: list[str], embeddings: Tensor) -> None:
        examples = make_examples(captions, embeddings.numpy(), backbone.tokenizer, seed=SEED)
        self.batch = examples.epoch_batches(len(captions), SEED, 0)[0]
        self.training = new_training(backbone, examples, len(captions))
        self.n_steps = 0

    def __call__(self) -> Tensor:
        """Make a step, and return Adam's first moment, in which the gradients of the first step can be read."""
        self.training._step(self.batch, 0, self.n_steps)
        self.n_steps += 1
        state = self.training.optimizer.state_dict()["state"]
        return torch.cat([state[index]["exp_avg"].flatten() for index in range(len(state))])


class PaddedStep:
    """Training steps of the padded loop."""

    def __init__(self, weights: Weights, captions: list[str], part: int, mapper: torch.nn.Module) -> None:
        backbone, sizes = weights.msclap_2023, weights.config.language_model
        tokenizer, self.max_tokens = backbone.tokenizer, weights.config.clap.text_tower.max_tokens
        self.tower = TextTower(weights.config.clap, weights.tensors(CLAP))
        self.gpt2 = GPT2LMHeadModel(gpt2_config(sizes)).eval().requires_grad_(False)
        self.gpt2.loss_type = "ForCausalLM"  # otherwise transformers says that it assumes so
        load_gpt2(self.gpt2.transformer, weights.tensors(GPT2), "")
        self.mapper, self.part = mapper, part
        self.optimizer = torch.optim.Adam(mapper.parameters(), lr=1e-4)
        self.for_clap = tokenizer.encode_for_clap(captions, self.max_tokens)
        self.for_gpt2 = [[*ids, tokenizer.end_id] for ids in tokenizer.encode(captions)]

    def __call__(self) -> Tensor:
        """Make a step, and return its gradients times 1 - BETA, the form in which Adam keeps them."""
        self.optimizer.zero_grad()
        n_tokens = sum(map(len, self.for_gpt2))
        for start in range(0, len(self.for_gpt2), self.part):
            part = slice(start, start + self.part)
            embeddings = self.tower(*pad(self.for_clap[part], self.max_tokens))
            tokens, lengths = pad(self.for_gpt2[part], self.max_tokens)
            prefixes = self.mapper(embeddings)
            is_token = torch.arange(self.max_tokens) < lengths[:, None]
            labels = torch.where(is_token, tokens, -100)
            ignored = torch.full(prefixes.shape[:2], -100)
            mask = torch.cat((torch.ones(prefixes.shape[:2]), is_token), dim=1)
            embedded = torch.cat((prefixes, self.gpt2.transformer.wte(tokens)), dim=1)
            mean = self.gpt2(
                inputs_embeds=embedded, attention_mask=mask, labels=torch.cat((ignored, labels), dim=1)
            ).loss
            (mean * (int(lengths.sum()) / n_tokens)).backward()
        self.optimizer.step()
        gradients = [parameter.grad for parameter in self.mapper.parameters() if parameter.grad is not None]
        return (1 - BETA) * parameters_to_vector(gradients)


def run(bench: Bench, sizes: Sizes) -> None:
    """Measure both steps, then the memory of each in a process of its own."""
    weights = weights_in(bench.work)
    backbone = weights.msclap_2023
    captions = captions_of_ordinary_length(backbone.tokenizer, sizes.captions)
    ours = OurStep(backbone, captions, backbone.text_encoder().encode(captions))
    # The same first weights: both mappers follow from the seed.
    padded = PaddedStep(weights, captions, sizes.part, new_training(backbone, ours.training.examples, 1).mapper)
    what = f"training step, {sizes.captions} captions"
    contenders = [
        Contender("textcap", ours),
        Contender("padded loop", padded, n_rounds=sizes.padded_rounds, warms_up=False),
    ]
    found = bench.compare(what, contenders, differing_gradients, counts_flops=True)
    textcap = found["textcap"]
    bench.bar(what, "padded loop", found["padded loop"].median_s / textcap.median_s, 2.7)
    bench.bar(what, "GEMM peak", 100 * (textcap.share_of_peak or 0.0), 80, unit="%")
    del ours, padded, contenders
    for name, n in (("our_step", sizes.captions), ("padded_step", sizes.part)) * sizes.memory_processes:
        used = run_function(f"training_step.{name}", bench.work, str(bench.work), str(n))
        step = Timing(f"process of one step, {n} captions", name.replace("_", " "), [used.wall_s], [used.cpu_s])
        step.peak_mb = used.peak_mb
        bench.record(step)
        if name == "our_step":
            bench.bar("memory of a training step", "the limit", (used.peak_mb or 0) / 1000, 6, unit="GB", is_most=True)


def our_step(work: str, n: str) -> None:
    """Make one step of `n` captions with embeddings that are already there."""
    backbone = weights_in(Path(work)).msclap_2023
    captions = captions_of_ordinary_length(backbone.tokenizer, int(n))
    embeddings = torch.randn(int(n), backbone.config.mapper.embedding_width)
    OurStep(backbone, captions, torch.nn.functional.normalize(embeddings, dim=-1))()


def padded_step(work: str, n: str) -> None:
    """Make one step of the padded loop with `n` captions at once."""
    weights = weights_in(Path(work))
    captions = captions_of_ordinary_length(weights.msclap_2023.tokenizer, int(n))
    PaddedStep(weights, captions, int(n), weights.mapper.requires_grad_(True))()


def new_training(backbone: Backbone, examples: Examples, batch_size: int) -> MapperTraining:
    """Return a training run without noise, whose mapper has the paper's size."""
    return MapperTraining(
        examples,
        backbone.language_model(),
        backbone.tokenizer,
        Bridge(BridgeConfig(noise_variance=0.0)),
        backbone.config.mapper,
        TrainingConfig(batch_size=batch_size, seed=SEED),
        Accelerator(cpu=True),
    )


def differing_gradients(ours: Tensor, theirs: Tensor) -> str:
    """Return by how much two gradients differ, relative to their length."""
    difference = float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))
    return "" if difference <= TOLERANCE else f"has gradients that differ by {difference:.1e} of their length"
