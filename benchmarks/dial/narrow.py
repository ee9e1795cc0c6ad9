"""The tiny backbone with the narrow modality gap that training gives by itself, from which the dial starts.

Its projections were fitted by the same build as the embedded ones, without a shift and without private parts.
"""

import json
import shutil
import tempfile
from pathlib import Path

from safetensors.torch import load_file, save_file

from textcap.models.backbone import EMBEDDED, Backbone

PROJECTIONS = Path(__file__).parent / "narrow.safetensors"


def narrow_backbone(folder: Path) -> Path:
    """Write a backbone folder with the narrow projections, unless it exists, and return it."""
    if not folder.exists():
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(Backbone.load(EMBEDDED).weight_paths["audio_encoder"].parent, partial)
        narrow = load_file(PROJECTIONS)
        for name in ("audio_encoder", "text_encoder"):
            tensors = load_file(partial / f"{name}.safetensors")
            tensors |= {key.removeprefix(f"{name}."): t for key, t in narrow.items() if key.startswith(f"{name}.")}
            save_file(tensors, partial / f"{name}.safetensors")
        config = json.loads((partial / "config.json").read_text(encoding="utf-8"))
        config |= {"mean_sound": [], "mean_text": []}
        (partial / "config.json").write_text(json.dumps(config), encoding="utf-8")
        partial.replace(folder)
    return folder


def weights_hash() -> str:
    """Return what changes with the embedded weights or the narrow projections.

    Not read from a folder that `narrow_backbone` wrote earlier, which may hold older weights.
    """
    with tempfile.TemporaryDirectory() as folder:
        narrow = Backbone.load(str(narrow_backbone(Path(folder) / "backbone")))
        return f"{Backbone.load(EMBEDDED).content_hash}, {narrow.content_hash}"
