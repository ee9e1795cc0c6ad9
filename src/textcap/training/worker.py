"""One of several training processes on this machine, started by `textcap.training.processes`.

Knows the messages that its starter expects, and nothing of training.
"""

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from textcap.config import from_dict
from textcap.errors import TextcapError
from textcap.training import train
from textcap.training.events import event_to_dict
from textcap.training.job import TrainingJob
from textcap.training.prepare import data_from_dict


def main(job_file: str) -> int:
    """Do the job in a file; return the exit code."""
    # Whatever a library prints must not get between the messages.
    messages = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the starter has heard it, too, and ends this process
    threading.Thread(target=_end_with_starter, daemon=True).start()

    def send(message: dict[str, Any]) -> None:
        messages.write(json.dumps(message) + "\n")
        messages.flush()

    values = json.loads(Path(job_file).read_text(encoding="utf-8"))
    job = from_dict(TrainingJob, values["job"])
    data = data_from_dict(values["data"])
    try:
        train(
            job,
            data.texts,
            lambda event: send(event_to_dict(event)),
            pairs=data.pairs,
            noise_pairs=data.noise_pairs,
        )
    except TextcapError as error:
        send({"kind": "error", "type": type(error).__name__, "message": error.message, "hint": error.hint})
        return error.exit_code
    return 0


def _end_with_starter() -> None:
    os.read(0, 1)  # nothing is ever written: it returns when the other end is gone
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
