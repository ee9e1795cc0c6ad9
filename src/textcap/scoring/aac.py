"""The metrics that aac-metrics computes in Python, each loaded on its own.

This is the only module that imports aac-metrics. Importing that package the usual way loads every metric at once, and
with them msclap, torchaudio and sentence-transformers: this takes seconds, and if one of the three fails, even BLEU is
lost. So the modules are imported without running the package's `__init__` files.
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

Outcome = tuple[dict[str, float], dict[str, Numbers]]  # by metric: the corpus score, and the scores of the clips `[N]`

_PACKAGES = ("aac_metrics", "aac_metrics.functional")
_NO_WORD = "\x00"  # never occurs in a tokenised caption
_lock = threading.Lock()  # held while sys.modules contains stand-ins for the packages


def check_installed(what: str = "this metric") -> None:
    """Make sure that aac-metrics is installed, without importing it.

    Args:
        what: What aac-metrics computes, as the error message words it.

    Raises:
        DependencyError: It is not installed.
    """
    with _lock:
        if "aac_metrics" not in sys.modules:
            _find_folder(what)


def why_missing() -> str | None:
    """Return in one line that aac-metrics is not installed and what to do, or None if it is."""
    try:
        check_installed("most metrics")
    except DependencyError as error:
        return str(error)
    return None


def aac_version() -> str:
    """Return the installed version of aac-metrics.

    Raises:
        DependencyError: It is not installed.
    """
    try:
        return importlib.metadata.version("aac-metrics")
    except importlib.metadata.PackageNotFoundError as error:
        raise _not_installed() from error


def compute_bleu(predictions: list[str], references: list[list[str]]) -> Outcome:
    """Return `bleu_1` to `bleu_4` of tokenised captions, all from one count of n-grams."""
    corpus, clips = _load("bleu").bleu(predictions, references, n=4, return_1_to_n=True)
    values, per_clip = corpus["bleu_1_to_4"], clips["bleu_1_to_4"]
    names = [f"bleu_{n}" for n in range(1, 5)]
    return (
        {name: float(values[i]) for i, name in enumerate(names)},
        {name: _array(per_clip[i]) for i, name in enumerate(names)},
    )


def compute_rouge_l(predictions: list[str], references: list[list[str]]) -> Outcome:
    """Return `rouge_l` of tokenised captions.

    References without a word are skipped; a clip that has no other reference scores 0.
    """
    with_words = [[one for one in several if one.split()] or [_NO_WORD] for several in references]
    return _convert(_load("rouge_l").rouge_l(predictions, with_words))


def compute_cider_d(predictions: list[str], references: list[list[str]]) -> Outcome:
    """Return `cider_d` of tokenised captions, with document frequencies from these references."""
    return _convert(_load("cider_d").cider_d(predictions, references))


def compute_vocab(predictions: list[str], references: list[list[str]]) -> Outcome:
    """Return `vocab.cands` and, if predictions and references share a word, the metrics that compare their words."""
    vocab = _load("vocab").vocab
    predicted_words = {word for prediction in predictions for word in prediction.split()}
    reference_words = {word for several in references for one in several for word in one.split()}
    return _convert(vocab(predictions, references if predicted_words & reference_words else None))


def load_fer() -> Any:
    """Return aac-metrics' module of the fluency error detector.

    Raises:
        DependencyError: aac-metrics, or a package that this metric needs, is not installed.
    """
    return _load("fer")


def load_sbert_sim() -> Any:
    """Return aac-metrics' module of Sentence-BERT similarity.

    Raises:
        DependencyError: aac-metrics, or a package that this metric needs, is not installed.
    """
    return _load("sbert_sim")


def _load(name: str) -> Any:
    with _lock, _packages_without_init(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # raised by the packages that these modules import
        try:
            return importlib.import_module(f"aac_metrics.functional.{name}")
        except ImportError as error:
            raise DependencyError(f"aac-metrics cannot be loaded: {error}", hint=_install_hint()) from error


@contextmanager
def _packages_without_init() -> Iterator[None]:
    """Let modules of aac-metrics be imported as if its `__init__` files were empty, and restore `sys.modules` after."""
    added = []
    folder = None
    for name in _PACKAGES:
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


def _find_folder(what: str = "this metric") -> Path:
    spec = importlib.util.find_spec("aac_metrics")
    if spec is None or spec.origin is None:
        raise _not_installed(what)
    return Path(spec.origin).parent


def _not_installed(what: str = "this metric") -> DependencyError:
    return DependencyError(f"aac-metrics, which computes {what}, is not installed", hint=_install_hint())


def _install_hint() -> str:
    if sys.version_info >= (3, 13):
        return "it cannot be installed on Python 3.13 and later: use Python 3.12"
    return "pip install 'textcap[reference]'"


def _convert(outcome: Any) -> Outcome:
    corpus, clips = outcome
    return {name: float(value) for name, value in corpus.items()}, {name: _array(one) for name, one in clips.items()}


def _array(values: Any) -> Numbers:
    return np.asarray(values, dtype=np.float64)
