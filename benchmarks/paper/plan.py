"""Define the sizes of the run and the parts of each experiment.

A part is one mapper to train, and its captions of the test clips. Some parts appear in the tables of several
experiments.
"""

from dataclasses import dataclass, replace

# Shares no clip or caption with the demo, the training of the embedded models or any other benchmark.
WORLD_SEED = 5005
# The noise is calibrated on pairs of another world, so that no test clip takes part in it.
CALIBRATION_SEED = 5006
N_SEEN, N_UNSEEN, N_REFERENCES = 330, 170, 5
N_CALIBRATION_PAIRS = 30
DIAL_COSINE, HALF = 0.4, 0.5  # of the gap with which the experiments are repeated, and its share of the shift

SEEDS = (0, 1, 2)
TESTED_STYLES = ("humorous", "question", "address")  # of the five that the language model has read; chosen beforehand
CALIBRATED, DEFAULT = "calibrated", "default"
SWEPT_VARIANCES = (0.0, 0.0005, 0.002, 0.005, 0.02, 0.05, 0.1, 0.3, 1.0)
ADAPTER_PAIRS = (100, 1000, 10000)


_WRITER_ROWS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {  # sources and writers of references by label
    "first writer": (("first",), ("first", "second")),
    "second writer": (("second",), ("first", "second")),
    "first and second": (("first", "second"), ("first",)),
    "first, scarce": (("first:scarce",), ("first",)),
    "first, scarce, and second": (("first:scarce", "second"), ("first",)),
}


@dataclass(frozen=True)
class Plan:
    """The sizes of the run.

    Attributes:
        backbone: Name or folder of the backbone.
        n_captions: Captions of each writer, and number of training clips. A multiple of the batch size, so that all
            rows take the same number of steps.
        n_scarce: Captions in the rows of experiment 4 in which human text is scarce; divides `n_captions`.
        n_steps: Training steps of every mapper.
        batch_size: Captions in a training step.
        learning_rate: Adam's learning rate.
        shift: None for the gap of the backbone; else the gap is that of the dial, and this the share of its shift.
    """

    backbone: str = "tiny"
    n_captions: int = 10240
    n_scarce: int = 1024
    n_steps: int = 320
    batch_size: int = 128
    learning_rate: float = 2e-3
    shift: float | None = None


@dataclass(frozen=True)
class Part:
    """One mapper to train, and how to score its captions.

    Attributes:
        name: Unique name; the part's files are named after it.
        sources: Training data: the names of writers, or "audio" for audio embeddings with plain captions. With
            ":scarce", only the first `n_scarce` captions, repeated to the same number of draws as the others.
        noise_variance: A variance; `CALIBRATED` for the value from the 30 pairs, with an adapter for the gap that
            remains after it; or `DEFAULT` for the default bridge: both sides centred, and the backbone's noise.
        adapter_pairs: Number of pairs that the linear adapter is fitted on; 0 for no adapter.
        seed: Seed of the training and of the adapter.
        references: The writers of the references that its captions are scored against.
        all_metrics: Whether to compute SPICE and SPIDEr too, which takes long.
    """

    name: str
    sources: tuple[str, ...] = ("plain",)
    noise_variance: float | str = CALIBRATED
    adapter_pairs: int = 0
    seed: int = 0
    references: tuple[str, ...] = ("plain",)
    all_metrics: bool = True


def default_part(seed: int) -> Part:
    """Return the part with text and the default bridge; it is also scored on styled references."""
    return Part(f"text-default-{seed}", noise_variance=DEFAULT, seed=seed, references=("plain", *TESTED_STYLES))


def text_part(seed: int) -> Part:
    """Return the part of the paper's method: text with calibrated noise."""
    return Part(f"text-noise-{seed}", seed=seed)


def audio_part(seed: int) -> Part:
    """Return the part that is trained on audio embeddings."""
    return Part(f"audio-{seed}", ("audio",), 0.0, seed=seed)


def swept_part(variance: float) -> Part:
    """Return the part with text and a given noise variance, for one seed."""
    return Part(f"variance-{variance:g}", noise_variance=variance, all_metrics=variance == 0)


def no_noise_part(seed: int) -> Part:
    """Return the part with text and no noise; for seed 0 it is the one of the sweep."""
    return replace(swept_part(0.0), name=f"no-noise-{seed}", seed=seed) if seed else swept_part(0.0)


def adapter_part(n_pairs: int, seed: int) -> Part:
    """Return the part with text and an adapter, with the noise that the rule gives after the adapter."""
    return Part(f"adapter-{n_pairs}-{seed}", adapter_pairs=n_pairs, seed=seed)


def styled_part(style: str, seed: int) -> Part:
    """Return the part with text in a style and the default bridge, scored on references in the style."""
    return Part(f"styled-{style}-{seed}", (style,), DEFAULT, seed=seed, references=(style,))


def writer_parts(seed: int) -> dict[str, Part]:
    """Return the parts of experiment 4 by the label of their row, all with the default bridge."""
    return {
        label: Part(f"writer-{'-'.join(sources).replace(':', '-')}-{seed}", sources, DEFAULT, 0, seed, references)
        for label, (sources, references) in _WRITER_ROWS.items()
    }


# In the order in which they are run, so that an interrupted run has the most important ones.
EXPERIMENTS: dict[int, tuple[Part, ...]] = {
    1: tuple(make(seed) for seed in SEEDS for make in (default_part, audio_part, text_part, no_noise_part)),
    2: (text_part(0), *(swept_part(variance) for variance in SWEPT_VARIANCES)),
    5: tuple(part for seed in SEEDS for part in (default_part(seed), *(styled_part(s, seed) for s in TESTED_STYLES))),
    4: tuple(part for seed in SEEDS for part in writer_parts(seed).values()),
    3: tuple(adapter_part(n_pairs, seed) for seed in SEEDS for n_pairs in ADAPTER_PAIRS),
}


def parts_of(experiments: list[int], n_seeds: int = len(SEEDS)) -> list[Part]:
    """Return the parts of experiments with the first seeds, each once, in the order in which they are run."""
    wanted = [part for number, parts in EXPERIMENTS.items() if number in experiments for part in parts]
    wanted = [part for part in wanted if part.seed in SEEDS[:n_seeds]]
    return list(dict.fromkeys(wanted))
