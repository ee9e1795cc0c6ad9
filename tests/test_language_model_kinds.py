"""Language models of the hub, of each family, compared with transformers' own loss, gradient and generation.

The references get the tokenizer's first token by hand, and each forward pass sees the whole sequence.
"""

import itertools
import json
import pickle
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BartConfig,
    BartForConditionalGeneration,
    DynamicCache,
    MambaConfig,
    MambaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from hub_models import END, FAMILIES, N_ABSENT, edit_json, randomise, save_byte_level, save_gpt2, save_language_model
from test_beam_search import slow_beam_search
from textcap.config import DecodingConfig
from textcap.errors import CheckpointError
from textcap.models import causal_lm
from textcap.models.beam_search import beam_search
from textcap.models.causal_lm import CausalLm, CausalLmHalf
from textcap.models.gpt2 import Gpt2Half
from textcap.models.hub_folder import HubFolder
from textcap.models.language_model import open_language_model
from textcap.models.precision import prepare
from tiny_random import tiny_captions

N_PREFIX = 5  # longer than the sliding windows


@dataclass
class Loaded:
    """One model, loaded by textcap and by transformers."""

    family: str
    folder: Path
    half: CausalLmHalf
    model: CausalLm
    reference: Any
    tokenizer: Any  # transformers'
    lead: list[int]

    @property
    def prefixes(self) -> torch.Tensor:
        """Four prefixes."""
        torch.manual_seed(1)
        return torch.randn(4, N_PREFIX, self.half.config.width)

    def embedded(self, prefix: torch.Tensor, sequences: Sequence[Sequence[int]]) -> torch.Tensor:
        """Return what the reference takes: first token, prefix [P, D] and the tokens of several sequences."""
        embed = self.reference.get_input_embeddings()
        parts = embed(torch.tensor(self.lead, dtype=torch.long)), prefix
        ahead = torch.cat(parts).expand(len(sequences), -1, -1)
        return torch.cat((ahead, embed(torch.tensor(sequences, dtype=torch.long))), dim=1)

    def logits(self, prefix: torch.Tensor, sequences: Sequence[Sequence[int]]) -> torch.Tensor:
        """Return the logits [N, V] after sequences of equal length, each computed from the whole of it."""
        with torch.no_grad():
            return self.reference(inputs_embeds=self.embedded(prefix, sequences)).logits[:, -1]


class SlowModel:
    """Computes log probabilities from the whole sequence, for `slow_beam_search`."""

    def __init__(self, loaded: Loaded, prefix: torch.Tensor) -> None:
        self.loaded, self.prefix = loaded, prefix

    def next(self, sequences: list[list[int]]) -> np.ndarray:
        """Return the log probabilities [N, V] of the token after each of N sequences of equal length."""
        logits = self.loaded.logits(self.prefix, sequences)
        logits[:, self.loaded.model.unsayable] = -torch.inf
        return logits.double().log_softmax(-1).numpy()


@pytest.fixture(scope="module", params=list(FAMILIES))
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    folder = save_language_model(tmp_path_factory.mktemp("model") / request.param, request.param)
    half = open_language_model(request.param, folder)
    assert isinstance(half, CausalLmHalf)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    lead = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return Loaded(request.param, folder, half, half.load(), reference, tokenizer, lead)


def _sayable(loaded: Loaded) -> list[int]:
    unsayable = set(loaded.model.unsayable.tolist())
    return [id_ for id_ in range(loaded.half.config.vocab_size) if id_ not in unsayable]


def test_loss_and_gradient_equal_transformers_with_ignored_labels(loaded: Loaded) -> None:
    tokens = torch.tensor(_sayable(loaded))[torch.randint(len(_sayable(loaded)), (4, 7))]
    lengths = torch.tensor([7, 1, 4, 6])
    ours, theirs = loaded.prefixes.requires_grad_(), loaded.prefixes.requires_grad_()
    loss = loaded.model.loss(ours, tokens, lengths)
    rows = [loaded.embedded(prefix, [row])[0] for prefix, row in zip(theirs, tokens.tolist(), strict=True)]
    labels = torch.full((4, len(rows[0])), -100)
    for row, length in enumerate(lengths.tolist()):
        start = len(loaded.lead) + N_PREFIX
        labels[row, start : start + length] = tokens[row, :length]
    expected = loaded.reference(inputs_embeds=torch.stack(rows), labels=labels).loss
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    assert theirs.grad is not None and theirs.grad.abs().max() > 1e-3
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-5 * float(theirs.grad.abs().max()))
    assert all(parameter.grad is None for parameter in loaded.model.parameters())


