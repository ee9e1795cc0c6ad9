"""Names, titles, groups and dependencies of the metrics. The names are those of aac-metrics."""

import difflib
from collections.abc import Sequence

from textcap.errors import InputError

# In the order in which tables list them. "vocab" stands for all metrics whose names begin with it.
TITLES = {
    **{f"bleu_{n}": f"BLEU-{n}" for n in range(1, 5)},
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
BLEU = tuple(name for name in TITLES if name.startswith("bleu_"))
VOCAB = tuple(name for name in TITLES if name.startswith("vocab."))
METRICS = tuple(name for name in TITLES if name not in VOCAB)
GROUPS = {
    "default": (*BLEU, "meteor", "rouge_l", "cider_d", "spice", "spider"),
    "bleu": BLEU,
    "dcase": ("meteor", "cider_d", "spice", "spider", "spider_fl", "sbert_sim", "fer", "fense", "vocab"),  # DCASE 2024
    "all": METRICS,
}
# Metrics that are computed from two others, clip by clip.
PARTS = {"spider": ("cider_d", "spice"), "spider_fl": ("spider", "fer"), "fense": ("sbert_sim", "fer")}
LOWER_IS_BETTER = frozenset({"fer"})


def parse_metrics(text: str) -> list[str]:
    """Return the metrics in a comma-separated list of metrics and groups, each once, in the order of tables.

    Raises:
        InputError: A name is unknown, or the list is empty.
    """
    wanted: set[str] = set()
    known = (*METRICS, *GROUPS)
    some = f"use some of {', '.join(known)}"
    for word in text.split(","):
        name = word.strip().lower().replace("-", "_")
        if not name:
            continue
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            raise InputError(f"unknown metric {name!r}", hint=f"did you mean {near[0]}?" if near else some)
        wanted |= set(GROUPS.get(name, (name,)))
    if not wanted:
        raise InputError("no metric is given", hint=some)
    return [name for name in METRICS if name in wanted]


def with_parts(names: Sequence[str]) -> list[str]:
    """Return these metrics, those that "vocab" stands for, and those from which any is computed, in table order."""
    wanted = set(names)
    for _ in PARTS:  # repeated because SPIDEr-FL is computed from SPIDEr, which is itself combined
        wanted |= {part for name in wanted for part in PARTS.get(name, ())}
    return [one for name in METRICS if name in wanted for one in (VOCAB if name == "vocab" else (name,))]
