"""SIGTERM and SIGHUP end a command like Ctrl-C, after its child processes and temporary files are cleaned up."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_STOPPING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


@contextmanager
def signals_as_exits() -> Iterator[None]:
    """Raise SystemExit in the block on SIGTERM and SIGHUP, with 128 and the signal's number as the exit code.

    A signal that is ignored, as under nohup, stays ignored.
    """
    with _handling(_STOPPING, lambda number, frame: sys.exit(128 + number)):
        yield


@contextmanager
def signals_deferred() -> Iterator[None]:
    """Let signals wait until the end of the block, which starts a child process: an exception would lose the child."""
    arrived: list[int] = []
    with _handling([signal.SIGINT, *_STOPPING], lambda number, frame: arrived.append(number)):
        yield
    for number in arrived:
        signal.raise_signal(number)


@contextmanager
def _handling(numbers: list[signal.Signals], handler: Callable[[int, Any], object]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # Python lets only this one set handlers
        yield
        return
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        if before[number] is not signal.SIG_IGN:
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
