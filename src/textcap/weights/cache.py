"""Find the cache folders: those that may contain weights, and the one that textcap writes to.

The environment is read at each call; Hugging Face's own constants keep the values it had at import.
"""

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """Return the folder that weights are downloaded to, in the layout of Hugging Face's cache.

    If HF_HUB_CACHE or HF_HOME is set and TEXTCAP_CACHE is not, it is the folder that they name, where msclap and
    transformers find the weights, too.
    """
    named = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME")
    if not os.environ.get("TEXTCAP_CACHE") and any(os.environ.get(name) for name in named):
        return _hugging_face_folder()
    return own_cache_folder() / "hub"


def own_cache_folder() -> Path:
    """Return the folder for results that textcap can compute again; it is never Hugging Face's cache."""
    named = _path_in("TEXTCAP_CACHE")
    return named if named is not None else platformdirs.user_cache_path("textcap", appauthor=False)


def search_folders() -> list[Path]:
    """Return the folders to search for weights: the one they are downloaded to, then Hugging Face's cache."""
    return list(dict.fromkeys([cache_folder(), _hugging_face_folder()]))


def _hugging_face_folder() -> Path:
    folder = _path_in("HF_HUB_CACHE") or _path_in("HUGGINGFACE_HUB_CACHE")
    if folder is not None:
        return folder
    user_cache = _path_in("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return (_path_in("HF_HOME") or user_cache / "huggingface") / "hub"


def _path_in(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return Path(os.path.expandvars(value)).expanduser() if value else None
