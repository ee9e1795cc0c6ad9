"""Beam search compared with greedy `generate`, exhaustive search and a slow search without a cache."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from test_language_model import make_pair
from textcap.config import DecodingConfig, LanguageModelConfig
from textcap.errors import InputError
from textcap.models.beam_search import Hypothesis, beam_search

SMALL = LanguageModelConfig(n_layers=2, width=16, n_heads=2, n_positions=32, vocab_size=11)


@pytest.fixture(autouse=True)
def _one_thread():
    """Use one thread, because more only slow down models this small, especially on a busy machine."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


class SlowModel:
    """Computes log probabilities with transformers, each time from the whole sequence."""

    def __init__(self, reference, prefix, temperature=1.0):
        self.reference, self.prefix, self.temperature = reference, prefix, temperature

    def next(self, sequences: list[list[int]]) -> np.ndarray:
        """Return the log probabilities [N, V] of the token after each of N sequences of equal length."""
        embedded = self.reference.transformer.wte(torch.tensor(sequences, dtype=torch.long))
        prefixes = self.prefix.expand(len(sequences), -1, -1)
        with torch.no_grad():
            logits = self.reference(inputs_embeds=torch.cat((prefixes, embedded), dim=1)).logits[:, -1]
        logits = logits.double().numpy() / self.temperature
        logits -= logits.max(axis=1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))

    def total(self, tokens: list[int]) -> float:
        """Return the summed log probability of a sequence."""
        return sum(self.next([tokens[:place]])[0, token] for place, token in enumerate(tokens))


def slow_beam_search(
    slow: SlowModel, n_beams: int, max_tokens: int, end_id: int, min_tokens: int = 0
) -> list[tuple[tuple[int, ...], float]]:
    """Search by the rule of the released captioner: rank by mean log probability; ended beams stay and compete."""
    beams: list[tuple[list[int], float]] = [([], 0.0)]
    for _ in range(max_tokens):
        options = [beam for beam in beams if end_id in beam[0]]
        open_beams = [beam for beam in beams if end_id not in beam[0]]
        for (tokens, total), gains in zip(open_beams, slow.next([tokens for tokens, _ in open_beams]), strict=True):
            options += [
                ([*tokens, token], total + gain)
                for token, gain in enumerate(gains)
                if token != end_id or len(tokens) >= min_tokens
            ]
        options.sort(key=lambda option: option[1] / len(option[0]), reverse=True)
        beams = options[:n_beams]
        if all(tokens[-1] == end_id for tokens, _ in beams):
            break
    return [(tuple(tokens), total / len(tokens)) for tokens, total in beams]


def _double_pair(config=SMALL, seed=0):
    # In float64, the scores of two beams never differ by so little that rounding decides their order.
    model, reference = make_pair(config, seed)
    return model.double(), reference.double()


def _prefixes(n_clips: int, seed: int = 0, config=SMALL, n_prefix: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n_clips, n_prefix, config.width, generator=generator, dtype=torch.float64)


def _with_end(hypothesis: Hypothesis, end_id: int) -> tuple[int, ...]:
    return hypothesis.token_ids + ((end_id,) if hypothesis.finished else ())


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n_beams=st.integers(1, 5),
    max_tokens=st.integers(1, 9),
    end_id=st.integers(0, 10),
    temperature=st.sampled_from([0.5, 1.0, 3.0]),
    min_tokens=st.integers(0, 8),
)
def test_search_equals_the_slow_search(seed, n_beams, max_tokens, end_id, temperature, min_tokens):
    min_tokens = min(min_tokens, max_tokens - 1)
    model, reference = _double_pair(seed=seed)
    prefixes = _prefixes(2, seed)
    config = DecodingConfig(n_beams, max_tokens, temperature, n_beams, min_tokens)
    results = beam_search(model, prefixes, config, end_id=end_id)
    for prefix, found in zip(prefixes, results, strict=True):
        expected = slow_beam_search(SlowModel(reference, prefix, temperature), n_beams, max_tokens, end_id, min_tokens)
        expected.sort(key=lambda beam: beam[1], reverse=True)
        assert [_with_end(hypothesis, end_id) for hypothesis in found] == [tokens for tokens, _ in expected]
        np.testing.assert_allclose([h.score for h in found], [score for _, score in expected], rtol=0, atol=1e-9)


def test_beams_and_clips_end_at_different_steps():
    """The comparison above relies on this: beams and clips do end at different steps with these models."""
    model, _ = _double_pair(seed=1)
    results = beam_search(model, _prefixes(12), DecodingConfig(4, 12, n_best=4), end_id=3)
    lengths = [[len(h.token_ids) if h.finished else None for h in found] for found in results]
    assert any(len({n for n in clip if n is not None}) > 1 for clip in lengths)
    assert len({max(clip) for clip in lengths if None not in clip}) > 1


def test_two_steps_with_all_tokens_as_beams_equal_exhaustive_search():
    config = LanguageModelConfig(n_layers=1, width=16, n_heads=2, n_positions=8, vocab_size=7)
    for seed in range(5):
        model, reference = _double_pair(config, seed)
        prefix = _prefixes(1, seed, config)
        first = SlowModel(reference, prefix[0]).next([[]])[0]
        second = SlowModel(reference, prefix[0]).next([[token] for token in range(7)])
        means = {(6,): first[6]}
        means |= {(a, b): (first[a] + second[a, b]) / 2 for a, b in itertools.product(range(6), range(7))}
        everything = sorted(means, key=means.__getitem__, reverse=True)
        found = beam_search(model, prefix, DecodingConfig(7, 2, n_best=7), end_id=6)[0]
        assert [_with_end(hypothesis, 6) for hypothesis in found] == everything[:7]


