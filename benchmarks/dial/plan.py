"""The sizes of the dial, its mappers, and the clips and embeddings that they share."""

from collections import Counter
from dataclasses import dataclass, replace
from functools import cache

from benchmarks.dial.bridges import TEXT_SIDES
from textcap.demo.folder import Clip, held_out_clips, training_pairs
from textcap.gap.retrieval import Array

# Shares no clip or caption with the demo, the training of the embedded models or any other benchmark.
WORLD_SEED = 6006
TUNING_SEED = 6007
SHARES = (0.1, 0.5, 0.9)
NARROW = "narrow"
NOISES = (0.0, 0.02, 0.04, 0.06, 0.1, 0.2)  # standard deviations
SEEDS = (0, 1, 2)
SAMPLE_SIZES = (10, 30, 100, 300, 1000)


@dataclass(frozen=True)
class Plan:
    """The sizes of the run."""

    n_captions: int = 10240
    n_sounds: int = 5000  # recordings without captions, of other clips
    n_pairs: int = 1000  # of these, with captions
    n_seen: int = 330
    n_unseen: int = 170
    n_steps: int = 320
    batch_size: int = 128
    learning_rate: float = 2e-3
    cosine: float = 0.4
    noise_std: float = 0.06  # beside every bridge; the best of `NOISES` on the clips for tuning, see docs


@dataclass(frozen=True)
class Part:
    """One mapper to train.

    Attributes:
        gap: A share of the shift, or `NARROW`.
        trained_on: "text", "audio", or the name of a bridge that moves the text.
        noise_std: Standard deviation of the noise; None for the plan's.
        n_times: How many times the plan's steps.
        rate: How many times the plan's learning rate.
    """

    gap: float | str
    trained_on: str = "text"
    noise_std: float | None = None
    seed: int = 0
    n_times: int = 1
    rate: float = 1.0

    @property
    def name(self) -> str:
        """A unique name, for the files of the part."""
        noise = "" if self.noise_std is None else f"-noise{self.noise_std:g}"
        rest = (f"-{self.n_times}x" if self.n_times > 1 else "") + (f"-rate{self.rate:g}" if self.rate != 1 else "")
        return f"{self.gap}-{self.trained_on}{noise}{rest}-{self.seed}"


def parts_of(plan: Plan) -> list[Part]:
    """Return the parts in the order in which they are run."""
    middle, others, moving = SHARES[1], (SHARES[0], SHARES[2]), [name for name in TEXT_SIDES if name != "text"]
    simple = [Part(middle, noise_std=0.0), Part(middle), Part(middle, "audio", 0.0)]
    found = [replace(part, seed=seed) for seed in SEEDS for part in simple]
    found += [Part(middle, name) for name in moving] + [Part(middle, "centre", 0.0)]
    found += [Part(middle, "centre", seed=seed) for seed in SEEDS[1:]]
    for share in others:
        found += [replace(part, gap=share) for part in simple]
        found += [Part(share, name) for name in moving] + [Part(share, "centre", 0.0)]
    found += [replace(part, gap=NARROW) for part in simple] + [Part(NARROW, "centre")]
    found += [Part(middle, noise_std=std) for std in NOISES if std not in (0.0, plan.noise_std)]
    found += [replace(part, n_times=2) for part in simple]
    found += [Part(middle, "audio", 0.0, rate=0.5)]
    assert len(found) <= 50
    return found


@dataclass(frozen=True)
class World:
    """Embeddings of one gap, unit length; the two sides of a row belong together."""

    text: Array  # [N, E], of the training captions
    audio: Array  # [N, E], of the clips that they describe
    sounds: Array  # [S, E], of other clips
    sounds_text: Array  # [S, E], of a caption of each of these, used for pairs only
    one_kind: Array  # [300, E] or fewer, of those with the kind of sound that most of them have
    test: Array  # [T, E], of the sounds to caption
    test_text: Array  # [T, E], of one caption of each
    tuning: Array  # [T, E], of the sounds to tune on


@cache
def clips(plan: Plan) -> dict[str, list[Clip]]:
    """Return the clips of every role."""
    training = training_pairs(plan.n_captions + plan.n_sounds, WORLD_SEED)
    return {
        "training": training[: plan.n_captions],
        "sounds": training[plan.n_captions :],
        "test": held_out_clips(plan.n_seen, plan.n_unseen, WORLD_SEED),
        "tuning": held_out_clips(plan.n_seen, plan.n_unseen, TUNING_SEED),
    }


def of_one_kind(several: list[Clip]) -> list[int]:
    """Return the places of up to 300 clips that have the kind of sound that most clips have."""
    counts = Counter(kind for clip in several for kind in clip.scene.kinds)
    kind, _ = counts.most_common(1)[0]
    return [i for i, clip in enumerate(several) if kind in clip.scene.kinds][:300]
