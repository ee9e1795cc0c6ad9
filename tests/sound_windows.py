"""The embeddings of the windows of samples in memory, and of vectors made up for a test."""

import numpy as np
import torch
from numpy.typing import NDArray

from textcap.audio.windows import cut_windows
from textcap.config import AudioConfig
from textcap.embedding.recordings import WindowEmbeddings
from textcap.models.msclap import MsclapAudioEncoder

SILENT_PEAK = 10 ** (-70 / 20)


def windows_of_vectors(
    vectors: NDArray[np.floating],
    *,
    window_s: float = 4.0,
    hop_s: float = 2.0,
    silent: NDArray[np.bool_] | None = None,
) -> WindowEmbeddings:
    """Return windows with the given embeddings `[W, E]`, which are made unit length."""
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    starts_s = np.arange(len(vectors)) * hop_s
    quiet = np.zeros(len(vectors), bool) if silent is None else silent
    return WindowEmbeddings(
        units.astype(np.float32), starts_s, starts_s + window_s, quiet, float(starts_s[-1] + window_s)
    )


@torch.inference_mode()
def windows_of_samples(
    samples: NDArray[np.floating], encoder: MsclapAudioEncoder, config: AudioConfig
) -> WindowEmbeddings:
    """Return the embeddings of the windows of a mono sound `[S]` at the model's rate."""
    windows = list(cut_windows(iter([samples.astype(np.float32)]), config))
    batches = [torch.from_numpy(np.stack([w.samples for w in windows[i : i + 16]])) for i in range(0, len(windows), 16)]
    vectors = torch.nn.functional.normalize(torch.cat([encoder(batch) for batch in batches]), dim=-1)
    peaks = [float(np.abs(window.samples - window.samples.mean()).max()) for window in windows]
    return WindowEmbeddings(
        vectors.numpy(),
        np.array([window.start_s for window in windows]),
        np.array([window.end_s for window in windows]),
        np.array(peaks) < SILENT_PEAK,
        windows[-1].end_s,
    )
