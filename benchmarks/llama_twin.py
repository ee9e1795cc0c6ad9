"""Whether another kind of language model is used as well as the built-in one: a Llama of its size, on the same text.

    python -m benchmarks.llama_twin [--work FOLDER] [--seeds 1]

Trains a Llama of as many parameters as the GPT-2 of the built-in models, with its tokenizer, its text and its settings
(those of tools/build_tiny.py), and writes it to a folder that `--language-model` takes. Then trains mappers on both
with the settings of `benchmarks.sound_world` and the default bridge, and prints their event F1 on its held-out clips.
What is done is kept in the work folder, and the training of the Llama continues at its last checkpoint, so an
interrupted run continues.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from benchmarks.sound_world import (
    DEFAULT_BRIDGE,
    WORLD_SEED,
    Plan,
    bridge_of,
    caption_part,
    figures,
    prepare,
    refuse_other_plan,
    show,
)
from textcap.config import LanguageModelConfig, TrainingConfig
from textcap.models.backbone import Backbone, BackboneNames
from textcap.models.tokenizer import END_OF_TEXT, Tokenizer
from textcap.weights import embedded_folder
from tiny.language import train_language_model
from tiny.log import Log
from tiny.settings import BACKBONE, LanguageSettings, Settings

# A Llama's feed-forward layer has three matrices and a GPT-2's two: with this width it has about as many parameters.
_HIDDEN_WIDTH = 440


def new_llama(config: LanguageModelConfig, seed: int) -> LlamaForCausalLM:
    """Return a Llama of about a GPT-2's number of parameters, with initial weights."""
    torch.manual_seed(seed)
    end_id = config.vocab_size - 1
    return LlamaForCausalLM(
        LlamaConfig(
            num_hidden_layers=config.n_layers,
            hidden_size=config.width,
            intermediate_size=_HIDDEN_WIDTH,
            num_attention_heads=config.n_heads,
            max_position_embeddings=config.n_positions,
            vocab_size=config.vocab_size,
            tie_word_embeddings=True,
            bos_token_id=end_id,
            eos_token_id=end_id,
        )
    )


def build_llama(work: Path, settings: LanguageSettings) -> Path:
    """Train the Llama, or continue its training; return its folder in transformers' form."""
    folder = work / "llama"
    if not (folder / "config.json").exists():
        tokenizer = Tokenizer.load(embedded_folder() / "vocab.json", embedded_folder() / "merges.txt")
        model = new_llama(BACKBONE.language_model, settings.seed)
        train_language_model(work, tokenizer, model, settings, Log(work / "log.jsonl"))
        save_in_hub_form(folder, model, tokenizer)
    return folder


def save_in_hub_form(folder: Path, model: PreTrainedModel, tokenizer: Tokenizer) -> None:
    """Write a language model and its tokenizer as a repository of the hub has them; the configuration comes last."""
    PreTrainedTokenizerFast(tokenizer_object=tokenizer._tokenizer, eos_token=END_OF_TEXT).save_pretrained(folder)
    model.save_pretrained(folder.with_suffix(".partial"))
    for name in ("model.safetensors", "generation_config.json", "config.json"):
        (folder.with_suffix(".partial") / name).rename(folder / name)


def run_part(plan: Plan, kind: str, names: BackboneNames, seed: int) -> None:
    """Train one mapper and caption the held-out clips with it, unless the part exists."""
    path = plan.part_path(kind, seed)
    if path.exists():
        return
    backbone = Backbone.load(names)
    embeddings, bridge = np.load(plan.work / "text.npy"), bridge_of(backbone, DEFAULT_BRIDGE)
    caption_part(plan, path, backbone, embeddings, bridge, seed)


def n_parameters(backbone: Backbone) -> int:
    """Return the number of parameters of the language model."""
    return sum(parameter.numel() for parameter in backbone.language_model().parameters())


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("llama-benchmark"), help="folder to keep results in")
    parser.add_argument("--seeds", type=int, default=1, help="number of mappers to train on each")
    parser.add_argument("--pairs", type=int, default=9000, help="number of captions to train mappers on")
    parser.add_argument("--epochs", type=int, default=10, help="passes over the captions")
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="learning rate of the mappers")
    parser.add_argument("--quick", action="store_true", help="train the Llama for a few steps only, as a check")
    options = parser.parse_args()
    training = TrainingConfig(
        epochs=options.epochs, batch_size=128, learning_rate=options.learning_rate, held_out_captions=0
    )
    plan = Plan(options.work, "tiny", WORLD_SEED, options.pairs, None, training)
    settings = Settings().quick() if options.quick else Settings()
    plan.work.mkdir(parents=True, exist_ok=True)
    refuse_other_plan(plan.work, plan, f"{Backbone.load('tiny').content_hash} {settings.language}")
    torch.set_num_threads(1)
    llama = build_llama(plan.work, settings.language)
    prepare(plan, 1, with_audio=False)
    columns = ("all", "seen", "unseen", "distinct")
    print(f"| language model | parameters | {' | '.join(columns)} |")
    print("|---" * (len(columns) + 2) + "|")
    backbones = {"GPT-2": BackboneNames("tiny"), "Llama": BackboneNames("tiny", language_model=str(llama))}
    for kind, names in backbones.items():
        for seed in range(options.seeds):
            run_part(plan, kind, names, seed)
        parts = [json.loads(plan.part_path(kind, seed).read_text(encoding="utf-8")) for seed in range(options.seeds)]
        runs = [figures(plan, captions) for captions in parts]
        cells = [show([run[column] for run in runs]) for column in columns]
        print(f"| {kind} | {n_parameters(Backbone.load(names)):,} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