def test_cached_rows_repeated_dropped_and_reordered_equal_the_whole_sequence(loaded: Loaded) -> None:
    generator = torch.Generator().manual_seed(6)
    sayable = torch.tensor(_sayable(loaded))
    prefixes = loaded.prefixes
    state, logits = loaded.model.start(prefixes)
    histories: list[tuple[int, list[int]]] = [(clip, []) for clip in range(4)]
    for n_rows in (9, 7, 8, 6, 9, 5):
        expected = torch.cat([loaded.logits(prefixes[clip], [history]) for clip, history in histories])
        torch.testing.assert_close(logits[:, sayable], expected[:, sayable], rtol=0, atol=1e-4)
        rows = torch.randint(len(histories), (n_rows,), generator=generator)
        tokens = sayable[torch.randint(len(sayable), (n_rows,), generator=generator)]
        state, logits = loaded.model.advance(state, rows, tokens)
        pairs = zip(rows.tolist(), tokens.tolist(), strict=True)
        histories = [(histories[row][0], [*histories[row][1], token]) for row, token in pairs]
    assert 1 < len({clip for clip, _ in histories}) < 4


def test_one_beam_equals_greedy_generate(loaded: Loaded) -> None:
    end_id = loaded.half.tokenizer.end_id
    found = beam_search(loaded.model, loaded.prefixes, DecodingConfig(1, 9), end_id=end_id)
    for prefix, (hypothesis,) in zip(loaded.prefixes, found, strict=True):
        embedded = loaded.embedded(prefix, [[]])
        generated = loaded.reference.generate(
            inputs_embeds=embedded,
            attention_mask=torch.ones(embedded.shape[:2], dtype=torch.long),
            max_new_tokens=9,
            do_sample=False,
            num_beams=1,
            suppress_tokens=loaded.model.unsayable.tolist(),
            eos_token_id=end_id,
            pad_token_id=end_id,
        )
        assert [*hypothesis.token_ids, *[end_id] * hypothesis.finished] == generated[0].tolist()


def test_five_beams_equal_the_slow_search(loaded: Loaded) -> None:
    end_id = loaded.half.tokenizer.end_id
    results = beam_search(loaded.model, loaded.prefixes, DecodingConfig(5, 7, n_best=5), end_id=end_id)
    for prefix, found in zip(loaded.prefixes, results, strict=True):
        expected = slow_beam_search(SlowModel(loaded, prefix), 5, 7, end_id)
        expected.sort(key=lambda beam: beam[1], reverse=True)
        assert [h.token_ids + (end_id,) * h.finished for h in found] == [tokens for tokens, _ in expected]
        np.testing.assert_allclose([h.score for h in found], [score for _, score in expected], rtol=0, atol=1e-4)


def test_five_beams_of_five_tokens_equal_exhaustive_search(loaded: Loaded) -> None:
    end_id, size = loaded.half.tokenizer.end_id, loaded.half.config.vocab_size
    few = [end_id, *_sayable(loaded)[50:54]]
    unsayable = [id_ for id_ in range(size) if id_ not in few]
    model = CausalLm(loaded.reference, loaded.half.config, loaded.lead, unsayable)
    prefix = loaded.prefixes[0]
    first = loaded.logits(prefix, [[]])[0, few].log_softmax(-1).tolist()
    second = loaded.logits(prefix, [[token] for token in few])[:, few].log_softmax(-1).tolist()
    means = {(end_id,): first[0]}
    means |= {(few[a], few[b]): (first[a] + second[a][b]) / 2 for a, b in itertools.product(range(1, 5), range(5))}
    found = beam_search(model, prefix[None], DecodingConfig(5, 2, n_best=5), end_id=end_id)[0]
    best = sorted(means, key=means.__getitem__, reverse=True)[:5]
    assert [h.token_ids + (end_id,) * h.finished for h in found] == best


