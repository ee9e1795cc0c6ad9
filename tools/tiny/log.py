"""Log the figures of a build: one JSON object per line in a file, repeated on stderr."""

import json
import sys
from pathlib import Path


class Log:
    """Appends figures to a JSON Lines file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, stage: str, **figures: float | int | str) -> None:
        """Write one line of figures, with numbers rounded to four decimal places."""
        row = {"stage": stage} | {k: round(float(v), 4) if not isinstance(v, str) else v for k, v in figures.items()}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), file=sys.stderr, flush=True)
