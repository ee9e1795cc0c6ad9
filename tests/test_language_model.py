"""The frozen GPT-2 compared with transformers: loss, gradients, cached decoding and loading."""

import pytest
import torch
from safetensors.torch import save_file
from transformers import GPT2LMHeadModel

from reference_models import gpt2_config
from textcap.config import LanguageModelConfig
from textcap.errors import CheckpointError
from textcap.models import gpt2 as language_model
from textcap.models.gpt2 import Gpt2LanguageModel, load_gpt2
from textcap.models.loading import Checkpoint, read_checkpoint

TINY = LanguageModelConfig(n_layers=2, width=16, n_heads=2, n_positions=32, vocab_size=23)


def make_reference(config: LanguageModelConfig = TINY, seed: int = 0) -> GPT2LMHeadModel:
    """Return transformers' GPT-2 with all tensors random, so that swapped biases or norms change the output."""
    reference = GPT2LMHeadModel(gpt2_config(config))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return reference.eval()


def make_pair(config: LanguageModelConfig = TINY, seed: int = 0) -> tuple[Gpt2LanguageModel, GPT2LMHeadModel]:
    reference = make_reference(config, seed)
    checkpoint = Checkpoint("memory", reference.transformer.state_dict())
    return load_gpt2(config, checkpoint), reference


