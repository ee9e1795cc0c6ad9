"""Describe what textcap runs on: versions, devices, formats, caches and Java, as plain values for bug reports."""

import json
import os
import platform
import re
from typing import Any, cast

import av
import soundfile
import torch

from textcap.device import computes_bfloat16, resolve_device
from textcap.errors import DeviceError, TextcapError
from textcap.files import sizes_in
from textcap.model_folder import PACKAGES, package_versions
from textcap.scoring.jars import metrics_folder
from textcap.scoring.java import find_java
from textcap.store import own_cache_folder, store_folder
from textcap.weights.cache import search_folders
from textcap.weights.catalogue import GPT2, MSCLAP

_REPOS = ["models--" + repo.replace("/", "--") for repo in (MSCLAP, GPT2, "gpt2")]
_FORMATS = {
    "libsndfile": "wav, aiff, au, caf and nist with plain samples, and what FFmpeg does not know",
    "FFmpeg": "all others, such as mp3, flac, ogg, m4a, wma, amr, mkv and mp4",
}


def inspect_environment() -> dict[str, dict[str, Any]]:
    """Return versions, devices, formats, caches and Java, as values for JSON.

    Paths are shown with "~" for the user's home folder, and with "USER" for the user's name elsewhere. Nothing else of
    the environment is in it.
    """
    packages = package_versions((*PACKAGES, "soundfile", "soxr", "av", "fsspec"))
    decoders = {"libsndfile": str(soundfile.__libsndfile_version__)}
    decoders |= {name: ".".join(map(str, parts)) for name, parts in av.library_versions.items()}
    devices = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    devices += ["mps"] * torch.backends.mps.is_available()
    folders = [own_cache_folder(), store_folder(), metrics_folder()]
    folders += [folder / repo for folder in search_folders() for repo in _REPOS]
    values = {
        "versions": {**packages, **decoders, "system": platform.platform()},
        "devices": {name: _device(name) for name in devices},
        "formats": _FORMATS,
        "caches": {
            str(one): {"size_bytes": sum(sizes_in(one.resolve()))} for one in dict.fromkeys(folders) if one.is_dir()
        },
        "java": _java(),
    }
    home = json.dumps(os.path.expanduser("~").rstrip("/\\"))[1:-1]
    user = re.split(r"[/\\]+", home)[-1]
    private = rf'{re.escape(home)}(?=[/\\"])|(?<=[/\\]){re.escape(user)}(?=[/\\"])' if user else "(?!)"
    text = re.sub(private, lambda match: "~" if match[0] == home else "USER", json.dumps(values))
    return cast(dict[str, dict[str, Any]], json.loads(text))


def _device(name: str) -> dict[str, Any]:
    """Return what a device is and what models are trained in on it, or why it does not work."""
    try:
        device = resolve_device(name)
    except DeviceError as error:
        return {"problem": str(error)}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        training = "bfloat16" if computes_bfloat16(device) else "float32"
        return {"name": properties.name, "memory_bytes": properties.total_memory, "training": training}
    facts: dict[str, Any] = {"training": "float32"}
    if device.type == "cpu":
        facts["n_threads"] = torch.get_num_threads()
        if hasattr(os, "sysconf"):
            facts["memory_bytes"] = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return facts


def _java() -> dict[str, Any]:
    try:
        java = find_java()
        return {"path": java.path, "where": java.where, "version": java.version}
    except TextcapError as error:
        return {"problem": str(error)}
