"""Run a training job in several processes on this machine, and stop all of them when one fails.

Every process runs `textcap.training.worker`. It reads its job from a file, reports events as JSON Lines on its standard
output, and ends itself when its standard input closes, so that no worker outlives this process.
"""

import json
import os
import queue
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from textcap import errors
from textcap.config import to_dict
from textcap.errors import InputError, TextcapError
from textcap.training.events import Report, event_from_dict
from textcap.training.job import TrainingJob
from textcap.training.prepare import TrainingData, data_to_dict

_STOP_S = 10.0  # how long a terminated worker may take to end before it is killed

_Message = dict[str, Any] | None  # None: the process has closed its output


def torchrun_place() -> tuple[int, int]:
    """Return this process's rank and the number of processes, as set by torchrun; 0 and 1 without torchrun.

    Raises:
        InputError: The environment variables that torchrun sets are not valid.
    """
    n_processes = _count_in("WORLD_SIZE", default=1)
    if "WORLD_SIZE" not in os.environ and "LOCAL_RANK" in os.environ:  # accelerate would wait for other processes
        raise InputError("LOCAL_RANK is set without WORLD_SIZE", hint="unset it, or start with torchrun")
    # RANK alone means nothing: job schedulers also set it for programs that run independently of each other.
    rank = _count_in("RANK", default=None) if n_processes > 1 else 0
    if rank >= max(n_processes, 1):
        message = f"RANK is {rank}, but must be less than WORLD_SIZE, which is {n_processes}"
        raise InputError(message, hint="start with torchrun, or unset both")
    return rank, n_processes


def _count_in(variable: str, *, default: int | None) -> int:
    value = os.environ.get(variable) or ("" if default is None else str(default))
    if not (value.isascii() and value.isdigit()):
        message = f"the environment variable {variable} is {value!r}, but must be a whole number"
        raise InputError(message, hint="unset it, or start with torchrun")
    return int(value)


def launch(job: TrainingJob, data: TrainingData, n_processes: int, report: Report) -> None:
    """Run a job in `n_processes` new processes and wait for them.

    Args:
        job: The settings of the run; its output is an absolute path.
        data: The captions and pairs to train on.
        n_processes: The number of processes to start.
        report: Called with each event that the main process of the run reports.

    Raises:
        TextcapError: A process raised this error, or ended with an exit code other than 0.
    """
    with tempfile.TemporaryDirectory(prefix="textcap-") as folder:
        path = Path(folder) / "job.json"
        path.write_text(json.dumps({"job": to_dict(job), "data": data_to_dict(data)}), encoding="utf-8")
        workers: list[subprocess.Popen[bytes]] = []
        try:
            port = _free_port()
            for rank in range(n_processes):
                workers.append(_start(path, rank, n_processes, port))
            _follow(workers, report)
        finally:
            _stop(workers)


def _start(path: Path, rank: int, n_processes: int, port: int) -> subprocess.Popen[bytes]:
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
    command = [sys.executable, "-m", "textcap.training.worker", str(path)]
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def _follow(workers: list[subprocess.Popen[bytes]], report: Report) -> None:
    """Pass on what the first worker reports until all workers have ended with exit code 0."""
    messages: queue.Queue[tuple[int, _Message]] = queue.Queue()
    for rank, worker in enumerate(workers):
        threading.Thread(target=_read_messages, args=(worker, rank, messages), daemon=True).start()
    n_running = len(workers)
    while n_running:
        rank, message = messages.get()
        if message is None:
            n_running -= 1
            code = workers[rank].wait()
            if code:
                raise TextcapError(f"training process {rank} of {len(workers)} ended with exit code {code}")
        elif message["kind"] == "error":
            raise _error_from(message)
        elif rank == 0:
            report(event_from_dict(message))


def _read_messages(worker: subprocess.Popen[bytes], rank: int, messages: "queue.Queue[tuple[int, _Message]]") -> None:
    assert worker.stdout is not None
    for line in worker.stdout:
        messages.put((rank, json.loads(line)))
    messages.put((rank, None))


def _error_from(message: dict[str, Any]) -> TextcapError:
    kind = getattr(errors, message["type"], TextcapError)
    if issubclass(kind, InputError):  # its subclasses take other arguments
        kind = InputError
    error: TextcapError = kind(message["message"], hint=message["hint"])
    return error


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
                stream.close()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
