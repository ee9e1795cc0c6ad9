"""The metrics that aac-metrics computes in Python, loaded one by one.

The only module that imports aac-metrics. Its front imports every metric at once, and with them msclap, torchaudio
and sentence-transformers: seconds, and three packages of which one that fails takes BLEU with it. So its folders
are made known without running their fronts. Knows tokenised captions. Returns numbers.
"""

import importlib
import importlib.metadata
import importlib.util
import sys
import threading
import types
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from textcap.errors import DependencyError
from textcap.scoring.counts import Numbers

Outcome = tuple[dict[str, float], dict[str, Numbers]]  # of the corpus, and per clip

_FOLDERS = ("aac_metrics", "aac_metrics.functional")
_NO_WORD = "\x00"  # no tokenised caption holds it
_lock = threading.Lock()


def aac_version() -> str:
    """Return the installed version.

    Raises:
        DependencyError: It is not installed.
    """
    try:
        return importlib.metadata.version("aac-metrics")
    except importlib.metadata.PackageNotFoundError as error:
        raise _absent() from error


def compute_bleu(predictions: list[str], references: list[list[str]]) -> Outcome:
    """Return `bleu_1` to `bleu_4`, all from one count."""
    corpus, clips = _load("bleu").bleu(predictions, references, n=4, return_1_to_n=True)
    values, per_clip = corpus["bleu_1_to_4"], clips["bleu_1_to_4"]
    names = [f"bleu_{n}" for n in range(1, 5)]
    return (
        {name: float(values[i]) for i, name in enumerate(names)},
        {name: _array(per_clip[i]) for i, name in enumerate(names)},
    )


def compute_rouge_l(predictions: list[str], references: list[list[str]]) -> Outcome:
    """Return `rouge_l`. A reference without a word is left out; where a clip has no other, it scores 0."""
    spoken = [[one for one in several if one.split()] or [_NO_WORD] for several in references]
    return _plain(_load("rouge_l").rouge_l(predictions, spoken))


def compute_cider_d(predictions: list[str], references: list[list[str]]) -> Outcome:
    """Return `cider_d`; document frequencies come from the references given."""
    return _plain(_load("cider_d").cider_d(predictions, references))


def compute_vocab(predictions: list[str], references: list[list[str]]) -> Outcome:
    """Return `vocab.cands` and, where predictions and references share a word, its relations to theirs."""
    vocab = _load("vocab").vocab
    said = {word for prediction in predictions for word in prediction.split()}
    known = {word for several in references for one in several for word in one.split()}
    return _plain(vocab(predictions, references if said & known else None))


def load_fer() -> Any:
    """Return the module of the fluency error detector.

    Raises:
        DependencyError: aac-metrics, or a package that this metric needs, is not installed.
    """
    return _load("fer")


def load_sbert_sim() -> Any:
    """Return the module of Sentence-BERT similarity.

    Raises:
        DependencyError: aac-metrics, or a package that this metric needs, is not installed.
    """
    return _load("sbert_sim")


def _load(name: str) -> Any:
    with _lock, _folders_without_fronts(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of packages that they import
        try:
            return importlib.import_module(f"aac_metrics.functional.{name}")
        except ImportError as error:
            raise DependencyError(f"aac-metrics cannot be loaded: {error}", hint="install textcap again") from error


@contextmanager
def _folders_without_fronts() -> Iterator[None]:
    """Let modules of aac-metrics be imported as if its `__init__` files were empty; leave it as it was found."""
    added = []
    folder = None
    for name in _FOLDERS:
        if name in sys.modules:
            continue
        if folder is None:
            folder = _find_folder()
        package = types.ModuleType(name)
        package.__path__ = [str(folder.joinpath(*name.split(".")[1:]))]
        package.__spec__ = importlib.util.spec_from_loader(name, None, is_package=True)
        sys.modules[name] = package
        added.append(name)
    try:
        yield
    finally:
        for name in added:
            del sys.modules[name]


def _find_folder() -> Path:
    spec = importlib.util.find_spec("aac_metrics")
    if spec is None or spec.origin is None:
        raise _absent()
    return Path(spec.origin).parent


def _absent() -> DependencyError:
    hint = "install textcap again"
    if sys.version_info >= (3, 13):
        hint = "it cannot be installed on Python 3.13 and later: use Python 3.12"
    return DependencyError("aac-metrics, which computes this, is not installed", hint=hint)


def _plain(outcome: Any) -> Outcome:
    corpus, clips = outcome
    return {name: float(value) for name, value in corpus.items()}, {name: _array(one) for name, one in clips.items()}


def _array(values: Any) -> Numbers:
    return np.asarray(values, dtype=np.float64)
