"""One of several training processes on this machine, started by `textcap.training.processes`.

Reads its work from standard input, sends events, log records and errors to standard output, and leaves the training to
`run_task`.
"""

import logging
import os
import pickle
import queue
import sys
import threading
import traceback
from logging.handlers import QueueHandler

from textcap.errors import TextcapError
from textcap.models.backbone import Backbone
from textcap.training import run_task
from textcap.training.events import Event


def main() -> None:
    """Run the task on standard input, and end the process."""
    # What libraries print must not mix with the messages, so standard output becomes standard error for them.
    messages = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def send(message: Event | TextcapError | logging.LogRecord) -> None:
        pickle.dump(message, messages)
        messages.flush()

    class LogSender(QueueHandler):
        def enqueue(self, record: logging.LogRecord) -> None:
            send(record)

    logging.getLogger("textcap").addHandler(LogSender(queue.SimpleQueue()))

    # The process ends while the run or the traceback, and with it the process group, still exists: freed now, the group
    # would wait for a thread of gloo that may wait for the interpreter's lock, which this thread would hold.
    try:
        task, backbone, device = pickle.load(sys.stdin.buffer)
        threading.Thread(target=_end_with_starter, daemon=True).start()
        _kept = run_task(task, Backbone.load(backbone, offline=True), device, send)
        os._exit(0)
    except TextcapError as error:
        send(error)
        os._exit(error.exit_code)
    except (EOFError, pickle.UnpicklingError):  # the starter has ended
        os._exit(1)
    except Exception:
        traceback.print_exc()
        os._exit(1)


def _end_with_starter() -> None:
    os.read(0, 1)  # the starter writes nothing more, so this returns when its end of the pipe closes
    os._exit(1)


if __name__ == "__main__":
    main()
