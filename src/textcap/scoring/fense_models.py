"""Run the models of FENSE on captions: the sentence model, and the detector of fluency errors.

Both are read from disk without the network, and without running code that comes with a model. A model is freed when
its function returns.
"""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from logging import ERROR
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import linear
from transformers import AutoConfig, AutoModel, AutoTokenizer

from textcap.device import memory_errors
from textcap.errors import DependencyError, TextcapError, first_line
from textcap.files import read_json
from textcap.models.hub_folder import quiet_transformers

_BATCH = 64
_MAX_TOKENS = 64  # of a caption, with the two tokens around it; those after them are cut off
_PARTS = ("Transformer", "Pooling", "Normalize")


def embed(folder: Path, captions: list[str], device: str) -> npt.NDArray[np.float32]:
    """Return the embedding of each caption by a model of sentence-transformers, `[N, E]` of unit length.

    Args:
        folder: The model.
        captions: The captions `[N]`.
        device: Where the model runs, as torch names devices.

    Raises:
        DependencyError: The model cannot be used, or asks for code of its own.
        DeviceError: The device has too little memory.
    """
    with _errors_of(f"the sentence model in {folder}", device):
        # sentence-transformers would run any class of a local folder that this file names.
        kinds = [str(one["type"]) for one in read_json(folder / "modules.json")]
        if not all(kind.startswith("sentence_transformers.") and kind.split(".")[-1] in _PARTS for kind in kinds):
            raise ValueError(f"modules.json asks for {', '.join(kinds)}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from sentence_transformers import SentenceTransformer
        model = SentenceTransformer(str(folder), device=device, local_files_only=True)
        embeddings = model.encode(captions, batch_size=_BATCH, normalize_embeddings=True, show_progress_bar=False)
    return np.asarray(embeddings, dtype=np.float32)


def error_probabilities(detector: Path, folder: Path, captions: list[str], device: str) -> npt.NDArray[np.float32]:
    """Return the probability that a caption has a fluency error, by the detector of Zhou et al. 2022: `[N]`.

    The encoder's state of the first token goes through one linear layer, with an output for each kind of error; the
    last output stands for an error of any kind.

    Args:
        detector: A checkpoint with the weights of the encoder and of the layer.
        folder: The configuration and the tokenizer of the encoder.
        captions: The captions `[N]`; punctuation and capitals are ignored.
        device: Where the model runs, as torch names devices.

    Raises:
        DependencyError: The detector cannot be used.
        DeviceError: The device has too little memory.
    """
    with _errors_of(f"the fluency error detector {detector}", device), torch.inference_mode():
        weights = torch.load(detector, map_location=device, weights_only=True)["state_dict"]
        weights.pop("encoder.embeddings.position_ids", None)  # a buffer that transformers no longer has
        layer = weights.pop("clf.weight"), weights.pop("clf.bias")
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        with torch.random.fork_rng(devices=[]):  # the first weights, which are replaced, are drawn at random
            encoder = AutoModel.from_config(config, trust_remote_code=False)
        encoder.load_state_dict({name.removeprefix("encoder."): weight for name, weight in weights.items()})
        encoder.to(device).eval()
        plain = [re.sub(r"[^\w\s]", "", caption).lower() for caption in captions]
        order = sorted(range(len(plain)), key=lambda index: len(plain[index]))  # little padding within a batch
        probabilities = np.empty(len(plain), dtype=np.float32)
        for start in range(0, len(order), _BATCH):
            batch = order[start : start + _BATCH]
            texts = [plain[index] for index in batch]
            tokens = tokenizer(texts, truncation=True, max_length=_MAX_TOKENS, padding=True, return_tensors="pt")
            states = encoder(**tokens.to(device)).last_hidden_state  # [B, T, D]
            probabilities[batch] = linear(states[:, 0], *layer)[:, -1].sigmoid().cpu().numpy()
    return probabilities


@contextmanager
def _errors_of(what: str, device: str) -> Iterator[None]:
    """Keep transformers silent, and turn whatever a broken model makes it and other packages raise into one line."""
    memory = memory_errors(f"on {device} while computing FENSE", hint="use --device cpu")
    try:
        with quiet_transformers(ERROR), memory:
            yield
    except TextcapError:
        raise
    except Exception as error:  # any class: tokenizers raises plain Exceptions
        hint = "run textcap fetch metrics --fense, or check the folder given with --fense"
        raise DependencyError(f"{what} cannot be used: {first_line(error)}", hint=hint) from error
