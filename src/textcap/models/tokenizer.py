"""GPT-2's byte-level BPE tokenizer, read from its two files.

Built on the `tokenizers` package, so that it behaves the same under transformers 4 and 5.
"""

from pathlib import Path

from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as _Tokenizer

from textcap.errors import CheckpointError
from textcap.files import open_regular

END_OF_TEXT = "<|endoftext|>"


class Tokenizer:
    """Converts text to token ids and back.

    Attributes:
        end_id: The id of the end-of-text token.
    """

    def __init__(self, tokenizer: _Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.end_id: int = tokenizer.token_to_id(END_OF_TEXT)

    @classmethod
    def load(cls, vocab: Path, merges: Path) -> "Tokenizer":
        """Read `vocab.json` and `merges.txt`.

        Raises:
            CheckpointError: A file is missing or not valid, or the vocabulary has no end-of-text token.
        """
        try:
            for path in (vocab, merges):
                open_regular(path).close()
            tokenizer = _Tokenizer(models.BPE.from_file(str(vocab), str(merges)))
        except Exception as error:  # the package raises a bare Exception for every malformed file
            hint = "download the weights again"
            raise CheckpointError(f"{vocab} and {merges} are not a GPT-2 tokenizer: {error}", hint=hint) from error
        if tokenizer.token_to_id(END_OF_TEXT) is None:
            raise CheckpointError(f"{vocab} has no {END_OF_TEXT} token")
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_special_tokens([AddedToken(END_OF_TEXT, normalized=False)])
        return cls(tokenizer)

    @property
    def vocab_size(self) -> int:
        """Number of token ids, including the end token."""
        return int(self._tokenizer.get_vocab_size())

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Return the token ids of each text, without adding special tokens."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts)]

    def encode_for_clap(self, captions: list[str], max_tokens: int) -> list[list[int]]:
        """Return the token ids of each caption for CLAP: the caption, a space and the end token.

        Longer captions are cut to `max_tokens` and keep the end token; msclap does not cut them and fails.
        """
        encoded = self.encode([f"{caption} {END_OF_TEXT}" for caption in captions])
        return [ids if len(ids) <= max_tokens else [*ids[: max_tokens - 1], self.end_id] for ids in encoded]

    def decode(self, ids: list[int]) -> str:
        """Return the text of token ids, without end tokens."""
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))
