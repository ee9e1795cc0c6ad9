"""Caption many inputs in fixed slices, so that a run that was stopped continues with the same arithmetic."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import Any

from textcap.audio.inputs import Input
from textcap.audio.sources import SoundSource
from textcap.captioner import Captioner, Ranking
from textcap.config import DecodingConfig
from textcap.embedding.recordings import READING_VERSION
from textcap.errors import FileError, InputError
from textcap.outputs.forms import WITH_ERRORS, Output
from textcap.outputs.journal import Journal, open_journal
from textcap.outputs.rows import Row, error_row, path_of, row_of
from textcap.remote import open_source
from textcap.results import CaptionResult


@dataclass(frozen=True)
class CaptionSettings:
    """How to caption: the arguments of `Captioner.caption`, or of `Captioner.timeline`."""

    decoding: DecodingConfig = DecodingConfig()
    ranking: Ranking = Ranking()
    n_captions: int = 1  # that rows show
    is_timeline: bool = False
    hop_s: float | None = None  # of a time line
    caption_silence: bool = False
    batch_size: int | None = None  # also the size of the slices; None: what suits the backbone
    offline: bool | None = None  # whether remote sounds are refused
    embeddings: bool = False  # whether rows have the embeddings of the sounds, for Parquet

    def caption(
        self, captioner: Captioner, sources: Sequence[SoundSource], reading: Callable[[int | None], None]
    ) -> Iterator[CaptionResult]:
        """Yield the result of each source; `reading` is called as in `Captioner.caption`."""
        how: dict[str, Any] = {
            "decoding": self.decoding,
            "ranking": self.ranking,
            "caption_silence": self.caption_silence,
            "batch_size": self.batch_size,
            "reading": reading,
        }
        if self.is_timeline:
            return captioner.timeline(sources, hop_s=self.hop_s, **how)
        return captioner.caption(sources, **how)

    def identity(self, captioner: Captioner) -> dict[str, Any]:
        """Return everything that decides a sound's captions, for a journal."""
        settings = asdict(self)
        decoding, ranking, _ = (settings.pop(name) for name in ("decoding", "ranking", "offline"))
        model = {"model": captioner.content_hash, "precision": captioner.precision, "reading": READING_VERSION}
        size = captioner.backbone.config.batch_size(self.batch_size)
        return {**model, **decoding, **ranking, **settings, "batch_size": size}


def caption_to(
    where: Output,
    captioner: Captioner,
    settings: CaptionSettings,
    *,
    resume: bool = False,
    force: bool = False,
    retries: bool = True,
) -> Iterator[Row]:
    """Caption the inputs of an output, yield their rows in order, and write it when the last one is done.

    With a file or folder as the output, results are kept in a journal beside it, which is deleted when all inputs have
    been captioned.

    Args:
        resume: Continue an unfinished run: a slice whose inputs are all in the journal is skipped, any other is done
            anew as a whole.
        force: Start again if there is an unfinished run.
        retries: Whether the journal is kept while inputs have failed, so that a resumed run tries these again;
            otherwise an output that exists is finished.

    Raises:
        InputError: There is an unfinished run, or it cannot be continued; see `open_journal`.
        TextcapError: What `Captioner.caption` raises.
    """
    if where.path is None:
        for one, row in zip(where.inputs, _rows(captioner, where.inputs, settings, None), strict=True):
            if not where.is_stdout:
                where.write_own(one, row)
            yield row
        return
    n_failed = 0
    with open_journal(where.path, settings.identity(captioner), resume=resume, force=force) as journal:
        if not retries and where.path.exists():  # another process has finished it meanwhile
            return journal.delete()
        for row in _rows(captioner, where.inputs, settings, journal):
            n_failed += "error" in row
            yield row
        if n_failed < len(where.inputs) or where.form in WITH_ERRORS:  # else there is nothing to write
            where.write(journal.rows([_key_of(one) for one in where.inputs]), captioner.backbone.clap.facts)
        if not n_failed or not retries:
            journal.delete()


def _rows(
    captioner: Captioner, inputs: Sequence[Input | InputError], settings: CaptionSettings, journal: Journal | None
) -> Iterator[Row]:
    n_together = captioner.backbone.config.batch_size(settings.batch_size)
    for start in range(0, len(inputs), n_together):
        part = inputs[start : start + n_together]
        if journal is None:
            yield from _caption_slice(captioner, part, settings, None)
            continue
        keys, identities = [_key_of(one) for one in part], captioner.identities([path_of(one) for one in part])
        if all(map(journal.has, keys, identities)):
            yield from journal.rows(keys)
            continue
        rows = _caption_slice(captioner, part, settings, journal)
        journal.add(keys, rows, identities)
        yield from rows


def _key_of(one: Input | InputError) -> str:
    """Return what stands for an input in a journal: its name, and for an address, whose secrets it lacks, a hash."""
    address = one.address if isinstance(one, Input) else ""
    return path_of(one) + (f" {hashlib.sha256(address.encode()).hexdigest()[:16]}" if address else "")


def _caption_slice(
    captioner: Captioner, part: Sequence[Input | InputError], settings: CaptionSettings, journal: Journal | None
) -> list[Row]:
    names = [path_of(one) for one in part]
    rows: dict[int, Row] = {}
    opened: dict[int, SoundSource] = {}
    with ExitStack() as stack:
        for index, one in enumerate(part):
            try:
                if journal is not None and journal.crashed(_key_of(one)):
                    raise FileError(names[index], "could not be read: textcap was killed twice doing so")
                if isinstance(one, InputError):
                    raise one
                opened[index] = stack.enter_context(open_source(one, offline=settings.offline))
            except InputError as error:
                rows[index] = error_row(names[index], error)
        places = list(opened)

        def reading(index: int | None) -> None:
            if journal is not None:
                journal.reading(None if index is None else _key_of(part[places[index]]))

        for index, result in zip(places, settings.caption(captioner, list(opened.values()), reading), strict=True):
            # The name of a remote sound is not the one of its copy.
            renamed = replace(result, path=names[index])
            rows[index] = row_of(renamed, settings.n_captions, embeddings=settings.embeddings)
    return [rows[index] for index in range(len(part))]