def _batch(seed: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    prefixes = torch.randn(4, 5, 16, generator=generator)
    tokens = torch.randint(0, 23, (4, 7), generator=generator)
    return prefixes, tokens, torch.tensor([7, 1, 4, 6])


def _reference_loss(reference, prefixes, tokens, lengths):
    """Return transformers' loss, computed from all logits with -100 as the label of ignored positions."""
    embedded = torch.cat((prefixes, reference.transformer.wte(tokens)), dim=1)
    labels = torch.full(embedded.shape[:2], -100)
    for row, length in enumerate(lengths.tolist()):
        labels[row, 5 : 5 + length] = tokens[row, :length]
    return reference(inputs_embeds=embedded, labels=labels).loss


@pytest.fixture(params=[3, 256])
def rows_at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute the loss of 18 targets in several parts, and in one."""
    monkeypatch.setattr(language_model, "_LOSS_ROWS", request.param)


@pytest.mark.usefixtures("rows_at_once")
def test_loss_equals_transformers_with_ignored_labels():
    model, reference = make_pair()
    prefixes, tokens, lengths = _batch()
    expected = _reference_loss(reference, prefixes, tokens, lengths)
    torch.testing.assert_close(model.loss(prefixes, tokens, lengths), expected, rtol=1e-5, atol=1e-6)


def test_loss_is_independent_of_the_padding():
    model, _ = make_pair()
    prefixes, tokens, lengths = _batch()
    other = tokens.clone()
    for row, length in enumerate(lengths.tolist()):
        other[row, length:] = (other[row, length:] + 5) % 23
    assert model.loss(prefixes, other, lengths) == model.loss(prefixes, tokens, lengths)
    longer = torch.cat((tokens, tokens), dim=1)
    torch.testing.assert_close(model.loss(prefixes, longer, lengths), model.loss(prefixes, tokens, lengths))


@pytest.mark.usefixtures("rows_at_once")
def test_gradient_reaches_only_the_prefix_and_equals_transformers():
    model, reference = make_pair()
    prefixes, tokens, lengths = _batch()
    ours, theirs = prefixes.clone().requires_grad_(), prefixes.clone().requires_grad_()
    model.loss(ours, tokens, lengths).backward()
    _reference_loss(reference, theirs, tokens, lengths).backward()
    assert theirs.grad.abs().max() > 1e-3
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_loss_works_under_bfloat16_autocast():
    model, _ = make_pair()
    prefixes, tokens, lengths = _batch()
    exact = model.loss(prefixes, tokens, lengths)
    prefixes = prefixes.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model.loss(prefixes, tokens, lengths)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss != exact
    torch.testing.assert_close(loss, exact, rtol=0.02, atol=0)
    assert prefixes.grad.dtype == torch.float32 and prefixes.grad.isfinite().all()


def test_gradient_of_likely_tokens_keeps_its_accuracy_in_bfloat16():
    torch.manual_seed(0)
    weight = torch.randn(50, 16)
    hidden = 1.5 * weight[:8] + 0.1 * torch.randn(8, 16)  # each target is near certain

    def gradient() -> torch.Tensor:
        inputs = hidden.clone().requires_grad_()
        language_model._FrozenHeadLoss.apply(inputs, weight, torch.arange(8)).backward()
        return inputs.grad

    exact = gradient()
    with torch.autocast("cpu", torch.bfloat16):
        logits = torch.nn.functional.linear(hidden, weight).float()
        rounded = gradient()
    errors = (logits.softmax(-1) - torch.eye(50)[:8]) @ weight / 8  # from the same logits, exact after them
    assert logits.softmax(-1).diagonal().min() > 0.9 and exact.norm() > 0
    assert (rounded - errors).norm() < 0.01 * errors.norm()


def test_model_stays_in_evaluation_mode_when_its_parent_trains():
    model, _ = make_pair()
    parent = torch.nn.ModuleList([model]).train()
    assert parent.training
    assert not any(module.training for module in model.modules())
    prefixes, tokens, lengths = _batch()
    assert model.loss(prefixes, tokens, lengths) == model.loss(prefixes, tokens, lengths)


def _uncached_logits(reference, prefix, tokens):
    """Return the logits after the prefix [P, D] of one clip and tokens, computed from the whole sequence."""
    embedded = reference.transformer.wte(torch.tensor(tokens, dtype=torch.long))
    with torch.no_grad():
        return reference(inputs_embeds=torch.cat((prefix, embedded))[None]).logits[0, -1]


def test_first_logits_equal_transformers():
    model, reference = make_pair()
    prefixes, _, _ = _batch()
    _, logits = model.start(prefixes)
    expected = torch.stack([_uncached_logits(reference, prefix, []) for prefix in prefixes])
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


def test_cached_logits_equal_those_of_the_whole_sequence_for_any_rows():
    model, reference = make_pair()
    prefixes, _, _ = _batch()
    state, _ = model.start(prefixes)
    histories = [(clip, []) for clip in range(4)]
    # Rows are repeated, dropped and reordered; clip 1 has none after the second step, clip 3 none after the third.
    steps = [
        ([0, 0, 1, 2, 2, 2, 3], [3, 4, 5, 6, 7, 8, 9]),
        ([6, 0, 5, 3, 3, 1], [1, 1, 2, 3, 5, 8]),
        ([2, 1, 2], [0, 22, 11]),
    ]
    for rows, tokens in steps:
        state, logits = model.advance(state, torch.tensor(rows), torch.tensor(tokens))
        histories = [(histories[row][0], [*histories[row][1], token]) for row, token in zip(rows, tokens, strict=True)]
        expected = [_uncached_logits(reference, prefixes[clip], history) for clip, history in histories]
        torch.testing.assert_close(logits, torch.stack(expected), rtol=1e-5, atol=1e-5)
    assert {clip for clip, _ in histories} == {0, 2}
    assert state.prefix_cache[0].shape[1] == 2  # the prefixes of the other clips are dropped


def test_prefix_is_kept_once_per_clip():
    model, _ = make_pair()
    prefixes, _, _ = _batch()
    state, _ = model.start(prefixes)
    state, _ = model.advance(state, torch.arange(4).repeat_interleave(5), torch.arange(20))
    assert [tuple(layer.shape) for layer in state.prefix_cache] == [(2, 4, 2, 5, 8)] * 2
    assert [tuple(layer.shape) for layer in state.row_cache] == [(2, 20, 2, 1, 8)] * 2


def test_too_many_positions_are_an_error():
    model, _ = make_pair()
    with pytest.raises(ValueError, match="33 positions are needed, but the language model has only 32"):
        model.start(torch.zeros(1, 33, 16))
    state, _ = model.start(torch.zeros(1, 32, 16))
    with pytest.raises(ValueError, match="33 positions"):
        model.advance(state, torch.tensor([0]), torch.tensor([0]))
    # The last token is only predicted: 30 + 3 tokens take 32 positions.
    assert model.loss(torch.zeros(1, 30, 16), torch.zeros(1, 3, dtype=torch.long), torch.tensor([3])) > 0
    with pytest.raises(ValueError, match="33 positions"):
        model.loss(torch.zeros(1, 30, 16), torch.zeros(1, 4, dtype=torch.long), torch.tensor([4]))


@pytest.mark.parametrize("before", ["", "transformer.", "gpt.transformer."])
def test_weights_load_with_every_known_prefix_of_names(tmp_path, before):
    reference = make_reference()
    tensors = {before + name: tensor.clone() for name, tensor in reference.transformer.state_dict().items()}
    head = before.removesuffix("transformer.") + "lm_head.weight"
    extras = {
        f"{before}h.0.attn.bias": torch.ones(1, 1, 32, 32),
        f"{before}h.0.attn.masked_bias": torch.tensor(-1e4),
        head: reference.lm_head.weight.clone(),
        "something.else": torch.zeros(2),
    }
    save_file(tensors | extras, tmp_path / "model.safetensors")
    checkpoint = read_checkpoint(tmp_path / "model.safetensors")
    model = load_gpt2(TINY, checkpoint, before if before.startswith("gpt.") else None)
    prefixes, tokens, lengths = _batch()
    expected = _reference_loss(reference, prefixes, tokens, lengths)
    torch.testing.assert_close(model.loss(prefixes, tokens, lengths), expected, rtol=1e-5, atol=1e-6)
    assert checkpoint.unused == ["something.else"]


def test_missing_tensor_or_wrong_shape_is_an_error_with_the_name_of_the_tensor():
    tensors = make_reference().transformer.state_dict()
    assert len(tensors) == 2 + 2 * 12 + 2
    for name in tensors:
        without = {other: tensor for other, tensor in tensors.items() if other != name}
        with pytest.raises(CheckpointError, match=f"gpt2.file lacks the tensor {name}$"):
            load_gpt2(TINY, Checkpoint("gpt2.file", without))
        longer = tensors | {name: torch.cat((tensors[name], tensors[name]))}
        with pytest.raises(CheckpointError, match=f"gpt2.file: tensor {name} has shape"):
            load_gpt2(TINY, Checkpoint("gpt2.file", longer))


def test_output_layer_other_than_the_token_embedding_is_an_error():
    reference = make_reference()
    tensors = reference.transformer.state_dict() | {"lm_head.weight": torch.zeros(23, 16)}
    with pytest.raises(CheckpointError, match="lm_head.weight differs from the token embedding wte.weight"):
        load_gpt2(TINY, Checkpoint("gpt2.file", tensors))
