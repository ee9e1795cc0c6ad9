"""Audio captioning trained on text alone.

    from textcap import Captioner, train

    train("captions.txt", "my-model")
    for result in Captioner.load("my-model").caption(["a.wav", "b.wav"]):
        print(result.path, result.caption)

Names are imported when they are first used, so `import textcap` does not load torch.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from textcap.captioner import Captioner as Captioner
    from textcap.config import BridgeConfig as BridgeConfig
    from textcap.config import DecodingConfig as DecodingConfig
    from textcap.config import MapperConfig as MapperConfig
    from textcap.config import TrainingConfig as TrainingConfig
    from textcap.data.captions import load_captions as load_captions
    from textcap.data.pairs import read_pairs as read_pairs
    from textcap.errors import TextcapError as TextcapError
    from textcap.models.backbone import Backbone as Backbone
    from textcap.results import CaptionResult as CaptionResult
    from textcap.scoring import score_files as score_files
    from textcap.training import train as train

_MODULES = {
    "Backbone": "models.backbone",
    "BridgeConfig": "config",
    "CaptionResult": "results",
    "Captioner": "captioner",
    "DecodingConfig": "config",
    "MapperConfig": "config",
    "TextcapError": "errors",
    "TrainingConfig": "config",
    "load_captions": "data.captions",
    "read_pairs": "data.pairs",
    "score_files": "scoring",
    "train": "training",
}

__all__ = list(_MODULES)


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("textcap")
    if name not in _MODULES:
        raise AttributeError(f"module 'textcap' has no attribute {name!r}")
    return getattr(importlib.import_module(f"textcap.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
