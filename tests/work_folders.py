"""Open the work folder of a run as `train` does."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from textcap.training.state import WorkFolder


def open_work(output: Path, settings: Mapping[str, Any], *, force: bool = False) -> WorkFolder:
    """Lock the work folder of a model folder and begin a run in it."""
    work = WorkFolder.lock(output)
    try:
        work.begin(output, settings, force=force)
    except BaseException:
        work.close()
        raise
    return work
