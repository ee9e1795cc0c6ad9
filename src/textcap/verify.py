"""Compare textcap's encoders and captioner with the installed msclap, on the same weights and the same sounds.

This checks the weight loaders on a user's own machine. It is the only module that imports msclap; captioning and
training never need it.
"""

import contextlib
import importlib
import importlib.machinery
import sys
import tempfile
import types
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import soundfile
import torch
import transformers
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Model, GPT2TokenizerFast

from textcap.audio.windows import read_windows
from textcap.captioner import Captioner
from textcap.config import DecodingConfig
from textcap.errors import DependencyError
from textcap.models.backbone import Backbone
from textcap.models.loading import read_checkpoint

EMBEDDING_TOLERANCE = 1e-5  # per coordinate of unit-length embeddings; another order of float32 sums causes 1e-6
CAPTION_TOKENS = 20  # few, because msclap decodes without a cache and takes a second per token and clip

_RATE_HZ = 44100
_CAPTIONS = (
    "A dog barks while rain falls",
    "Birds sing and the wind blows through the leaves of tall trees",
    "An engine starts, idles, and then revs several times before it is switched off",
    "Footsteps",
    "People talk in a large hall as dishes clatter in the background",
)


@dataclass(frozen=True)
class MsclapComparison:
    """The comparison of one result of textcap with that of msclap.

    Attributes:
        name: What was compared.
        difference: Largest absolute difference of a coordinate, or number of captions that differ.
        tolerance: The largest difference at which the results count as equal.
        detail: The captions that differ, if any.
    """

    name: str
    difference: float
    tolerance: float
    detail: str = ""

    @property
    def agrees(self) -> bool:
        """Whether the difference is within the tolerance; a NaN difference is not."""
        return self.difference <= self.tolerance


def compare_with_msclap(backbone: Backbone) -> Iterator[MsclapComparison]:
    """Yield comparisons of one backbone with msclap on the CPU, in float32.

    Args:
        backbone: "msclap-2023" to compare both encoders, or "clapcap" to compare captions; msclap reads the same files.

    Raises:
        DependencyError: msclap is not installed, or cannot be imported.
        CheckpointError: A weight file is missing, or contains more than tensors.
    """
    sounds = {"3 s of sound": _make_sound(3, seed=0), "7 s of sound": _make_sound(7, seed=1)}
    with tempfile.TemporaryDirectory() as folder, _reference(backbone) as reference:
        paths = []
        for name, signal in sounds.items():
            paths.append(Path(folder) / f"{name}.wav")
            soundfile.write(paths[-1], signal, _RATE_HZ, subtype="FLOAT")
        if backbone.kind.mapper is not None:
            yield _compare_captions(backbone, reference, paths)
            return
        encoder = backbone.audio_encoder()
        for path in paths:
            [window] = read_windows(path, backbone.config.clap.audio)
            with torch.inference_mode():
                ours = encoder(torch.from_numpy(window.samples)[None])
            yield _compare_embeddings(f"audio embedding, {path.stem}", ours, reference.get_audio_embeddings([path]))
        ours = backbone.text_encoder().encode(_CAPTIONS)
        theirs = reference.get_text_embeddings(list(_CAPTIONS))
        yield _compare_embeddings(f"text embeddings of {len(_CAPTIONS)} captions", ours, theirs)


def import_msclap() -> types.ModuleType:
    """Import msclap even if torchaudio cannot be imported, because msclap needs it only to read files.

    msclap turns off warnings and the log of transformers for the whole process; both are restored.

    Raises:
        DependencyError: msclap is not installed, or cannot be imported.
    """
    verbosity = transformers.logging.get_verbosity()
    with warnings.catch_warnings(), _torchaudio_or_placeholder():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module("msclap.CLAPWrapper")
        except ImportError as error:
            if (error.name or "").partition(".")[0] != "msclap":  # msclap is installed, but one of its imports failed
                raise DependencyError(f"verify needs msclap, which cannot be imported: {error}") from error
            hint = "pip install 'textcap[verify]'"
            if sys.version_info >= (3, 13):
                hint = "msclap cannot be installed on Python 3.13 and later: use Python 3.12"
            raise DependencyError("verify needs msclap, which is not installed", hint=hint) from error
        finally:
            transformers.logging.set_verbosity(verbosity)


