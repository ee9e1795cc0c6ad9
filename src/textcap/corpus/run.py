"""Caption the shards of a corpus, each of them once, whoever else is at work."""

import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any

from textcap.captioner import Captioner
from textcap.corpus.plan import Corpus
from textcap.errors import FileError
from textcap.outputs.forms import PARQUET, Output
from textcap.outputs.journal import BusyError
from textcap.outputs.rows import Row
from textcap.outputs.run import CaptionSettings, caption_to

POLL_S = 2.0  # how often shards that are in work elsewhere are looked at

_logger = logging.getLogger("textcap")


def begin(corpus: Corpus, captioner: Captioner, settings: CaptionSettings) -> None:
    """Record with what a corpus is captioned.

    Raises:
        InputError: It was begun with other settings, or with another model.
    """
    facts: dict[str, Any] = {"backbone": vars(captioner.backbone.names.absolute()), **captioner.backbone.clap.facts}
    corpus.begin(settings.identity(captioner), facts)


def unfinished(corpus: Corpus, part: tuple[int, int] = (1, 1)) -> list[int]:
    """Return the shards of a part that have no result; a damaged one is deleted, with a warning.

    Args:
        part: K and N: every N-th shard, beginning with the K-th.
    """
    first, step = part
    missing = []
    for shard in range(first - 1, corpus.n_shards, step):
        try:
            corpus.result(shard)
        except FileError as error:
            if corpus.result_path(shard).exists():
                _logger.warning("%s is made anew: it %s", error.path, error.problem)
                corpus.discard(shard)
            missing.append(shard)
    return missing


def run_shard(corpus: Corpus, shard: int, captioner: Captioner, settings: CaptionSettings) -> Iterator[Row]:
    """Caption a shard or what is left of it, yield its rows in order, and write its result.

    Raises:
        BusyError: Another process is at work on it.
        TextcapError: What `caption_to` raises.
    """
    first_id, inputs = corpus.inputs(shard)
    where = Output(PARQUET, corpus.result_path(shard), inputs, is_timeline=settings.is_timeline, first_id=first_id)
    yield from caption_to(where, captioner, settings, resume=True, retries=False)


def run_shards(
    corpus: Corpus, shards: Sequence[int], captioner: Captioner, settings: CaptionSettings
) -> Iterator[Row | None]:
    """Caption shards, and yield the rows; those that are in work elsewhere are looked at again at the end.

    Yields:
        Rows; None while there is nothing to do but wait for other processes.
    """
    remaining = list(shards)
    while remaining:
        busy = []
        for shard in remaining:
            if corpus.result_path(shard).exists():
                continue
            try:
                yield from run_shard(corpus, shard, captioner, settings)
            except BusyError:
                busy.append(shard)
        if busy == remaining:
            yield None
            time.sleep(POLL_S)
        remaining = busy
