"""Load backbones for a command, with the progress of any download."""

from typing import TYPE_CHECKING

from textcap.cli.progress import download_progress

if TYPE_CHECKING:
    from textcap.models.backbone import Backbone


def load_backbone(
    name: str, clap: str | None = None, language_model: str | None = None, *, offline: bool
) -> "Backbone":
    """Return a backbone, perhaps with other halves, downloading what is missing unless `offline` is set."""
    from textcap.models.backbone import Backbone, BackboneNames

    with download_progress() as progress:
        return Backbone.load(BackboneNames(name, clap, language_model), offline=offline or None, progress=progress)