def test_captions_are_independent_of_the_batch(loaded: Loaded) -> None:
    torch.manual_seed(3)
    prefixes = torch.randn(7, N_PREFIX, loaded.half.config.width)
    config, end_id = DecodingConfig(5, 8, n_best=5), loaded.half.tokenizer.end_id
    together = beam_search(loaded.model, prefixes, config, end_id=end_id)
    for size in (1, 3):
        parts = [beam_search(loaded.model, part, config, end_id=end_id) for part in prefixes.split(size)]
        split = list(itertools.chain(*parts))
        assert [[h.token_ids for h in found] for found in split] == [[h.token_ids for h in f] for f in together]
    assert len({found[0].token_ids for found in together}) > 3


def test_absent_and_special_tokens_are_never_said(loaded: Loaded) -> None:
    size, tokenizer = loaded.half.config.vocab_size, loaded.tokenizer
    assert size == len(tokenizer) + N_ABSENT
    special = {id_ for id_, token in tokenizer.added_tokens_decoder.items() if token.special}
    end_id = loaded.half.tokenizer.end_id
    assert end_id == tokenizer.eos_token_id and end_id in special and len(special) > 1
    _, logits = loaded.model.start(loaded.prefixes)
    never = [id_ for id_ in range(size) if id_ >= len(tokenizer) or id_ in special - {end_id}]
    assert logits.isinf().all(dim=0).nonzero()[:, 0].tolist() == never
    assert (loaded.logits(loaded.prefixes[0], [[]]).argsort(descending=True)[0, :60, None] == torch.tensor(never)).any()


def test_tokenizer_returns_what_it_was_given_without_special_tokens(loaded: Loaded) -> None:
    tokenizer = loaded.half.tokenizer
    texts = ["a dog barks", "Ünïcode, 好 and 🐕!", *tiny_captions(5)]
    assert [tokenizer.decode(ids).strip() for ids in tokenizer.encode(texts)] == texts
    assert tokenizer.lead == loaded.lead
    spelled = "".join(map(str, loaded.tokenizer.all_special_tokens))
    assert not {*tokenizer.encode([f"a {spelled} dog"])[0]} & {*loaded.tokenizer.all_special_ids}
    assert tokenizer.encode([]) == []


def test_sizes_leave_room_for_the_first_token(loaded: Loaded) -> None:
    config = loaded.half.config
    assert config.width == (12 if loaded.family == "opt" else 16)
    assert (config.n_layers, config.n_positions) == (2, 64 - len(loaded.lead))
    loaded.model.start(torch.zeros(1, config.n_positions, config.width))
    with pytest.raises(ValueError, match=f"{config.n_positions + 1} positions are needed"):
        loaded.model.start(torch.zeros(1, config.n_positions + 1, config.width))


def test_half_precision_leaves_the_positions_exact(loaded: Loaded) -> None:
    model = prepare(loaded.half.load(), "bf16")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    for (name, buffer), exact in zip(model.named_buffers(), loaded.model.buffers(), strict=True):
        assert torch.equal(buffer, exact), name
    _, logits = model.start(loaded.prefixes)
    expected = loaded.model.start(loaded.prefixes)[1]
    assert logits.dtype == torch.float32
    said = expected.isfinite()
    assert 0 < (logits - expected)[said].abs().max() < 0.1 * expected[said].abs().max()


# Folders


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_language_model(tmp_path_factory.mktemp("model") / "llama", "llama")


def _refusal(folder: Path) -> str:
    """Return the message with which a folder is refused, which is one line."""
    with pytest.raises(CheckpointError) as error:
        open_language_model("some/model", folder).load()
    message = str(error.value)
    assert len(message.splitlines()) == 1 and len(message) < 500
    return message


