"""The metrics by name, what each is made of, and the groups that people ask for.

Knows no numbers. Names are those of aac-metrics.
"""

import difflib
from collections.abc import Sequence

from textcap.errors import InputError

BLEU = ("bleu_1", "bleu_2", "bleu_3", "bleu_4")
VOCAB = (
    "vocab.cands",
    "vocab.mrefs_full",
    "vocab.ratio_full",
    "vocab.mrefs_avg",
    "vocab.ratio_avg",
    "vocab.precision",
    "vocab.recall",
    "vocab.f1",
    "vocab.jaccard",
)
# In the order of tables. "vocab" stands for all of VOCAB.
METRICS = (
    *BLEU,
    "meteor",
    "rouge_l",
    "cider_d",
    "spice",
    "spider",
    "spider_fl",
    "sbert_sim",
    "fer",
    "fense",
    "vocab",
)
TITLES = {
    **{name: f"BLEU-{name[-1]}" for name in BLEU},
    "meteor": "METEOR",
    "rouge_l": "ROUGE-L",
    "cider_d": "CIDEr-D",
    "spice": "SPICE",
    "spider": "SPIDEr",
    "spider_fl": "SPIDEr-FL",
    "sbert_sim": "SBERT",
    "fer": "fluency errors",
    "fense": "FENSE",
    "vocab": "vocabulary",
    "vocab.cands": "words in predictions",
    "vocab.mrefs_full": "words in references",
    "vocab.ratio_full": "predictions / references",
    "vocab.mrefs_avg": "words in one reference each",
    "vocab.ratio_avg": "predictions / one reference each",
    "vocab.precision": "vocabulary precision",
    "vocab.recall": "vocabulary recall",
    "vocab.f1": "vocabulary F1",
    "vocab.jaccard": "vocabulary overlap",
}
GROUPS = {
    "default": (*BLEU, "meteor", "rouge_l", "cider_d", "spice", "spider"),
    "bleu": BLEU,
    "dcase": ("meteor", "cider_d", "spice", "spider", "spider_fl", "sbert_sim", "fer", "fense", "vocab"),  # of 2024
    "all": METRICS,
}
# What is computed from other metrics, clip by clip.
PARTS = {
    "spider": ("cider_d", "spice"),
    "spider_fl": ("spider", "fer"),
    "fense": ("sbert_sim", "fer"),
}


def parse_metrics(text: str) -> list[str]:
    """Return the metrics that a list with commas names, each once, in the order of tables.

    Raises:
        InputError: A name is unknown, or there is none.
    """
    wanted: set[str] = set()
    for word in text.split(","):
        name = word.strip().lower().replace("-", "_")
        if not name:
            continue
        if name not in METRICS and name not in GROUPS:
            raise _unknown(name)
        wanted |= set(GROUPS.get(name, (name,)))
    if not wanted:
        raise InputError("no metric is named", hint=f"name some of {', '.join((*METRICS, *GROUPS))}")
    return [name for name in METRICS if name in wanted]


def with_parts(names: Sequence[str]) -> list[str]:
    """Return the metrics to compute for some, with those that they are made of, in the order of tables."""
    wanted = set(names)
    for _ in PARTS:  # SPIDEr-FL is made of SPIDEr
        wanted |= {part for name in wanted for part in PARTS.get(name, ())}
    return [name for name in METRICS if name in wanted]


def _unknown(name: str) -> InputError:
    near = difflib.get_close_matches(name, [*METRICS, *GROUPS], n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join((*METRICS, *GROUPS))}"
    return InputError(f"no metric is called {name!r}", hint=hint)
