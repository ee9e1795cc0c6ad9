"""What is measured: the sizes of the run, and the parts of each experiment.

Knows no model. A part is one mapper that is trained, and the captions that it gives to the test clips; some stand
in the tables of several experiments.
"""

from dataclasses import dataclass, replace

# No clip or caption of the demo, none that the embedded models were built on, none of any other measurement.
WORLD_SEED = 5005
# Another world: its pairs say how much noise to add, so that no test clip does.
CALIBRATION_SEED = 5006
N_SEEN, N_UNSEEN, N_REFERENCES = 330, 170, 5
N_CALIBRATION_PAIRS = 30

SEEDS = (0, 1, 2)
CALIBRATED = "calibrated"
SWEPT_VARIANCES = (0.0, 0.0005, 0.002, 0.005, 0.02, 0.05, 0.1, 0.3, 1.0)
ADAPTER_PAIRS = (100, 1000, 10000)


@dataclass(frozen=True)
class Plan:
    """The sizes of the run.

    Attributes:
        n_captions: Captions of each writer, and clips that the first of them describe. So that all rows take the
            same number of steps, it is a multiple of the batch size.
        n_scarce: Captions in the rows of experiment 4 where human text is scarce; divides `n_captions`.
        n_steps: Of every mapper.
    """

    backbone: str = "tiny"
    n_captions: int = 10240
    n_scarce: int = 1024
    n_steps: int = 320
    batch_size: int = 128
    learning_rate: float = 2e-3


@dataclass(frozen=True)
class Part:
    """One mapper.

    Attributes:
        name: Unlike all others; files are called after it.
        sources: What is trained on: writers, "audio" for pairs with plain captions; with ":scarce", few captions
            repeated as often as makes as many draws as of the others.
        noise_variance: `CALIBRATED` follows from the 30 pairs, with an adapter from what the adapter leaves.
        adapter_pairs: How many pairs the linear adapter is fitted on; 0 for none.
        references: The writer of the references that its captions are scored against.
        all_metrics: SPICE as well, which takes long.
    """

    name: str
    sources: tuple[str, ...] = ("plain",)
    noise_variance: float | str = CALIBRATED
    adapter_pairs: int = 0
    seed: int = 0
    references: tuple[str, ...] = ("plain",)
    all_metrics: bool = True


def text_part(seed: int) -> Part:
    """Return the main row: text with calibrated noise. Seed 0 is scored on styled references too."""
    return Part(f"text-noise-{seed}", seed=seed, references=("plain", "styled") if seed == 0 else ("plain",))


def audio_part(seed: int) -> Part:
    """Return training on audio embeddings."""
    return Part(f"audio-{seed}", ("audio",), 0.0, seed=seed)


def swept_part(variance: float) -> Part:
    """Return text with a given noise, one seed."""
    return Part(f"variance-{variance:g}", noise_variance=variance, all_metrics=variance == 0)


def no_noise_part(seed: int) -> Part:
    """Return text without noise; seed 0 is the sweep's."""
    return replace(swept_part(0.0), name=f"no-noise-{seed}", seed=seed) if seed else swept_part(0.0)


def adapter_part(n_pairs: int, seed: int) -> Part:
    """Return text through an adapter, with what noise the rule then asks for."""
    return Part(f"adapter-{n_pairs}-{seed}", adapter_pairs=n_pairs, seed=seed)


WRITER_PARTS = {
    "first writer": Part("writer-first", ("first",), references=("first", "second")),
    "second writer": Part("writer-second", ("second",), references=("first", "second")),
    "first and second": Part("writer-both", ("first", "second"), references=("first",)),
    "first, scarce": Part("writer-first-scarce", ("first:scarce",), references=("first",)),
    "first, scarce, and second": Part("writer-both-scarce", ("first:scarce", "second"), references=("first",)),
}
STYLED_PART = Part("styled-text", ("styled",), references=("styled",))

# In the order in which they are made, so that a run that is stopped early has the most important ones.
EXPERIMENTS: dict[int, tuple[Part, ...]] = {
    1: tuple(part for seed in SEEDS for part in (text_part(seed), audio_part(seed), no_noise_part(seed))),
    2: (text_part(0), *(swept_part(variance) for variance in SWEPT_VARIANCES)),
    5: (text_part(0), STYLED_PART, WRITER_PARTS["first writer"], WRITER_PARTS["second writer"]),
    4: tuple(WRITER_PARTS.values()),
    3: tuple(adapter_part(n_pairs, seed) for seed in SEEDS for n_pairs in ADAPTER_PAIRS),
}


def parts_of(experiments: list[int]) -> list[Part]:
    """Return the parts of experiments, each once, in the order in which they are made."""
    wanted = [part for number, parts in EXPERIMENTS.items() if number in experiments for part in parts]
    return list(dict.fromkeys(wanted))
