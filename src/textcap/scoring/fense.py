"""Compute the two metrics that use neural models: Sentence-BERT similarity, and the fluency errors of FENSE.

`textcap fetch metrics --fense` brings the models; nothing is fetched while scoring. They are used only if they are
complete and unchanged. This module is quick to import, and `fense_models`, which runs the models, is not.
"""

import importlib.util
from collections.abc import Collection
from pathlib import Path

import numpy as np

from textcap.errors import DependencyError, InputError, TextcapError
from textcap.scoring.counts import Numbers
from textcap.weights import folder_hash
from textcap.weights.cache import known_sha256
from textcap.weights.catalogue import BERT, FENSE, METRIC_MODELS, TINYBERT, find_folder

_MODELS_OF = {"sbert_sim": (TINYBERT,), "fer": (FENSE, BERT)}
_THRESHOLD = 0.9  # a probability above it is an error (Zhou et al. 2022)


def sentence_similarities(
    systems: list[list[str]], references: list[list[str]], device: str, folder: Path | None = None
) -> list[Numbers]:
    """Return the mean cosine similarity of each prediction to its references, `[N]` for each system.

    Args:
        systems: For each system, a tokenised caption of each clip `[N]`.
        references: Tokenised references of each clip.
        device: Where the model runs, as torch names devices.
        folder: The user's folder of models; by default those that were fetched are used.

    Raises:
        DependencyError: sentence-transformers is not installed, or the model is not on disk or cannot be used.
        DeviceError: The device has too little memory.
    """
    if not _is_installed():
        message = "sentence-transformers, which computes Sentence-BERT similarity, is not installed"
        raise DependencyError(message, hint="pip install 'textcap[fense]'")
    model = _locate(TINYBERT, folder)[0].parent
    from textcap.scoring.fense_models import embed

    captions = [caption for several in (*systems, *references) for caption in several]
    rows = {caption: row for row, caption in enumerate(dict.fromkeys(captions))}
    embeddings = embed(model, list(rows), device)

    def similarity(caption: str, several: list[str]) -> float:
        return float((embeddings[[rows[one] for one in several]] @ embeddings[rows[caption]]).mean())

    return [np.asarray([similarity(*pair) for pair in zip(one, references, strict=True)]) for one in systems]


def fluency_errors(systems: list[list[str]], device: str, folder: Path | None = None) -> list[Numbers]:
    """Return 1 for each prediction in which the detector finds a fluency error, else 0: `[N]` for each system.

    Args:
        systems: For each system, a tokenised caption of each clip `[N]`.
        device: Where the model runs, as torch names devices.
        folder: The user's folder of models; by default those that were fetched are used.

    Raises:
        DependencyError: The models are not on disk, or cannot be used.
        DeviceError: The device has too little memory.
    """
    detector, encoder = _locate(FENSE, folder)[0], _locate(BERT, folder)[0].parent
    from textcap.scoring.fense_models import error_probabilities

    captions = list(dict.fromkeys(caption for one in systems for caption in one))
    is_error = error_probabilities(detector, encoder, captions, device) > _THRESHOLD
    flags = dict(zip(captions, is_error.astype(np.float64), strict=True))
    return [np.asarray([flags[caption] for caption in one]) for one in systems]


def model_versions(names: Collection[str], folder: Path | None = None) -> dict[str, str]:
    """Return the version of each model behind these metrics, by the name of its repository.

    Models from the hub have a commit, the detector its SHA-256, and the others of the user's folder a `folder_hash`.

    Args:
        names: Metrics that were computed.
        folder: The user's folder of models; by default those that were fetched.

    Raises:
        DependencyError: A model is not on disk.
    """
    versions = {}
    for name in (model for metric, models in _MODELS_OF.items() if metric in names for model in models):
        paths = _locate(name, folder)
        if len(paths) == 1:
            versions[name] = known_sha256(paths[0])
        else:  # the cache names the folder of a snapshot after its commit
            versions[name] = paths[0].parent.name if folder is None else folder_hash(paths)
    return versions


def is_available(folder: Path | None = None) -> bool:
    """Return whether FENSE can be computed: sentence-transformers and the models are there; neither is loaded."""
    try:
        return _is_installed() and all(_locate(name, folder) for name in METRIC_MODELS)
    except TextcapError:
        return False


def _is_installed() -> bool:
    return importlib.util.find_spec("sentence_transformers") is not None


def _locate(name: str, folder: Path | None) -> list[Path]:
    """Return the paths of the files of a model, in the order of `METRIC_MODELS`; the first lies at the top."""
    files = METRIC_MODELS[name]
    if folder is not None:
        paths = [folder / file.role for file in files]
        if missing := [path for path in paths if not path.is_file()]:
            message = f"the folder of FENSE's models is not complete: {missing[0]} does not exist"
            raise DependencyError(message, hint="run textcap fetch metrics --fense, and leave out --fense DIR")
        return paths
    hint = "run textcap fetch metrics --fense"
    try:
        found = find_folder(name)
    except InputError as error:
        raise DependencyError(error.message, hint=hint) from error
    if found is None:
        raise DependencyError(f"a model of FENSE is not on disk, or is damaged: {name}", hint=hint)
    return [found / file.name for file in files]
