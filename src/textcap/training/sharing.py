"""Give all processes of a run what the main one has read: the captions, and the state of an unfinished run.

The others may run on machines with disks of their own.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import broadcast, broadcast_object_list, gather_object
from torch import Tensor

from textcap.data.captions import CaptionSet
from textcap.data.stored import StoredCaptions
from textcap.errors import InputError
from textcap.files import remove_quietly, rename_durably, sha256_of_file, workspace
from textcap.training.state import CAPTIONS, STORED, TrainingProgress, WorkFolder

_BLOCK_BYTES = 1 << 24


def share_captions(captions: CaptionSet | None, output: Path) -> CaptionSet:
    """Return the captions of the main process, stored in this one's work folder.

    Args:
        captions: What the main process has stored; None in the others.
        output: The model folder that the run will write, on this process's disk.
    """
    [(files, content_hash)] = broadcast_object_list([captions and (captions.files, captions.content_hash)])
    own = WorkFolder.path_of(output) / CAPTIONS
    # One process of each machine receives them for all.
    is_missing = captions is None and PartialState().is_local_main_process and not _has(own, content_hash)
    if any(gather_object([is_missing])):
        _receive(own, is_main=captions is not None, is_missing=is_missing)
    PartialState().wait_for_everyone()
    return CaptionSet(StoredCaptions(own), files, content_hash)


def share_state(
    state: tuple[TrainingProgress, dict[str, Tensor]] | None, device: torch.device
) -> tuple[TrainingProgress, dict[str, Tensor]] | None:
    """Return the saved state of the main process in all of them, with the tensors on the CPU."""
    if PartialState().num_processes == 1:
        return state
    shapes = {name: tuple(tensor.shape) for name, tensor in state[1].items()} if state else {}
    progress, shapes = broadcast_object_list([state and state[0], shapes])
    if progress is None:
        return None
    tensors = {}
    for name, shape in shapes.items():
        own = state[1][name] if state else torch.empty(shape)
        tensors[name] = broadcast(own.to(device)).cpu()
    return progress, tensors


@contextmanager
def leaving_no_copies(output: Path) -> Iterator[None]:
    """Delete at the end what `share_captions` has stored on a disk where the main process has no work folder."""
    try:
        yield
    finally:
        folder = WorkFolder.path_of(output)
        if {path.name for path in folder.glob("*")} <= set(STORED):
            remove_quietly(folder)


def _has(folder: Path, content_hash: str) -> bool:
    try:
        return sha256_of_file(folder / StoredCaptions.FILES[0]) == content_hash
    except InputError:
        return False


def _receive(folder: Path, *, is_main: bool, is_missing: bool) -> None:
    """Write the files of the main process's folder to that of each process that lacks them."""
    with workspace(folder.parent) as beside:
        for name in StoredCaptions.FILES:
            blocks = _blocks(folder / name if is_main else None)
            if is_missing:
                with open(beside / name, "wb") as copy:
                    copy.writelines(blocks)
            else:
                deque(blocks, maxlen=0)
        if is_missing:
            remove_quietly(folder)
            rename_durably(beside, folder)


def _blocks(path: Path | None) -> Iterator[bytes]:
    """Yield the main process's file in all processes; only that one has a path."""
    with open(path, "rb") if path else nullcontext() as file:
        while block := broadcast_object_list([file.read(_BLOCK_BYTES) if file else None])[0]:
            yield block
