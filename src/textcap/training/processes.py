"""Run one task in several processes on this machine, and stop all of them when one fails.

Every process runs `textcap.training.worker`, to which this one pickles the task. Workers pickle events, log records and
errors to their standard output. They end when their standard input closes, so that none outlives this process.

torch.multiprocessing and accelerate's launchers are not used: those that spawn run a user's script again unless it is
guarded by its `__name__`, those that fork fail after a GPU was used, and all let workers print on our standard output.
"""

import contextlib
import logging
import os
import pickle
import queue
import socket
import subprocess
import sys
import threading
from typing import Any

from textcap.errors import InputError, TextcapError
from textcap.training.events import Event, Report

_STOP_S = 10.0  # how long a terminated worker may take to end before it is killed

_Message = Event | Exception | logging.LogRecord | None  # None: the process has closed its output


def torchrun_place() -> tuple[int, int]:
    """Return this process's rank and the number of processes, as set by torchrun; 0 and 1 without torchrun.

    Raises:
        InputError: The environment variables that torchrun sets are not valid.
    """
    if "WORLD_SIZE" not in os.environ and "LOCAL_RANK" in os.environ:  # accelerate would wait for other processes
        raise InputError("LOCAL_RANK is set without WORLD_SIZE", hint="unset it, or start with torchrun")
    n_processes = _count_in("WORLD_SIZE", default="1")
    # RANK alone means nothing: job schedulers also set it for programs that run independently of each other.
    rank = _count_in("RANK", default="") if n_processes > 1 else 0
    if rank >= max(n_processes, 1):
        message = f"RANK is {rank}, but must be less than WORLD_SIZE, which is {n_processes}"
        raise InputError(message, hint="start with torchrun, or unset both")
    return rank, n_processes


def _count_in(variable: str, *, default: str) -> int:
    value = os.environ.get(variable) or default
    if not (value.isascii() and value.isdigit()):
        message = f"the environment variable {variable} is {value!r}, but must be a whole number"
        raise InputError(message, hint="unset it, or start with torchrun")
    return int(value)


def launch(work: Any, n_processes: int, report: Report) -> None:
    """Run `textcap.training.worker` in `n_processes` new processes and wait for them.

    Args:
        work: What the workers read from their standard input; must pickle.
        n_processes: The number of processes to start.
        report: Called with each event that the main process of the run reports.

    Raises:
        TextcapError: A process raised this error, or ended with an exit code other than 0.
    """
    workers: list[subprocess.Popen[bytes]] = []
    messages: queue.Queue[tuple[int, _Message]] = queue.Queue()
    pickled = pickle.dumps(work)
    try:
        port = _free_port()
        for rank in range(n_processes):
            workers.append(_start(rank, n_processes, port))
            arguments = (workers[rank], pickled, rank, messages)
            threading.Thread(target=_talk, args=arguments, daemon=True).start()
        n_running = n_processes
        while n_running:
            rank, message = messages.get()
            if isinstance(message, Exception):
                raise message
            if isinstance(message, logging.LogRecord):
                if rank == 0:  # the others say the same
                    logging.getLogger(message.name).handle(message)
            elif message is not None:
                report(message)
            elif code := workers[rank].wait():
                raise TextcapError(f"training process {rank} of {n_processes} ended with exit code {code}")
            else:
                n_running -= 1
    finally:
        _stop(workers)


def _start(rank: int, n_processes: int, port: int) -> subprocess.Popen[bytes]:
    environment = {
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // n_processes)),
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(n_processes),
        "LOCAL_WORLD_SIZE": str(n_processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        # So that the worker finds this package even if it is not installed, but on sys.path.
        "PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path),
    }
    command = [sys.executable, "-m", "textcap.training.worker"]
    # In a session of its own, Ctrl-C at the terminal does not reach it; this process ends it.
    return subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )


def _talk(
    worker: subprocess.Popen[bytes], pickled: bytes, rank: int, messages: "queue.Queue[tuple[int, _Message]]"
) -> None:
    """Send the pickled work to a worker, and queue what it sends until it closes its output."""
    assert worker.stdin is not None and worker.stdout is not None
    try:
        worker.stdin.write(pickled)
        worker.stdin.flush()
        while True:
            messages.put((rank, pickle.load(worker.stdout)))
    except (OSError, EOFError, pickle.UnpicklingError):  # it has ended
        messages.put((rank, None))
    except Exception as error:  # a message of another version, if the package was changed meanwhile
        messages.put((rank, error))


def _stop(workers: list[subprocess.Popen[bytes]]) -> None:
    for worker in workers:
        if worker.poll() is None:
            worker.terminate()
    for worker in workers:
        try:
            worker.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()
        for stream in (worker.stdin, worker.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):  # what it never read is lost
                    stream.close()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