@contextlib.contextmanager
def _torchaudio_or_placeholder() -> Iterator[None]:
    """Make `import torchaudio` succeed within the block, if need be with an empty placeholder.

    The torchaudio wheel links against CUDA, so it cannot be imported next to a CPU-only torch.
    """
    try:
        importlib.import_module("torchaudio")
    except (ImportError, OSError):
        names = ("torchaudio", "torchaudio.transforms")
        for name in [n for n in sys.modules if n.partition(".")[0] == "torchaudio"]:
            del sys.modules[name]
        for name in names:
            sys.modules[name] = types.ModuleType(name)
            sys.modules[name].__spec__ = importlib.machinery.ModuleSpec(name, None)
        sys.modules["torchaudio"].transforms = sys.modules["torchaudio.transforms"]  # type: ignore[attr-defined]
        try:
            yield
        finally:
            for name in names:
                del sys.modules[name]
    else:
        yield


@contextlib.contextmanager
def _reference(backbone: Backbone) -> Iterator[Any]:
    """Give a msclap wrapper that uses the backbone's own files.

    msclap loads "gpt2" from the hub in three places: twice as a model that it then fills from the checkpoint, and once
    as the tokenizer. They get an empty model of the same shape, and the backbone's tokenizer. Sound files are read with
    soundfile instead of torchaudio. msclap reads the checkpoint with torch.load, after it was found to hold only
    tensors.
    """
    # Refuses a file with more than tensors; msclap would run its code, or show how to switch torch's check off.
    read_checkpoint(backbone.weight_paths[backbone.kind.audio_encoder.role])
    module = import_msclap()
    clap_module = sys.modules["msclap.models.clap"]
    mapper_module = sys.modules["msclap.models.mapper"]
    paths = backbone.weight_paths
    tokenizer = GPT2TokenizerFast(str(paths["vocab"]), str(paths["merges"]))
    replacements = (
        (clap_module, "AutoModel", lambda _: GPT2Model(GPT2Config())),
        (mapper_module, "GPT2LMHeadModel", lambda _: GPT2LMHeadModel(GPT2Config())),
        (module, "AutoTokenizer", lambda _: tokenizer),
    )
    with contextlib.ExitStack() as replaced:
        for owner, name, load in replacements:
            replaced.enter_context(mock.patch.object(owner, name, types.SimpleNamespace(from_pretrained=load)))
        version = "2023" if backbone.kind.mapper is None else backbone.name
        wrapper = module.CLAPWrapper(str(paths[backbone.kind.audio_encoder.role]), version=version)
    wrapper.read_audio = _read_audio
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # msclap calls the tokenizer's encode_plus and padding in deprecated ways
        yield wrapper


def _read_audio(path: Path, resample: bool = True) -> tuple[torch.Tensor, int]:
    samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    return torch.from_numpy(samples.T), rate_hz


def _make_sound(duration_s: int, seed: int) -> npt.NDArray[np.float32]:
    """Return chirps over noise, so that every mel band has energy; `[S]` samples at `_RATE_HZ`."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(duration_s * _RATE_HZ) / _RATE_HZ
    chirps = [np.sin(2 * np.pi * (start + slope * time_s) * time_s) for start, slope in rng.uniform(50, 1500, (4, 2))]
    noise = rng.standard_normal(len(time_s)) * np.abs(np.sin(2 * np.pi * 0.7 * time_s))
    signal: npt.NDArray[np.float64] = 0.1 * np.sum(chirps, axis=0) + 0.05 * noise
    return signal.astype(np.float32)


def _compare_embeddings(name: str, ours: torch.Tensor, theirs: torch.Tensor) -> MsclapComparison:
    difference = (ours - torch.nn.functional.normalize(theirs.float(), dim=-1)).abs().max()
    return MsclapComparison(name, float(difference), EMBEDDING_TOLERANCE)


def _compare_captions(backbone: Backbone, reference: Any, paths: list[Path]) -> MsclapComparison:
    decoding = DecodingConfig(max_tokens=CAPTION_TOKENS)
    captioner = Captioner.released(backbone, torch.device("cpu"))
    ours = [r.caption for r in captioner.caption(paths, decoding=decoding)]
    theirs = reference.generate_caption(paths, beam_size=decoding.beam_size, entry_length=CAPTION_TOKENS)
    differing = [pair for pair in zip(ours, (" ".join(t.split()) for t in theirs), strict=True) if pair[0] != pair[1]]
    detail = "; ".join(f"{a!r} against {b!r}" for a, b in differing)
    return MsclapComparison(f"captions of {len(paths)} clips, {CAPTION_TOKENS} tokens", len(differing), 0, detail)