@pytest.mark.parametrize("saving", [{"max_shard_size": "20KB"}, {"safe_serialization": False}])
def test_other_forms_of_the_weights_give_the_same_model(llama: Path, tmp_path: Path, saving: dict[str, Any]) -> None:
    folder = tmp_path / "model"
    if "safe_serialization" in saving:  # transformers 5 no longer writes it
        shutil.copytree(llama, folder)
        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    else:
        save_language_model(folder, "llama", **saving)
        assert len(list(folder.glob("model-*.safetensors"))) > 1
    models = [open_language_model("model", path).load() for path in (folder, llama)]
    first, second = (dict(model.named_parameters()) for model in models)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    first, second = (model.start(torch.ones(1, 3, 16))[1] for model in models)
    torch.testing.assert_close(first, second)  # where a file is mapped decides how sums are rounded
    hashes = {open_language_model("model", path).content_hash for path in (folder, llama)}
    assert len(hashes) == 2


def test_content_hash_depends_on_every_file_that_decides(llama: Path, tmp_path: Path) -> None:
    def hash_with(name: str, content: bytes) -> str:
        folder = tmp_path / name / "other-name"
        shutil.copytree(llama, folder)
        (folder / name).write_bytes(content)
        return open_language_model("any/name", folder).content_hash

    own = open_language_model("model", llama).content_hash
    assert hash_with("README.md", b"---\nlicense: mit\n---\n") == hash_with("notes.txt", b"x") == own
    tokenizer = (llama / "tokenizer.json").read_bytes()
    config = json.loads((llama / "config.json").read_bytes())
    changed = [
        ("tokenizer.json", tokenizer + b"\n"),
        ("config.json", json.dumps({**config, "rms_norm_eps": 1e-5}).encode()),
    ]
    other = load_file(llama / "model.safetensors")
    other["model.norm.weight"][0] += 1
    save_file(other, tmp_path / "other.safetensors", {"format": "pt"})
    changed += [("model.safetensors", (tmp_path / "other.safetensors").read_bytes())]
    assert len({own, *(hash_with(*one) for one in changed)}) == 4


@pytest.mark.parametrize("damage", ["missing", "NaN", "infinite"])
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_missing_and_damaged_tensors_are_named(llama: Path, tmp_path: Path, kind: str, damage: str) -> None:
    folder = save_gpt2(tmp_path / "gpt2") if kind == "gpt2" else shutil.copytree(llama, tmp_path / "llama")
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in sorted(tensors) if "norm" in name or "ln_1" in name)
    if damage == "missing":
        del tensors[name]
    else:
        tensors[name][1] = torch.nan if damage == "NaN" else torch.inf
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    message = _refusal(folder)
    if (kind, damage) == ("gpt2", "missing"):  # told before GPT-2 is built
        assert "has 12,720 numbers, but the configuration asks for 12,736" in message
    else:
        assert name in message and ("lack" if damage == "missing" else "NaN or infinite") in message


