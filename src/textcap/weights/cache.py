"""Which folders weights may lie in, and which of them textcap writes to.

Knows no files. The environment is read at each call, unlike Hugging Face's own constants, which are what it
was at import.
"""

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """Return the folder that weights are fetched into, laid out as Hugging Face lays out its own.

    Who sets HF_HUB_CACHE or HF_HOME wants weights there, where msclap and transformers then find them too.
    """
    named = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME")
    if not os.environ.get("TEXTCAP_CACHE") and any(os.environ.get(name) for name in named):
        return _hugging_face_folder()
    return own_cache_folder() / "hub"


def own_cache_folder() -> Path:
    """Return the folder for what textcap computes and can compute again; it is never Hugging Face's."""
    named = _path_in("TEXTCAP_CACHE")
    return named if named is not None else platformdirs.user_cache_path("textcap", appauthor=False)


def search_folders() -> list[Path]:
    """Return where weights are looked for: where they are fetched to, then where Hugging Face puts them."""
    return list(dict.fromkeys([cache_folder(), _hugging_face_folder()]))


def _hugging_face_folder() -> Path:
    folder = _path_in("HF_HUB_CACHE") or _path_in("HUGGINGFACE_HUB_CACHE")
    if folder is not None:
        return folder
    above = _path_in("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return (_path_in("HF_HOME") or above / "huggingface") / "hub"


def _path_in(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return Path(os.path.expandvars(value)).expanduser() if value else None
