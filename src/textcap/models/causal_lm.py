"""Any causal language model that transformers runs, as the frozen language model: Llama, Qwen, GPT-NeoX, OPT, Gemma.

The token that a tokenizer puts before every text stands before the prefix, in training and in captioning: some models
are lost without it. Letters: B batch, P prefix, T tokens, R rows, D width of the input embeddings, V vocabulary.
"""

import inspect
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from textcap.config import MAX_POSITIONS, LanguageModelConfig
from textcap.device import seeded_generator
from textcap.models.hub_folder import HubFolder
from textcap.models.language_model import LanguageModel, LanguageModelHalf

_HINT = "use a GPT-2, Llama, Qwen, GPT-NeoX, OPT or Gemma, with all of its files"
_PROBE = "a"  # what a tokenizer puts before it, it puts before every text
_TOLERANCE = 1e-3  # of logits that are computed in two ways, as a share of the largest
_LOGITS_PER_VALUE = 8  # a hidden value stands for about 90 bytes of a block, a logit for three floats


class _State(NamedTuple):
    cache: Any  # of transformers, of R rows
    n_positions: int


class CausalLm(LanguageModel):
    """A model of transformers, frozen.

    Args:
        model: The model, in float32.
        lead: The ids of the tokens before every text, usually one or none.
        unsayable: The ids that no caption may have.
    """

    lead: Tensor  # int64
    unsayable: Tensor  # int64

    def __init__(self, model: Any, config: LanguageModelConfig, lead: list[int], unsayable: list[int]) -> None:
        super().__init__(config)
        self.model = model
        self.register_buffer("lead", torch.tensor(lead, dtype=torch.int64), persistent=False)
        self.register_buffer("unsayable", torch.tensor(unsayable, dtype=torch.int64), persistent=False)
        self._keeps = "logits_to_keep" in inspect.signature(model.forward).parameters
        self.requires_grad_(False)
        self.eval()

    def loss(self, prefixes: Tensor, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Return the mean cross-entropy, see `LanguageModel.loss`."""
        n_tokens = tokens.shape[1]
        self.check_positions(prefixes.shape[1] + n_tokens - 1)
        # The last token is only predicted, never an input; padding on the right is seen by no token.
        embedded = torch.cat((self._led(prefixes), self._embed(tokens[:, :-1])), dim=1)
        logits = self._run(embedded, n_tokens, use_cache=False).logits[:, -n_tokens:]  # [B, T, V]
        is_target = torch.arange(n_tokens, device=tokens.device) < lengths[:, None]
        return F.cross_entropy(logits[is_target].float(), tokens[is_target])

    @torch.inference_mode()
    def start(self, prefixes: Tensor) -> tuple[_State, Tensor]:
        """Run the prefixes, see `LanguageModel.start`."""
        self.check_positions(prefixes.shape[1])
        output = self._run(self._led(prefixes), 1, use_cache=True)
        return _State(output.past_key_values, prefixes.shape[1]), self._sayable(output.logits)

    @torch.inference_mode()
    def advance(self, state: _State, rows: Tensor, tokens: Tensor) -> tuple[_State, Tensor]:
        """Continue rows by one token each, see `LanguageModel.advance`."""
        cache, n_positions = state
        self.check_positions(n_positions + 1)
        cache.reorder_cache(rows)
        output = self._run(self._embed(tokens[:, None]), 1, use_cache=True, past_key_values=cache)
        return _State(output.past_key_values, n_positions + 1), self._sayable(output.logits)

    def n_values(self, n_prefix: int, n_tokens: int) -> int:
        """Return about how many values a caption's gradient keeps in memory: also those of its logits."""
        return super().n_values(n_prefix, n_tokens) + n_tokens * self.config.vocab_size // _LOGITS_PER_VALUE

    def check_cache(self) -> None:
        """Check that three tokens after a random prefix have the same logits one by one and all at once.

        Raises:
            ValueError: They have not, or the model has another kind of cache.
        """
        generator = seeded_generator(0)
        sayable = torch.arange(self.config.vocab_size)
        sayable = sayable[~torch.isin(sayable, self.unsayable)]
        tokens = sayable[torch.randint(len(sayable), (1, 3), generator=generator)]
        prefix = self._embed(tokens).flip(1) + 0.1 * self._embed(tokens).std() * torch.randn(
            1, 3, self.config.width, generator=generator
        )
        with torch.inference_mode():
            whole = self._run(torch.cat((self._led(prefix), self._embed(tokens)), dim=1), 4, use_cache=False)
            state, logits = self.start(torch.cat((prefix.flip(1), prefix)))  # the other row is dropped
            single = [logits[-1:]]
            for token in tokens[0]:
                state, logits = self.advance(state, torch.tensor([len(logits) - 1]), token[None])
                single.append(logits)
        expected, found = whole.logits[0, -4:].float(), torch.cat(single)
        expected, found = expected[:, sayable], found[:, sayable]
        if not torch.allclose(expected, found, rtol=0, atol=_TOLERANCE * float(expected.abs().max())):
            raise ValueError("it gives other logits for one token after another than for all at once")

    def _run(self, embedded: Tensor, n_logits: int, **options: Any) -> Any:
        if self._keeps:
            options["logits_to_keep"] = n_logits
        return self.model(inputs_embeds=embedded, **options)

    def _embed(self, tokens: Tensor) -> Tensor:
        embedded: Tensor = self.model.get_input_embeddings()(tokens)
        return embedded

    def _led(self, prefixes: Tensor) -> Tensor:
        lead = self._embed(self.lead)
        return torch.cat((lead.expand(len(prefixes), -1, -1), prefixes.to(lead.dtype)), dim=1)

    def _sayable(self, logits: Tensor) -> Tensor:
        last = logits[:, -1].to(torch.promote_types(logits.dtype, torch.float32), copy=True)
        return last.index_fill_(1, self.unsayable, -torch.inf)


class HubTokenizer:
    """The tokenizer of a folder in transformers' form.

    Attributes:
        end_id: The id of the token that ends a caption.
        lead: The ids that it puts before every text.
    """

    def __init__(self, tokenizer: Any, end_id: int) -> None:
        self._tokenizer, self.end_id = tokenizer, end_id
        special = {id_ for id_, token in tokenizer.added_tokens_decoder.items() if token.special}
        self._special = special.union(tokenizer.all_special_ids, [end_id])
        plain = tokenizer(_PROBE, add_special_tokens=False)["input_ids"]
        whole = tokenizer(_PROBE)["input_ids"]
        places = [i for i in range(len(whole)) if whole[i : i + len(plain)] == plain]
        self.lead: list[int] = whole[: places[0]] if places else []

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Return the token ids of each text; special tokens that a text spells out are left out."""
        rows = self._tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
        return [[id_ for id_ in row if id_ not in self._special] for row in rows]

    def decode(self, ids: list[int]) -> str:
        """Return the text of token ids, without special tokens."""
        return str(self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def unsayable(self, vocab_size: int) -> list[int]:
        """Return the ids below `vocab_size` that no caption may have: special ones, and those that it lacks."""
        known = set(self._tokenizer.get_vocab().values()) - self._special | {self.end_id}
        return [id_ for id_ in range(vocab_size) if id_ not in known]


class CausalLmHalf(LanguageModelHalf):
    """A language model in a folder of transformers' form."""

    def __init__(self, folder: HubFolder) -> None:
        from transformers import AutoConfig

        self.name, self.licence, self._folder = folder.name, folder.licence, folder
        with self._refusing():
            self._config = AutoConfig.from_pretrained(folder.path, local_files_only=True, trust_remote_code=False)
        with self._refusing(), torch.device("meta"):
            # Its embeddings tell the width, which config.json has under several names.
            embeddings: Any = _load_class().from_config(self._config).get_input_embeddings()
            n_tokens, width = embeddings.weight.shape
        text = self._config.get_text_config()
        sizes = {"n_layers": text.num_hidden_layers, "width": width, "n_heads": 1, "vocab_size": n_tokens}
        positions = int(getattr(text, "max_position_embeddings", MAX_POSITIONS)) - len(self.tokenizer.lead)
        sizes["n_positions"] = min(positions, MAX_POSITIONS)
        self.config = folder.sizes(LanguageModelConfig, sizes)

    def _hash(self) -> str:
        return self._folder.content_hash

    @cached_property
    def tokenizer(self) -> HubTokenizer:
        """Its tokenizer, see `LanguageModelHalf`."""
        from transformers import AutoTokenizer

        path, ends = self._folder.path, self._config.get_text_config().eos_token_id
        with self._refusing():
            tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
            ends = tokenizer.eos_token_id if ends is None else ends
            if (end_id := ends[0] if isinstance(ends, list) else ends) is None:
                raise ValueError("it has no token that ends a text")
            return HubTokenizer(tokenizer, int(end_id))

    def load(self) -> CausalLm:
        """Return the model, see `LanguageModelHalf`."""
        with self._refusing():
            # float32 by name: transformers 5 takes the type of the file. Tensors that are missing would be random.
            model, report = _load_class().from_pretrained(
                self._folder.path,
                config=self._config,
                dtype=torch.float32,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # told by name below
            )
            if missing := sorted(report["missing_keys"]):
                raise ValueError(f"its weights lack the tensor {missing[0]}")
            # Names in transformers 4, with both shapes in 5.
            if others := sorted(one if isinstance(one, str) else one[0] for one in report["mismatched_keys"]):
                raise ValueError(f"its tensor {others[0]} has another shape than config.json asks for")
            for name, tensor in model.state_dict().items():
                if not tensor.isfinite().all():
                    raise ValueError(f"its tensor {name} contains NaN or infinite values")
            loaded = CausalLm(model, self.config, self.tokenizer.lead, self.tokenizer.unsayable(self.config.vocab_size))
            loaded.check_cache()
        return loaded

    def _refusing(self) -> AbstractContextManager[None]:
        return self._folder.refusing("cannot write captions", _HINT)


def open_half(folder: HubFolder) -> CausalLmHalf:
    """Return the language model in a folder.

    Raises:
        CheckpointError: It has none, or one that cannot be used.
    """
    return CausalLmHalf(folder)


def _load_class() -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM
