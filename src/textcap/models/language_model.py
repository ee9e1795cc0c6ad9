"""What textcap uses of a frozen language model: the loss of captions given a prefix, and next-token logits.

A decoding step takes R rows, each of which may continue any row of the step before, so beams are left to
`beam_search`. `gpt2` runs GPT-2, and `causal_lm` whatever else transformers runs. Letters: B batch, P prefix, T tokens,
R rows, D width of the input embeddings, V vocabulary.
"""

from abc import ABC, abstractmethod
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from textcap.config import LanguageModelConfig
from textcap.models.hub_folder import HubFolder
from textcap.models.weight_files import Half

_KINDS = {"gpt2": "textcap.models.gpt2"}  # by the model type of config.json
_ANY_KIND = "textcap.models.causal_lm"


class CaptionTokenizer(Protocol):
    """Converts captions to the token ids of a language model and back.

    Attributes:
        end_id: The id of the token that ends a caption.
    """

    end_id: int

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Return the token ids of each text, without adding special tokens."""

    def decode(self, ids: list[int]) -> str:
        """Return the text of token ids, without special tokens."""


class LanguageModel(nn.Module, ABC):
    """A language model with frozen weights and no dropout; gradients pass through it to the prefix.

    Attributes:
        config: Its sizes; positions are those that prefix and caption may take.
    """

    def __init__(self, config: LanguageModelConfig) -> None:
        super().__init__()
        self.config = config

    def train(self, mode: bool = True) -> "LanguageModel":
        """Stay in evaluation mode, even when a parent module switches to training mode."""
        return super().train(False)

    @abstractmethod
    def loss(self, prefixes: Tensor, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Return the mean cross-entropy of the captions' tokens, a scalar in nats per token.

        Args:
            prefixes: [B, P, D], the only input that receives gradients.
            tokens: [B, T], int64, the caption and the end token, followed by padding with any id.
            lengths: [B], int64, from 1 to T, tokens of each row without the padding.
        """

    @abstractmethod
    def start(self, prefixes: Tensor) -> tuple[Any, Tensor]:
        """Run the prefixes.

        Args:
            prefixes: [B, P, D].

        Returns:
            A state of B rows that only the model itself reads, and the logits [B, V] of the first token after each
            prefix, in float32 or wider; -inf for tokens that may never be said.
        """

    @abstractmethod
    def advance(self, state: Any, rows: Tensor, tokens: Tensor) -> tuple[Any, Tensor]:
        """Continue rows by one token each.

        Args:
            state: What the step before has returned; it is used up.
            rows: [R], int64, the row of `state` that each new row continues; a row may occur any number of times.
            tokens: [R], int64, the token that each new row appends.

        Returns:
            The state of the R new rows, and the logits [R, V] of the token after that.
        """

    def n_values(self, n_prefix: int, n_tokens: int) -> int:
        """Return about how many values a caption's gradient keeps in memory, to size micro-batches by."""
        return (n_prefix + n_tokens) * self.config.width * self.config.n_layers

    def check_positions(self, n_positions: int) -> None:
        """Raise a ValueError if prefix and caption have too many positions."""
        if n_positions > self.config.n_positions:
            room = self.config.n_positions
            raise ValueError(f"{n_positions} positions are needed, but the language model has only {room}")


class LanguageModelHalf(Half, ABC):
    """A language model on disk, which is loaded when it is needed.

    Attributes:
        config: Its sizes.
    """

    config: LanguageModelConfig

    @property
    @abstractmethod
    def tokenizer(self) -> CaptionTokenizer:
        """Its tokenizer.

        Raises:
            CheckpointError: The files of the tokenizer are not valid, or do not fit the model.
        """

    @abstractmethod
    def load(self) -> LanguageModel:
        """Return the model on the CPU.

        Raises:
            CheckpointError: The weights are missing or damaged, or the model cannot be used to write captions.
        """


def open_language_model(name: str, folder: Path) -> LanguageModelHalf:
    """Return the language model in a folder of transformers' form, of whatever kind it is.

    Raises:
        CheckpointError: The folder has no language model.
    """
    hub = HubFolder(name, folder)
    for module in (_KINDS.get(hub.model_type, _ANY_KIND), _ANY_KIND):
        half: LanguageModelHalf | None = import_module(module).open_half(hub)
        if half is not None:
            return half
    raise AssertionError("the last kind opens whatever it is given, or says why not")
