"""GPT-2's byte-level BPE, from its two files.

Built on the `tokenizers` package, so that it is the same under transformers 4 and 5. Knows nothing of models.
"""

from pathlib import Path

from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as _Tokenizer

from textcap.errors import CheckpointError

END_OF_TEXT = "<|endoftext|>"


class Tokenizer:
    """Text to token ids and back.

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
            CheckpointError: A file is missing or is not what its name says, or has no end-of-text token.
        """
        try:
            tokenizer = _Tokenizer(models.BPE.from_file(str(vocab), str(merges)))
        except Exception as error:  # the package raises bare Exception for every malformed file
            hint = "fetch the weights again"
            raise CheckpointError(f"{vocab} and {merges} are no GPT-2 tokenizer: {error}", hint=hint) from error
        if tokenizer.token_to_id(END_OF_TEXT) is None:
            raise CheckpointError(f"{vocab} has no {END_OF_TEXT} token")
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_special_tokens([AddedToken(END_OF_TEXT, normalized=False)])
        return cls(tokenizer)

    @property
    def vocab_size(self) -> int:
        """Number of token ids, the end token included."""
        return int(self._tokenizer.get_vocab_size())

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Return the token ids of each text; nothing is added."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts)]

    def encode_for_clap(self, captions: list[str], max_tokens: int) -> list[list[int]]:
        """Return the ids of each caption as CLAP reads it: a space and the end token behind it, at most `max_tokens`.

        msclap does not cut long captions and fails on them; here the end token stays and the words give way.
        """
        encoded = self.encode([f"{caption} {END_OF_TEXT}" for caption in captions])
        return [ids if len(ids) <= max_tokens else [*ids[: max_tokens - 1], self.end_id] for ids in encoded]

    def decode(self, ids: list[int]) -> str:
        """Return the text of token ids; end tokens are left out."""
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))
