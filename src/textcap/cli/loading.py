"""Load backbones and captioners for a command, with the progress of any download."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from textcap.cli import options
from textcap.cli.console import note
from textcap.cli.progress import download_progress

if TYPE_CHECKING:
    from textcap.captioner import Captioner
    from textcap.models.backbone import Backbone


def load_backbone(
    name: str, clap: str | None = None, language_model: str | None = None, *, offline: bool
) -> "Backbone":
    """Return a backbone, perhaps with other halves, downloading what is missing unless `offline` is set."""
    from textcap.models.backbone import Backbone, BackboneNames

    with download_progress() as progress:
        return Backbone.load(BackboneNames(name, clap, language_model), offline=offline or None, progress=progress)


def load_captioner(load: Mapping[str, str | None], *, offline: bool, keeps_embeddings: bool = True) -> "Captioner":
    """Return a captioner, and say on stderr what it is; a precision that does not exist is misuse.

    Args:
        load: Arguments of `Captioner.load`.
    """
    from textcap.captioner import Captioner

    how: dict[str, Any] = {**load, "offline": offline or None, "keeps_embeddings": keeps_embeddings}
    with options.settings_from_flags("precision"), download_progress() as progress:
        captioner = Captioner.load(**how, progress=progress)
    where = f"{captioner.device}, {captioner.precision}"
    note(f"model {captioner.name}, backbone {captioner.backbone.name} on {where}")
    return captioner
