"""What captioning gives: typed results, which can be read without loading torch."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from textcap.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Candidate:
    """One possible caption of a sound.

    Attributes:
        caption: The caption.
        score: Mean log probability per token in nats, at most 0.
        similarity: Cosine of CLAP's embeddings of the sound and of the caption, not calibrated; None if it was not
            requested.
    """

    caption: str
    score: float
    similarity: float | None = None


@dataclass(frozen=True)
class Piece:
    """A stretch of a recording that sounds alike throughout, and its caption."""

    start_s: float
    end_s: float
    caption: str
    score: float  # mean log probability per token in nats, at most 0
    # of what is heard, before any bridge, [E], unit length
    embedding: "NDArray[np.float32] | None" = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class CaptionResult:
    """The result for one sound: captions, a time line, silence or an error.

    Attributes:
        path: The source as it was given; of an open file its name.
        candidates: The best captions, best first; empty for silence, a time line or an error.
        pieces: The time line, in order of time; None if it was not requested, or if there is an error.
        duration_s: Length of the sound in seconds; None if there is an error.
        is_silent: Whether all of the sound is silent.
        notes: What the user must know of the sound, each worded to follow the path, such as "ends early".
        error: Why the sound could not be captioned; None if it was.
        embedding: CLAP's embedding of the sound, before any bridge, `[E]`, unit length; None for silence, a time line,
            whose pieces have their own, or an error.
    """

    path: str
    candidates: tuple[Candidate, ...] = ()
    pieces: tuple[Piece, ...] | None = None
    duration_s: float | None = None
    is_silent: bool = False
    notes: tuple[str, ...] = ()
    error: InputError | None = None
    embedding: "NDArray[np.float32] | None" = field(default=None, repr=False, compare=False)

    @property
    def caption(self) -> str:
        """The best caption; empty if there is none."""
        return self.candidates[0].caption if self.candidates else ""

    @property
    def score(self) -> float | None:
        """Mean log probability per token of the best caption in nats, at most 0; None if there is none."""
        return self.candidates[0].score if self.candidates else None
