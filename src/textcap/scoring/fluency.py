"""The two metrics that use neural models: Sentence-BERT similarity and the fluency error detector of FENSE.

Each model is loaded from disk, once for all systems, and is never downloaded.
"""

import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np

from textcap.errors import DependencyError, InputError
from textcap.files import sha256_of_file
from textcap.scoring.aac import check_installed, load_fer, load_sbert_sim
from textcap.scoring.counts import Numbers
from textcap.weights.cache import search_folders

_SENTENCE_MODEL = "sentence-transformers/paraphrase-TinyBERT-L6-v2"
_DETECTOR = "echecker_clotho_audiocaps_base.ckpt"
_DETECTOR_URL = f"https://github.com/blmoistawinde/fense/releases/download/V0.1/{_DETECTOR}"
_DETECTOR_SHA256 = "1a719f090af70614bbdb9f9437530b7e133c48cfa4a58d964de0d47fc974a2fa"
# What loaders raise for a broken or unexpected model file.
_LOAD_ERRORS = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError)


def sentence_similarities(systems: list[list[str]], references: list[list[str]], device: str) -> list[Numbers]:
    """Return the mean cosine similarity of each prediction to its references, `[N]` for each system.

    Args:
        systems: For each system, a tokenised caption of each clip `[N]`.
        references: Tokenised references of each clip.
        device: Where the model runs, as torch names devices.

    Raises:
        DependencyError: aac-metrics is not installed, or the model is not on disk or cannot be loaded.
    """
    check_installed()  # before the model is looked for: its download would be in vain
    folder = _find_model(_SENTENCE_MODEL)
    module = load_sbert_sim()

    def load() -> Any:
        return module.SentenceTransformer(str(folder), device=device, local_files_only=True)

    model = _load(f"the sentence model in {folder}", load)
    outcomes = [module.sbert_sim(one, references, sbert_model=model, device=device)[1] for one in systems]
    return [np.asarray(clips["sbert_sim"], dtype=np.float64) for clips in outcomes]


def fluency_errors(systems: list[list[str]], device: str) -> list[Numbers]:
    """Return 1 for each prediction in which the detector finds a fluency error, else 0: `[N]` for each system.

    Args:
        systems: For each system, a tokenised caption of each clip `[N]`.
        device: Where the model runs, as torch names devices.

    Raises:
        DependencyError: aac-metrics is not installed, or the model is not on disk or cannot be loaded.
    """
    check_installed()
    path = _find_detector()
    module = load_fer()

    def load() -> tuple[Any, Any]:
        import torch

        states = torch.load(path, map_location="cpu", weights_only=True)
        folder = str(_find_model(states["model_type"]))
        verbosity = module.tfmers_logging.get_verbosity()
        module.tfmers_logging.set_verbosity_error()
        try:
            model = module.BERTFlatClassifier(model_type=folder, num_classes=states["num_classes"])
            tokenizer = module.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        finally:
            module.tfmers_logging.set_verbosity(verbosity)
        weights = states["state_dict"]
        weights.pop("encoder.embeddings.position_ids", None)  # a buffer that transformers no longer has
        model.load_state_dict(weights)
        return model.eval().to(device), tokenizer

    model, tokenizer = _load(f"the fluency error detector {path}", load)
    outcomes = [module.fer(one, echecker=model, echecker_tokenizer=tokenizer, device=device)[1] for one in systems]
    return [np.asarray(clips["fer"], dtype=np.float64) for clips in outcomes]


def model_versions(names: Collection[str]) -> dict[str, str]:
    """Return the versions of the models behind these metrics: a commit for hub models, a SHA-256 for the detector.

    Args:
        names: Metrics that were computed.
    """
    versions = {}
    if "sbert_sim" in names:
        versions[_SENTENCE_MODEL] = _find_model(
            _SENTENCE_MODEL
        ).name  # the cache names a snapshot's folder after its commit
    if "fer" in names:
        versions[_DETECTOR] = _DETECTOR_SHA256
    return versions


def _load(what: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except _LOAD_ERRORS as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise DependencyError(f"{what} cannot be loaded: {reason[0]}", hint="download it again") from error


def _find_model(name: str) -> Path:
    """Return the folder of a Hugging Face hub model in the first cache that has it."""
    from huggingface_hub import snapshot_download

    # The hub's first models had no owner in their names; they were given one later.
    for repo_id in dict.fromkeys([name, name if "/" in name else f"google-bert/{name}"]):
        for cache in search_folders():
            try:
                return Path(snapshot_download(repo_id, cache_dir=cache, local_files_only=True))
            except (OSError, ValueError):
                continue
    raise DependencyError(f"the model {name} is not on disk", hint=f"run hf download {name}")


def _find_detector() -> Path:
    import torch

    folder = os.environ.get("FENSE_DATA") or os.path.join(torch.hub.get_dir(), "fense_data")
    path = Path(os.path.expanduser(folder)) / _DETECTOR
    hint = f"download {_DETECTOR_URL} to {path}"
    if not path.is_file():
        raise DependencyError(f"the fluency error detector is not on disk: {path} does not exist", hint=hint)
    try:
        is_right = sha256_of_file(path) == _DETECTOR_SHA256
    except InputError as error:
        raise DependencyError(error.message, hint=hint) from error
    if not is_right:
        raise DependencyError(f"{path} is not the fluency error detector, or is incomplete", hint=hint)
    return path
