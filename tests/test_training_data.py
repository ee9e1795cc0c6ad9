"""What the training loop reads: token ids, the held-out split, the batches, and the learning rate schedule."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tiny_random
from textcap.models.tokenizer import Tokenizer
from textcap.training.data import (
    epoch_batches,
    make_examples,
    n_steps,
    rate_factor,
    scaled_warmup,
    split_held_out,
    tokenize_captions,
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return tiny_random.write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def test_tokens_spell_the_caption_and_finish_with_the_end_token(tokenizer: Tokenizer) -> None:
    captions = ["a dog barks", "a bell rings in the distance", "!"]
    table = tokenize_captions(captions, tokenizer, 77)
    tokens, lengths = table.padded([1, 0, 2])
    for row, length, caption in zip(tokens.tolist(), lengths.tolist(), [captions[i] for i in (1, 0, 2)], strict=True):
        assert row[length - 1] == tokenizer.end_id and tokenizer.end_id not in row[: length - 1]
        assert tokenizer.decode(row[: length - 1]) == caption
        assert not any(row[length:])
    assert tokens.shape[1] == max(table.lengths) and list(table.lengths[[1, 0, 2]]) == lengths.tolist()


def test_long_caption_is_cut_and_keeps_the_end_token(tokenizer: Tokenizer) -> None:
    table = tokenize_captions(["a dog barks " * 50], tokenizer, 20)
    tokens, lengths = table.padded([0])
    assert lengths.tolist() == [20] and tokens[0, -1] == tokenizer.end_id
    assert ("a dog barks " * 50).startswith(tokenizer.decode(tokens[0].tolist()))


def test_end_token_spelled_out_in_a_caption_is_removed(tokenizer: Tokenizer) -> None:
    tokens, lengths = tokenize_captions(["<|endoftext|>", "a<|endoftext|> b"], tokenizer, 77).padded([0, 1])
    assert lengths[0] == 1 and (tokens[1] == tokenizer.end_id).sum() == 1
    assert tokens[1, lengths[1] - 1] == tokenizer.end_id


@pytest.mark.parametrize(("n_captions", "wanted", "expected"), [(9, 200, 0), (10, 200, 1), (720, 200, 72), (720, 5, 5)])
def test_held_out_is_at_most_a_tenth(n_captions: int, wanted: int, expected: int) -> None:
    held_out = split_held_out(tiny_random.tiny_captions(n_captions), wanted, seed=0)
    assert len(held_out) == expected and len(set(held_out.tolist())) == expected


def test_held_out_follows_from_the_seed() -> None:
    captions = tiny_random.tiny_captions(300)
    first, again, other = (split_held_out(captions, 30, seed) for seed in (1, 1, 2))
    assert first.tolist() == again.tolist() != other.tolist()


@given(st.lists(st.integers(0, 40), min_size=1, max_size=300), st.integers(0, 50), st.integers(0, 5))
def test_copies_of_a_caption_stay_on_the_same_side(numbers: list[int], wanted: int, seed: int) -> None:
    captions = [f"caption {number}" for number in numbers]
    held_out = set(split_held_out(captions, wanted, seed).tolist())
    assert len(held_out) <= min(wanted, len(captions) // 10)
    training = {captions[i] for i in range(len(captions)) if i not in held_out}
    assert training and not training & {captions[i] for i in held_out}


def test_examples_split_all_captions_in_two(tokenizer: Tokenizer) -> None:
    captions = tiny_random.tiny_captions(100)
    examples = make_examples(captions, np.zeros((100, 4), np.float32), tokenizer, held_out_captions=7)
    assert sorted([*examples.training, *examples.held_out]) == list(range(100))
    assert examples.held_out_captions == tuple(captions[i] for i in examples.held_out)
    with pytest.raises(ValueError, match="100 captions and 99 embeddings"):
        make_examples(captions, np.zeros((99, 4), np.float32), tokenizer)


@given(
    st.lists(st.integers(1, 77), min_size=1, max_size=400),
    st.integers(1, 60),
    st.integers(0, 2**62),
    st.integers(0, 40),
)
def test_every_caption_is_in_one_batch_of_an_epoch(lengths: list[int], size: int, seed: int, epoch: int) -> None:
    batches = epoch_batches(np.array(lengths), size, seed, epoch)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    sizes = sorted(len(batch) for batch in batches)
    assert sizes[1:] == [size] * (len(sizes) - 1) and 1 <= sizes[0] <= size
    assert len(batches) * 3 == n_steps(len(lengths), size, 3)


def test_batches_follow_from_seed_and_epoch() -> None:
    lengths = np.arange(200) % 23 + 1

    def order(seed: int, epoch: int) -> list[list[int]]:
        return [batch.tolist() for batch in epoch_batches(lengths, 16, seed, epoch)]

    assert order(1, 0) == order(1, 0)
    assert len({str(order(*which)) for which in ((1, 0), (1, 1), (2, 0))}) == 3


def test_batches_hold_captions_of_similar_length() -> None:
    lengths = np.random.default_rng(0).integers(5, 30, 8000)
    batches = epoch_batches(lengths, batch_size=32, seed=0, epoch=0)
    padded = sum(len(batch) * lengths[batch].max() for batch in batches)
    assert padded < 1.04 * lengths.sum()
    # If the batches were not shuffled, long captions would come last.
    means = np.array([lengths[batch].mean() for batch in batches])
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.2


@pytest.mark.parametrize(
    ("asked", "total", "used"),
    [
        (2000, 15_240, 2000),
        (2000, 10_000, 2000),
        (2000, 9_999, 1999),
        (2000, 500, 100),
        (2000, 4, 0),
        (0, 500, 0),
        (50, 500, 50),
        (20_000, 15_000, 15_000),
    ],
)
def test_warmup_is_at_most_a_fifth_of_a_short_run(asked: int, total: int, used: int) -> None:
    assert scaled_warmup(asked, total) == used


@given(st.integers(1, 500), st.integers(0, 3000))
def test_rate_is_the_lower_of_a_rising_and_a_falling_line(total: int, asked: int) -> None:
    warmup = scaled_warmup(asked, total)
    factors = [rate_factor(step, warmup, total) for step in range(total)]
    for step, factor in enumerate(factors):
        rising = (step + 1) / warmup if warmup else 1.0
        falling = (total - step) / (total - warmup) if warmup < total else 1.0
        assert factor == pytest.approx(min(rising, falling))
    assert max(factors) == 1.0 and min(factors) > 0
