"""Train the tokenizer and the small GPT-2 of the tiny backbone on the sound world's text."""

import json
import os
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from textcap.config import LanguageModelConfig
from textcap.models.tokenizer import END_OF_TEXT, Tokenizer
from tiny.blends import draw_blends
from tiny.log import Log
from tiny.loop import half_precision, train
from tiny.settings import LanguageSettings
from tiny.words import draw_text

_PAD = -100


def train_tokenizer(folder: Path, vocab_size: int, n_captions: int, seed: int) -> None:
    """Train a byte-level BPE and write its `vocab.json` and `merges.txt`; the end token has the last id.

    Raises:
        SystemExit: The text has too few different tokens.
    """
    rng = np.random.default_rng(seed)
    texts = [text for _ in range(n_captions) for text in draw_text(rng, LanguageSettings())]
    tokenizer = FastTokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=vocab_size - 1, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.model.save(str(folder))
    vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    if len(vocab) != vocab_size - 1:
        raise SystemExit(f"the number of tokens in the text is {len(vocab) + 1}, but must be {vocab_size}")
    vocab[END_OF_TEXT] = len(vocab)
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False) + "\n", encoding="utf-8")


def new_gpt2(config: LanguageModelConfig, seed: int) -> GPT2LMHeadModel:
    """Return a GPT-2 with initial weights."""
    torch.manual_seed(seed)
    end_id = config.vocab_size - 1
    return GPT2LMHeadModel(
        GPT2Config(
            n_layer=config.n_layers,
            n_embd=config.width,
            n_head=config.n_heads,
            n_positions=config.n_positions,
            vocab_size=config.vocab_size,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=end_id,
            eos_token_id=end_id,
        )
    )


def train_language_model(
    folder: Path, tokenizer: Tokenizer, model: PreTrainedModel, settings: LanguageSettings, log: Log
) -> None:
    """Train a language model of any kind, writing its weights after each round, under the names of transformers.

    Args:
        model: The model with its initial weights, whose output layer is its token vectors; trained in place.
    """
    prefix = f"{model.base_model_prefix}."
    for number in range(len(settings.rounds)):
        last = number == len(settings.rounds) - 1
        path = folder / ("language_model.safetensors" if last else f"language_model.round{number}")
        if path.exists():
            state = load_file(path)
            model.base_model.load_state_dict({k.removeprefix(prefix): v for k, v in state.items()})
            continue
        _train_round(folder / f"{path.name}.unfinished", model, tokenizer, settings, number, log)
        state = {f"{prefix}{k}": v.contiguous() for k, v in model.base_model.state_dict().items()}
        partial = path.with_suffix(".partial")
        save_file(state, partial)
        os.replace(partial, path)
        (folder / f"{path.name}.unfinished").unlink()


def _train_round(
    checkpoint: Path, model: PreTrainedModel, tokenizer: Tokenizer, settings: LanguageSettings, number: int, log: Log
) -> None:
    plan = settings.rounds[number]

    def loss_of(step: int) -> Tensor:
        rng = np.random.default_rng([settings.seed, number, step])
        with half_precision():
            if plan.blends and step % 3:
                return _loss_on_blends(model, tokenizer, settings, rng)
            return _loss_on_texts(model, tokenizer, settings, rng, captions_only=number > 0)

    def report(step: int, loss: float, seconds: float) -> None:
        log.write("language", round=number, step=step, loss=loss, seconds=seconds)

    rate, steps = plan.learning_rate, plan.steps
    train(checkpoint, model, loss_of, report, steps=steps, learning_rate=rate, weight_decay=0.01, warm_up=0.08)


def _loss_on_texts(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    settings: LanguageSettings,
    rng: np.random.Generator,
    *,
    captions_only: bool,
) -> Tensor:
    contexts, captions = zip(*(draw_text(rng, settings) for _ in range(settings.batch_size)), strict=True)
    # Encode the captions separately: their tokens must be the same as after a prefix, with no space in front.
    rows, targets = [], []
    for context, caption_ids in zip(tokenizer.encode(list(contexts)), tokenizer.encode(list(captions)), strict=True):
        caption = [*caption_ids, tokenizer.end_id]
        rows.append([*context, *caption])
        targets.append([*([_PAD] * len(context) if captions_only else context), *caption])
    labels = _pad(targets, _PAD)
    logits = model(input_ids=_pad(rows, tokenizer.end_id)).logits
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=_PAD)


def _loss_on_blends(
    model: PreTrainedModel, tokenizer: Tokenizer, settings: LanguageSettings, rng: np.random.Generator
) -> Tensor:
    vectors = model.get_input_embeddings().weight
    n_prefix = settings.prefix_length
    prefixes, captions = draw_blends(rng, tokenizer, vectors, settings.batch_size, n_prefix)
    rows = [[*ids, tokenizer.end_id] for ids in tokenizer.encode(captions)]
    caption_vectors = vectors[_pad(rows, tokenizer.end_id)[:, :-1]]
    logits = model(inputs_embeds=torch.cat((prefixes, caption_vectors), dim=1)).logits[:, n_prefix - 1 :]
    return F.cross_entropy(logits.flatten(0, 1), _pad(rows, _PAD).flatten(), ignore_index=_PAD)


def _pad(rows: list[list[int]], filler: int) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([row + [filler] * (width - len(row)) for row in rows])
