"""Caption the shards of a corpus on a Ray cluster.

Ours is a worker that is told the number of a shard; scheduling, restarts and growing clusters are Ray Data's. No sound
and no embedding goes through Ray.
"""

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from textcap.corpus.plan import Corpus
from textcap.corpus.run import POLL_S, run_shard
from textcap.errors import DependencyError, DeviceError, first_line
from textcap.outputs.journal import BusyError
from textcap.outputs.run import CaptionSettings

try:
    import ray
    from ray.data import ActorPoolStrategy, DataContext
except ImportError as missing:
    raise DependencyError("--ray needs Ray", hint="pip install 'textcap[ray]'") from missing

_CPUS_PER_WORKER = 4
# What a worker needs of the environment of this process; the command line, which sets some of it, does not run there.
_INHERITED = ("TEXTCAP_CACHE", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


class ShardCaptioner:
    """A worker, which loads its model once.

    Args:
        folder: Of the corpus.
        load: Arguments of `Captioner.load`.
        settings: How to caption.
    """

    def __init__(self, folder: str, load: Mapping[str, Any], settings: CaptionSettings) -> None:
        from textcap.captioner import Captioner

        self._corpus, self._settings = Corpus(Path(folder)), settings
        self._captioner = Captioner.load(**load, offline=True, keeps_embeddings=False)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Caption the shard whose number is in the batch; return its number of rows, 0 if it is in work elsewhere."""
        try:
            n_rows = sum(1 for _ in run_shard(self._corpus, int(batch["item"][0]), self._captioner, self._settings))
        except BusyError:
            n_rows = 0
        return {"n_rows": np.array([n_rows])}


class Cluster:
    """A Ray cluster that this process is connected to.

    Attributes:
        n_workers: Shards that are captioned at once.
    """

    def __init__(self, n_workers: int | None) -> None:
        found = ray.cluster_resources()
        n_gpus, n_cpus = int(found.get("GPU", 0)), int(found.get("CPU", 1))
        self.n_workers = n_workers or n_gpus or max(1, n_cpus // _CPUS_PER_WORKER)
        self._n_cpus, self._n_gpus = max(1, n_cpus // self.n_workers), int(n_gpus >= self.n_workers)

    @classmethod
    @contextmanager
    def start(cls, where: str, n_workers: int | None = None) -> Iterator["Cluster"]:
        """Start a cluster on this machine, or connect to one; at the end of the block leave it, or stop it.

        Args:
            where: "local", "auto" for the cluster that this machine is part of, or an address.
            n_workers: Shards to caption at once; by default one for each GPU, or for four processors.

        Raises:
            DeviceError: The cluster cannot be reached.
        """
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # else its C++ parts write to stderr
        for name in ("ray", "ray.data"):
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            ray.init(
                where,
                include_dashboard=False if where == "local" else None,
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env={"env_vars": inherited},
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise DeviceError(f"Ray at {where} cannot be used: {first_line(error)}", hint="use --ray local") from error
        try:
            yield cls(n_workers)
        finally:
            ray.shutdown()

    def run(
        self, corpus: Corpus, shards: Sequence[int], load: Mapping[str, Any], settings: CaptionSettings
    ) -> Iterator[int]:
        """Caption shards, and yield the number of rows of each when it is done.

        Those that are in work elsewhere are looked at again at the end.

        Args:
            load: Arguments of `Captioner.load`: the model is a path that all machines see, or a name whose weights are
                on each of them.
        """
        context = DataContext.get_current()
        context.enable_progress_bars = False
        n = min(self.n_workers, len(shards) or 1)
        pool = ActorPoolStrategy(min_size=1, max_size=n, initial_size=n, max_tasks_in_flight_per_actor=1)
        found = {name: os.path.abspath(value) for name, value in load.items() if value and os.path.isdir(value)}
        threads = {"OMP_NUM_THREADS": str(self._n_cpus)}
        remaining = list(shards)
        while remaining:
            # A block for each shard, else Ray puts small rows into few blocks, which few workers get.
            done = ray.data.from_items(remaining, override_num_blocks=len(remaining)).map_batches(
                ShardCaptioner,
                fn_constructor_args=(os.path.abspath(corpus.folder), {**load, **found}, settings),
                batch_size=1,
                compute=pool,
                num_cpus=self._n_cpus,
                num_gpus=self._n_gpus,
                runtime_env={"env_vars": threads},
            )
            for row in done.iter_rows():
                yield int(row["n_rows"])
            before, remaining = remaining, [n for n in remaining if not corpus.result_path(n).exists()]
            if remaining == before:
                time.sleep(POLL_S)
