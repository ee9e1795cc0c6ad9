"""What a training run is asked to do, as one value that JSON can hold.

Knows nothing of how it is done.
"""

from dataclasses import dataclass, field

from textcap.config import BridgeConfig, TrainingConfig


@dataclass(frozen=True)
class TrainingJob:
    """What to train and where to put it; captions and pairs come beside it."""

    output: str  # the model folder
    backbone: str = "msclap-2023"
    bridge: BridgeConfig | None = None  # by default noise as measured, or as suits the backbone
    audio_noise_variance: float = 0.0  # on embeddings of sounds that are trained on, where `bridge` does not say
    adapter: str | None = None  # file of a linear adapter for text embeddings
    prefix_length: int | None = None  # by default the backbone's
    mapper_layers: int | None = None  # by default the backbone's
    training: TrainingConfig = field(default_factory=TrainingConfig)
    device: str = "auto"
    force: bool = False
    offline: bool | None = None  # by default as HF_HUB_OFFLINE says
    command: str = ""  # recorded in the model folder
