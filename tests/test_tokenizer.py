"""The tokenizer compared with transformers' GPT-2 tokenizer, and the errors for broken files."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import GPT2TokenizerFast

from textcap.errors import CheckpointError
from textcap.models.tokenizer import END_OF_TEXT, Tokenizer
from tiny_random import write_tokenizer

with tempfile.TemporaryDirectory() as _folder:
    write_tokenizer(Path(_folder))
    files = str(Path(_folder) / "vocab.json"), str(Path(_folder) / "merges.txt")
    tiny = Tokenizer.load(Path(files[0]), Path(files[1]))
    reference = GPT2TokenizerFast(*files)


@given(st.text())
def test_any_text_is_encoded_like_transformers_and_decoded_again(text: str) -> None:
    [ids] = tiny.encode([text])
    assert ids == reference(text)["input_ids"]
    if END_OF_TEXT not in text:
        assert tiny.decode(ids) == text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


@given(st.text(min_size=1), st.integers(2, 20))
def test_tokens_for_clap_are_cut_but_keep_the_end_token(caption: str, max_tokens: int) -> None:
    [ids] = tiny.encode_for_clap([caption], max_tokens)
    [whole] = tiny.encode_for_clap([caption], 10**6)
    assert ids[-1] == tiny.end_id
    assert len(ids) == min(len(whole), max_tokens)
    assert ids[:-1] == whole[: len(ids) - 1]


def test_tokens_of_gpt2_equal_transformers(test_data: Path) -> None:
    folder = test_data / "gpt2_tokenizer"
    ours = Tokenizer.load(folder / "vocab.json", folder / "merges.txt")
    theirs = GPT2TokenizerFast(str(folder / "vocab.json"), str(folder / "merges.txt"))
    captions = (test_data / "captions" / "clotho_val.txt").read_text(encoding="utf-8").splitlines()[:500]
    assert ours.end_id == 50256
    assert ours.vocab_size == 50257
    assert ours.encode_for_clap(["a dog"], 77)[0][-2:] == [220, 50256]
    assert ours.encode_for_clap(captions, 77) == [theirs(f"{c} <|endoftext|>")["input_ids"] for c in captions]


def test_end_tokens_are_not_decoded() -> None:
    [ids] = tiny.encode(["a dog barks"])
    assert tiny.decode([*ids, tiny.end_id]) == "a dog barks"


@pytest.mark.parametrize("content", ["", "{", '{"a": 0}'])
def test_broken_vocabulary_is_an_error_with_its_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "vocab.json"
    path.write_text(content)
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(CheckpointError, match="vocab.json"):
        Tokenizer.load(path, tmp_path / "merges.txt")