def test_tensor_of_another_shape_is_named(llama: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = shutil.copytree(llama, tmp_path / "llama")
    edit_json(folder / "config.json", intermediate_size=32)
    message = _refusal(folder)
    assert "(llama) cannot write captions: its tensor model.layers.0.mlp.down_proj.weight has another shape" in message
    assert capfd.readouterr() == ("", "")


def test_end_token_of_a_list_is_its_first(llama: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(llama, tmp_path / "llama")
    edit_json(folder / "config.json", eos_token_id=[300, 2])
    half = open_language_model("model", folder)
    assert half.tokenizer.end_id == 300
    assert 2 in half.load().unsayable and 300 not in half.load().unsayable
    edit_json(folder / "config.json", eos_token_id=None)
    assert open_language_model("model", folder).tokenizer.end_id == 2
    edit_json(folder / "tokenizer_config.json", eos_token=None)
    assert "no token that ends a text" in _refusal(folder)


def test_recurrent_and_encoder_decoder_models_are_refused_by_name(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sizes = {"vocab_size": 310, "eos_token_id": 300, "pad_token_id": 0}
    wide = {"d_model": 16, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "encoder_layers": 1, "decoder_layers": 1}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "decoder_start_token_id": 0}
    models = {
        "mamba": MambaForCausalLM(MambaConfig(hidden_size=16, num_hidden_layers=1, state_size=4, **sizes)),
        "t5": T5ForConditionalGeneration(T5Config(d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2, **sizes)),
        "bart": BartForConditionalGeneration(BartConfig(**wide, **heads, **sizes)),
    }
    for kind, model in models.items():
        save_byte_level(tmp_path / kind)
        randomise(model).save_pretrained(tmp_path / kind)
    capfd.readouterr()
    for kind in models:
        assert _refusal(tmp_path / kind).startswith(f"some/model ({kind}) cannot write captions: ")
    assert capfd.readouterr() == ("", "")


def test_cache_whose_rows_cannot_be_chosen_is_refused(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DynamicCache, "reorder_cache", lambda cache, rows: cache.batch_select_indices(rows.flip(0) * 0))
    assert "it gives other logits for one token after another than for all at once" in _refusal(llama)


def test_code_of_a_repository_is_never_run(llama: Path, tmp_path: Path) -> None:
    folder, ran = shutil.copytree(llama, tmp_path / "model"), tmp_path / "ran"
    (folder / "modeling.py").write_text(f"open({str(ran)!r}, 'w')\nclass Model: pass\n")
    places = {name: "modeling.Model" for name in ("AutoConfig", "AutoModelForCausalLM", "AutoTokenizer")}
    edit_json(folder / "config.json", auto_map=places)
    open_language_model("model", folder).load()  # of a kind that transformers knows itself
    edit_json(folder / "config.json", auto_map=places, model_type="new")
    assert "(new)" in _refusal(folder)

    class Code:
        def __reduce__(self) -> tuple[Any, ...]:
            return open, (str(ran), "w")

    folder = shutil.copytree(llama, tmp_path / "pickled")
    (folder / "model.safetensors").unlink()
    torch.save({"model.norm.weight": Code()}, folder / "pytorch_model.bin", pickle_module=pickle)
    _refusal(folder)
    assert not ran.exists()


def test_incomplete_folders_are_refused(llama: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(llama, tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    assert "(llama) cannot write captions" in _refusal(folder)
    (folder / "model.safetensors").unlink()
    assert f"has no weights: {folder}/model.safetensors does not exist" in _refusal(folder)
    (folder / "config.json").write_text("[]")
    assert f"{folder}/config.json is not an object" in _refusal(folder)
    (folder / "config.json").unlink()
    assert f"{folder}/config.json does not exist" in _refusal(folder)


# GPT-2


def test_gpt2_of_both_kinds_writes_the_same_strings(tmp_path: Path) -> None:
    folder = save_gpt2(tmp_path / "gpt2")
    own, other = open_language_model("gpt2", folder), causal_lm.open_half(HubFolder("gpt2", folder))
    assert isinstance(own, Gpt2Half)
    torch.manual_seed(4)
    prefixes = torch.randn(8, N_PREFIX, 16)
    strings = []
    for half in (own, other):
        assert half.tokenizer.encode(tiny_captions(20)) == own.tokenizer.encode(tiny_captions(20))
        found = beam_search(half.load(), prefixes, DecodingConfig(5, 12, n_best=5), end_id=half.tokenizer.end_id)
        strings.append([[half.tokenizer.decode(list(h.token_ids)) for h in several] for several in found])
    assert strings[0] == strings[1] and len({several[0] for several in strings[0]}) > 4


@pytest.mark.parametrize(
    "changes",
    [{"n_inner": 24}, {"activation_function": "relu"}, {"scale_attn_by_inverse_layer_idx": True}, {"n_absent": 3}],
)
def test_other_gpt2s_are_left_to_transformers(tmp_path: Path, changes: dict[str, Any]) -> None:
    half = open_language_model("gpt2", save_gpt2(tmp_path / "gpt2", **changes))
    assert isinstance(half, CausalLmHalf)
    assert half.load().unsayable.tolist() == [320 + i for i in range(changes.get("n_absent", 0))]


def test_gpt2_with_another_end_token_is_left_to_transformers(tmp_path: Path) -> None:
    folder = save_gpt2(tmp_path / "gpt2")
    vocab = json.loads((folder / "vocab.json").read_text())
    vocab = {END if id_ == 319 else token: id_ for token, id_ in vocab.items()}
    (folder / "vocab.json").write_text(json.dumps(vocab))
    edit_json(folder / "tokenizer_config.json", **{f"{name}_token": END for name in ("bos", "eos", "unk")})
    half = open_language_model("gpt2", folder)
    assert isinstance(half, CausalLmHalf) and half.tokenizer.end_id == 319
    half.load()
