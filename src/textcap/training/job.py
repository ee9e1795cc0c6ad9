"""The settings of a training run as one value that JSON can hold."""

from dataclasses import dataclass, field

from textcap.config import BridgeConfig, TrainingConfig


@dataclass(frozen=True)
class TrainingJob:
    """What to train, and where to write it; captions and pairs are passed separately."""

    output: str  # the model folder to write
    backbone: str = "msclap-2023"  # a name, or a folder
    bridge: BridgeConfig | None = None  # None: the noise on text is measured on pairs, or is the backbone's
    audio_noise_variance: float = 0.0  # of the noise on the embeddings of sounds; used if `bridge` is None
    adapter: str | None = None  # file of a linear adapter for text embeddings
    prefix_length: int | None = None  # None: the backbone's
    mapper_layers: int | None = None  # None: the backbone's
    training: TrainingConfig = field(default_factory=TrainingConfig)
    device: str = "auto"
    force: bool = False  # overwrite the output, and discard an unfinished run with other settings
    offline: bool | None = None  # never use the network; None: as HF_HUB_OFFLINE says
    command: str = ""  # the command line, recorded in the model folder
