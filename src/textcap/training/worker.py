"""Run one of several training processes on this machine, started by `textcap.training.processes`.

Reads the job, sends events and errors to the process that started it, and leaves the training to `train`.
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
    """Run the training job in a file and return the exit code."""
    # What libraries print must not mix with the messages, so standard output becomes standard error for them.
    messages = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the starter receives it, too, and ends this process
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
    os.read(0, 1)  # the starter never writes, so this returns when its end of the pipe closes
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