def test_beam_size_one_equals_greedy_generate():
    model, reference = make_pair(SMALL, seed=5)
    prefixes = _prefixes(16).float()
    found = beam_search(model, prefixes, DecodingConfig(1, 12), end_id=4)
    for prefix, (hypothesis,) in zip(prefixes, found, strict=True):
        generated = reference.generate(
            inputs_embeds=prefix[None],
            attention_mask=torch.ones(1, len(prefix), dtype=torch.long),
            max_new_tokens=12,
            do_sample=False,
            num_beams=1,
            eos_token_id=4,
            pad_token_id=4,
        )
        assert list(_with_end(hypothesis, 4)) == generated[0].tolist()
    assert {hypothesis.finished for (hypothesis,) in found} == {True, False}


def test_results_are_independent_of_the_batch():
    model, _ = make_pair(SMALL, seed=2)
    prefixes = _prefixes(30).float()
    config = DecodingConfig(5, 10, n_best=5)
    together = beam_search(model, prefixes, config, end_id=1)
    for batch_size in (1, 7):
        split = [found for batch in prefixes.split(batch_size) for found in beam_search(model, batch, config, end_id=1)]
        assert [[h.token_ids for h in found] for found in split] == [[h.token_ids for h in f] for f in together]
        scores, others = ([h.score for found in results for h in found] for results in (split, together))
        np.testing.assert_allclose(scores, others, rtol=0, atol=1e-5)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0)).tolist()
    shuffled = beam_search(model, prefixes[order], config, end_id=1)
    assert [found[0].token_ids for found in shuffled] == [together[clip][0].token_ids for clip in order]


def test_n_best_returns_the_first_beams_best_first():
    model, _ = _double_pair(seed=1)
    prefixes = _prefixes(8)
    everything = beam_search(model, prefixes, DecodingConfig(5, 8, n_best=5), end_id=2)
    for found in everything:
        scores = [hypothesis.score for hypothesis in found]
        assert scores == sorted(scores, reverse=True) and scores[0] <= 0
        assert len({_with_end(hypothesis, 2) for hypothesis in found}) == 5
    for n_best in (1, 3):
        fewer = beam_search(model, prefixes, DecodingConfig(5, 8, n_best=n_best), end_id=2)
        assert fewer == [found[:n_best] for found in everything]


def test_score_is_the_mean_log_probability_including_the_end_token():
    model, reference = _double_pair(seed=1)
    prefixes = _prefixes(6)
    finished = set()
    for prefix, found in zip(
        prefixes, beam_search(model, prefixes, DecodingConfig(4, 10, n_best=4), end_id=3), strict=True
    ):
        for hypothesis in found:
            tokens = list(_with_end(hypothesis, 3))
            assert 3 not in hypothesis.token_ids
            assert hypothesis.score == pytest.approx(SlowModel(reference, prefix).total(tokens) / len(tokens), abs=1e-9)
            finished.add(hypothesis.finished)
    assert finished == {True, False}


def test_search_of_one_token_returns_the_best_first_tokens():
    model, reference = _double_pair()
    prefixes = _prefixes(2)
    for prefix, found in zip(
        prefixes, beam_search(model, prefixes, DecodingConfig(3, 1, n_best=3), end_id=0), strict=True
    ):
        first = SlowModel(reference, prefix).next([[]])[0]
        assert [_with_end(hypothesis, 0) for hypothesis in found] == [(token,) for token in np.argsort(-first)[:3]]


def test_caption_that_begins_with_the_end_token_is_empty():
    model, reference = _double_pair()
    prefixes = _prefixes(1)
    first = SlowModel(reference, prefixes[0]).next([[]])[0]
    best = int(first.argmax())
    ((hypothesis,),) = beam_search(model, prefixes, DecodingConfig(1, 9), end_id=best)
    assert hypothesis.token_ids == () and hypothesis.finished
    assert hypothesis.score == pytest.approx(first[best], abs=1e-9)


def test_prefix_runs_once_and_ended_beams_and_clips_are_dropped():
    model, _ = _double_pair(seed=1)
    calls: list[tuple[int, int]] = []

    def record(name, method):
        def recorded(*args):
            state, logits = method(*args)
            calls.append((len(state.clips), state.prefix_cache[0].shape[1]))
            return state, logits

        setattr(model, name, recorded)

    record("start", model.start)
    record("advance", model.advance)
    beam_search(model, _prefixes(12), DecodingConfig(4, 12), end_id=3)
    assert calls[0] == (12, 12)
    rows, clips = zip(*calls[1:], strict=True)
    assert max(rows) <= 48 and rows[-1] < 4 * clips[-1]
    assert clips[-1] < 12 and list(clips) == sorted(clips, reverse=True)


def test_no_clips_give_no_captions():
    model, _ = make_pair(SMALL)
    assert beam_search(model, torch.zeros(0, 3, 16), DecodingConfig(), end_id=0) == []


def test_sizes_beyond_the_language_model_are_an_error():
    model, _ = make_pair(SMALL)
    prefixes = torch.zeros(1, 3, 16)
    with pytest.raises(
        InputError, match="beam_size is 12, but must be at most 11, the size of the language model's vocabulary"
    ):
        beam_search(model, prefixes, DecodingConfig(12, 5), end_id=0)
    with pytest.raises(InputError, match="max_tokens is 31, but must be at most 30 for this language model"):
        beam_search(model, prefixes, DecodingConfig(5, 31), end_id=0)
    beam_search(model, prefixes, DecodingConfig(5, 30), end_id=0)
