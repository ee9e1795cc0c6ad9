"""Load backbones for a command, with the progress of any download."""

from typing import TYPE_CHECKING

from textcap.cli.progress import download_progress

if TYPE_CHECKING:
    from textcap.models.backbone import Backbone


def load_backbone(name: str, *, offline: bool) -> "Backbone":
    """Return a backbone, downloading what is missing unless `offline` is set."""
    from textcap.models.backbone import Backbone

    with download_progress() as progress:
        return Backbone.load(name, offline=offline or None, progress=progress)
