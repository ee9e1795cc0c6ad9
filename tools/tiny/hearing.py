"""First stage of the audio tower: classify the kinds of sound in a clip, as audio encoders of real CLAPs are trained.

Contrastive training says little about a faint sound beside a loud one; a label for each kind covers both in every clip.
"""

import os
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from textcap.config import ClapConfig
from textcap.demo.scenes import Scene
from textcap.demo.sounds import KINDS
from textcap.models.msclap import MsclapAudioEncoder
from tiny.log import Log
from tiny.loop import half_precision, train
from tiny.settings import HearingSettings
from tiny.sound import Clips

_KINDS = {kind: number for number, kind in enumerate(KINDS)}
_MASKED_MELS, _MASKED_FRAMES = 4, 10


class Listener(nn.Module):
    """The audio tower with a classifier of the kinds of sound."""

    def __init__(self, config: ClapConfig) -> None:
        super().__init__()
        self.encoder = MsclapAudioEncoder(config)
        self.labels = nn.Linear(config.audio_tower.width, len(KINDS))

    def forward(self, log_mel: Tensor) -> Tensor:
        """Return a score for each kind, `[B, kinds]`, positive if it is present, from log-mel `[B, 1, F, M]` in dB."""
        return self.labels(self.encoder.tower(log_mel))  # type: ignore[no-any-return]


def train_hearing(
    folder: Path, config: ClapConfig, settings: HearingSettings, clips: Clips, validation: Clips, log: Log
) -> None:
    """Train a listener and write it to `listener.safetensors` in the folder."""
    torch.manual_seed(settings.seed)
    listener, checkpoint = Listener(config), folder / "listener.unfinished"
    present = kinds_present(clips.scenes)

    def loss_of(step: int) -> Tensor:
        log_mel, labels = _batch(clips, present, settings, step)
        with half_precision():
            scores = listener(log_mel)
        return F.binary_cross_entropy_with_logits(scores.float(), labels)

    def report(step: int, loss: float, seconds: float) -> None:
        log.write("hearing", step=step, loss=loss, f1=measure_hearing(listener, validation), seconds=seconds)

    rate, steps = settings.learning_rate, settings.steps
    train(checkpoint, listener, loss_of, report, steps=steps, learning_rate=rate, weight_decay=0.02)
    partial = folder / "listener.partial"
    save_file({k: v.contiguous() for k, v in listener.state_dict().items()}, partial)
    os.replace(partial, folder / "listener.safetensors")
    checkpoint.unlink()


def load_listener(folder: Path, config: ClapConfig) -> Listener:
    """Return the listener that `train_hearing` wrote."""
    listener = Listener(config)
    listener.load_state_dict(load_file(folder / "listener.safetensors"))
    return listener


@torch.inference_mode()
def measure_hearing(listener: Listener, clips: Clips, batch_size: int = 128) -> float:
    """Return F1 over all labels of all clips, where a positive score counts as present."""
    listener.eval()
    predicted = torch.cat(
        [listener(part[:, None].float()) > 0 for part in torch.from_numpy(clips.log_mel).split(batch_size)]
    )
    present = kinds_present(clips.scenes) > 0
    return 2 * (predicted & present).sum().item() / (predicted.sum() + present.sum()).item()


def kinds_present(scenes: list[Scene]) -> Tensor:
    """Return 1 for each kind of sound that occurs in a scene and 0 for the others, `[N, kinds]`."""
    present = torch.zeros(len(scenes), len(_KINDS))
    for row, scene in enumerate(scenes):
        present[row, [_KINDS[kind] for kind in scene.kinds]] = 1
    return present


def mask(log_mel: Tensor, rng: np.random.Generator) -> None:
    """Mask a random band and a random time span of each log-mel spectrogram `[B, 1, F, M]`, in place."""
    quiet = log_mel.mean()
    for row in log_mel:
        mel = rng.integers(row.shape[2] - _MASKED_MELS)
        frame = rng.integers(row.shape[1] - _MASKED_FRAMES)
        row[:, :, mel : mel + rng.integers(_MASKED_MELS + 1)] = quiet
        row[:, frame : frame + rng.integers(_MASKED_FRAMES + 1)] = quiet


def _batch(clips: Clips, present: Tensor, settings: HearingSettings, step: int) -> tuple[Tensor, Tensor]:
    """Return log-mel spectrograms `[B, 1, F, M]` of a step, some mixed from two clips, and their kinds `[B, kinds]`."""
    rng = np.random.default_rng([settings.seed, step])
    epoch, place = divmod(step - 1, len(clips.scenes) // settings.batch_size)
    order = np.random.default_rng([settings.seed, epoch, 0]).permutation(len(clips.scenes))
    batch = order[place * settings.batch_size : (place + 1) * settings.batch_size]
    log_mel = torch.from_numpy(clips.log_mel[batch].astype(np.float32))[:, None]
    for row in range(len(batch)):  # start the clip at a random frame
        log_mel[row] = log_mel[row].roll(int(rng.integers(log_mel.shape[2])), dims=1)
    other = torch.from_numpy(rng.permutation(len(batch)))
    few = (present[batch] + present[batch][other]).clamp(max=1).sum(1) <= settings.most_events
    mixed = few & torch.from_numpy(rng.random(len(batch)) < settings.mixed_share)
    gain_db = torch.from_numpy(rng.uniform(*settings.mixed_gain_db, (len(batch), 1, 1, 1))).float()
    both = 10 * torch.log10(10 ** (log_mel / 10) + 10 ** ((log_mel[other] + gain_db) / 10))
    log_mel = torch.where(mixed[:, None, None, None], both, log_mel)
    labels = torch.where(mixed[:, None], (present[batch] + present[batch][other]).clamp(max=1), present[batch])
    mask(log_mel, rng)
    return log_mel, labels
