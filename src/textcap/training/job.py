"""What a training run is asked to do, as one value that JSON can hold.

Knows nothing of how it is done.
"""

from dataclasses import dataclass, field

from textcap.config import BridgeConfig, TrainingConfig


@dataclass(frozen=True)
class TrainingJob:
    """What to train and where to put it; the captions come beside it."""

    output: str  # the model folder
    backbone: str = "msclap-2023"
    bridge: BridgeConfig | None = None  # by default the noise that suits the backbone
    prefix_length: int | None = None  # by default the backbone's
    mapper_layers: int | None = None  # by default the backbone's
    training: TrainingConfig = field(default_factory=TrainingConfig)
    device: str = "auto"
    force: bool = False
    offline: bool | None = None  # by default as HF_HUB_OFFLINE says
    command: str = ""  # recorded in the model folder
