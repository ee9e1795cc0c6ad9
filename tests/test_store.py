"""The store of vectors: computed once, kept batch by batch, checked when read, and shared by processes."""

import dataclasses
import os
import re
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny_random
from textcap import store as store_module
from textcap.audio.sources import Sound
from textcap.audio.windows import read_windows
from textcap.captioner import Captioner
from textcap.config import BridgeConfig
from textcap.data.pairs import read_pairs
from textcap.embedding.captions import embed_captions
from textcap.embedding.export import embed_inputs
from textcap.embedding.pairs import embed_pairs, one_caption_each
from textcap.embedding.recordings import Recording, RecordingEmbedder
from textcap.errors import CheckpointError, FileError, InputError
from textcap.gap.bridge import Bridge
from textcap.models.backbone import Backbone
from textcap.models.msclap import MsclapAudioEncoder, MsclapTextEncoder
from textcap.store import Store, delete_store, inspect_store, store_folder
from textcap.training.loop import new_mapper

CPU = torch.device("cpu")
RATE_HZ = 8000
WIDTH = 8


def key_of(item: int) -> bytes:
    return item.to_bytes(32, "big")


def vector_of(item: int) -> np.ndarray:
    """Return a vector that depends only on the item."""
    return np.random.default_rng(item).normal(size=WIDTH).astype(np.float32)


class Encoder:
    """Embeds the items of a list and remembers the batches it was given."""

    def __init__(self, items: list[int]) -> None:
        self.items = items
        self.batches: list[list[int]] = []

    def __call__(self, indices: list[int]) -> np.ndarray:
        self.batches.append([self.items[i] for i in indices])
        return np.stack([vector_of(self.items[i]) for i in indices])

    @property
    def n_encoded(self) -> int:
        return sum(map(len, self.batches))


ITEMS = list(range(100, 125))
EXPECTED = np.stack([vector_of(item) for item in ITEMS])


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "BATCH_ROWS", 10)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "store.sqlite"


def vectors(path: Path, items: list[int] = ITEMS, encoder: Encoder | None = None, **options: object) -> np.ndarray:
    return Store(path, WIDTH).vectors([key_of(i) for i in items], encoder or Encoder(items), **options)  # type: ignore[arg-type]


# Vectors of any items.


def test_vectors_are_computed_once_and_mapped_read_only(path: Path) -> None:
    first, second = Encoder(ITEMS), Encoder(ITEMS)
    for encoder in (first, second):
        found = vectors(path, encoder=encoder)
        np.testing.assert_array_equal(found, EXPECTED)
        assert isinstance(found, np.memmap) and found.dtype == np.float32 and not found.flags.writeable
    assert first.n_encoded == 25 and second.n_encoded == 0
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]  # no lock, journal or temporary file


def test_only_new_items_are_encoded_in_their_order_each_once(path: Path) -> None:
    vectors(path)
    items = [7, *ITEMS[5:], 3, 7, *ITEMS[:5], 3, 9]
    encoder = Encoder(items)
    np.testing.assert_array_equal(vectors(path, items, encoder), np.stack([vector_of(i) for i in items]))
    assert encoder.batches == [[7, 3, 9]]


@settings(max_examples=30)
@given(st.lists(st.lists(st.integers(0, 30), max_size=30), min_size=1, max_size=4))
def test_any_sequence_of_requests_computes_each_item_once(lists: list[list[int]]) -> None:
    path = store_folder() / f"{time.time_ns()}.sqlite"
    encoded: list[int] = []
    for items in lists:
        encoder = Encoder(items)
        found = vectors(path, items, encoder)
        assert found.shape == (len(items), WIDTH)
        for item, vector in zip(items, found, strict=True):
            np.testing.assert_array_equal(vector, vector_of(item))
        assert all(len(batch) <= store_module.BATCH_ROWS for batch in encoder.batches)
        encoded += [item for batch in encoder.batches for item in batch]
    assert sorted(encoded) == sorted({item for items in lists for item in items})


def test_progress_counts_up_to_all_items(path: Path) -> None:
    seen: list[int] = []
    vectors(path, ITEMS[:3], progress=seen.append)
    vectors(path, progress=seen.append)
    assert seen == [0, 3, 3, 13, 23, 25]
    vectors(path, progress=seen.append)
    assert len(seen) == 6  # nothing was missing


def flip(path: Path, place: int, bit: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[place] ^= 1 << bit
    path.write_bytes(raw)


@pytest.mark.parametrize("seed", range(50))
def test_one_flipped_bit_never_gives_another_vector(path: Path, seed: int) -> None:
    vectors(path)
    rng = np.random.default_rng(seed)
    # Every other flip lies in the headers, where SQLite keeps what matters most.
    flip(path, int(rng.integers(512 if seed % 2 else path.stat().st_size)), int(rng.integers(8)))
    for _ in range(2):
        np.testing.assert_array_equal(vectors(path), EXPECTED)


def test_damaged_rows_alone_are_computed_again(path: Path) -> None:
    vectors(path)
    with sqlite3.connect(path) as connection:
        value = EXPECTED[3].tobytes()
        update = "UPDATE vectors SET value = ? WHERE key = ?"
        connection.execute(update, (bytes([value[0] ^ 1]) + value[1:], key_of(ITEMS[3])))
        connection.execute(update, (value[:-4], key_of(ITEMS[4])))
        connection.execute(update, (EXPECTED[6].tobytes(), key_of(ITEMS[5])))
        connection.execute(update, ("text", key_of(ITEMS[7])))
        connection.execute("UPDATE vectors SET sum = 1.5 WHERE key = ?", (key_of(ITEMS[8]),))
    connection.close()
    assert inspect_store(path, check=True) == (25, "5 damaged rows")
    encoder = Encoder(ITEMS)
    np.testing.assert_array_equal(vectors(path, encoder=encoder), EXPECTED)
    assert encoder.batches == [[ITEMS[i] for i in (3, 4, 5, 7, 8)]]
    assert inspect_store(path, check=True) == (25, "")


@pytest.mark.parametrize("damage", ["garbage", "truncated", "empty", "another table"])
def test_damaged_store_is_deleted_and_filled_anew(path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    vectors(path)
    if damage == "garbage":
        path.write_bytes(b"no database at all" * 300)
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE vectors (something TEXT)")
        connection.close()
    store = Store(path, WIDTH)
    np.testing.assert_array_equal(store.vectors([key_of(i) for i in ITEMS], Encoder(ITEMS)), EXPECTED)
    expected = [] if damage == "empty" else [f"{path} was damaged, so it was deleted and is filled anew"]
    assert caplog.messages == expected
    encoder = Encoder(ITEMS)
    np.testing.assert_array_equal(vectors(path, encoder=encoder), EXPECTED)
    assert encoder.n_encoded == 0  # the new store works


def test_store_that_is_damaged_while_it_is_filled_is_filled_anew(path: Path) -> None:
    class Damaging(Encoder):
        def __call__(self, indices: list[int]) -> np.ndarray:
            if len(self.batches) == 2:
                path.write_bytes(b"no database at all" * 300)
            return super().__call__(indices)

    encoder = Damaging(ITEMS)
    np.testing.assert_array_equal(vectors(path, encoder=encoder), EXPECTED)
    assert [len(batch) for batch in encoder.batches] == [10, 10, 5, 10, 10]


class Interrupted(Encoder):
    """Is interrupted in its third batch."""

    def __call__(self, indices: list[int]) -> np.ndarray:
        if len(self.batches) == 2:
            raise KeyboardInterrupt
        return super().__call__(indices)


def test_interrupted_computation_continues_where_it_stopped(path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        vectors(path, encoder=Interrupted(ITEMS))
    rest = Encoder(ITEMS)
    np.testing.assert_array_equal(vectors(path, encoder=rest), EXPECTED)
    assert rest.batches == [ITEMS[20:]]


KILLED_SCRIPT = textwrap.dedent(
    """
    import os, signal, sys
    from pathlib import Path
    import numpy as np
    from textcap import store
    store.BATCH_ROWS = 10
    n_batches = int(sys.argv[2])
    def encode(indices):
        global n_batches
        if not n_batches:
            os.kill(os.getpid(), signal.SIGKILL)
        n_batches -= 1
        return np.stack([np.random.default_rng(i + 100).normal(size=8).astype(np.float32) for i in indices])
    store.Store(Path(sys.argv[1]), 8).vectors([(i + 100).to_bytes(32, "big") for i in range(25)], encode)
    """
)


@pytest.mark.parametrize("n_batches", [0, 2])
def test_killed_computation_repeats_at_most_one_batch(path: Path, n_batches: int) -> None:
    command = [sys.executable, "-c", KILLED_SCRIPT, str(path), str(n_batches)]
    assert subprocess.run(command, timeout=120).returncode == -signal.SIGKILL
    rest = Encoder(ITEMS)
    np.testing.assert_array_equal(vectors(path, encoder=rest), EXPECTED)
    assert rest.n_encoded == 25 - 10 * n_batches
    # A lock that a killed process left holds nobody up; only its empty file may stay.
    assert {entry.suffix for entry in path.parent.iterdir()} <= {".sqlite", ".lock"}


def test_two_threads_at_once_compute_only_once(path: Path) -> None:
    encoders = [Encoder(ITEMS), Encoder(ITEMS)]
    results: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda e=e: results.append(vectors(path, encoder=e))) for e in encoders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert sorted(encoder.n_encoded for encoder in encoders) == [0, 25]
    for result in results:
        np.testing.assert_array_equal(result, EXPECTED)


def test_unwritable_store_costs_one_warning_and_a_temporary_store(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("not a folder")
    store = Store(tmp_path / "file" / "store.sqlite", WIDTH)
    for items, n_new in ((ITEMS, 25), (ITEMS[::-1], 0), ([*ITEMS, 7], 1)):
        encoder = Encoder(items)
        found = store.vectors([key_of(i) for i in items], encoder)
        assert isinstance(found, np.memmap) and encoder.n_encoded == n_new
        np.testing.assert_array_equal(found, np.stack([vector_of(i) for i in items]))
    (warning,) = caplog.messages
    assert warning.startswith(f"nothing can be kept in {tmp_path / 'file'}: ")


def test_store_that_another_process_holds_is_replaced_by_a_temporary_one(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    vectors(path, ITEMS[:20])
    monkeypatch.setattr(store_module, "_WAIT_S", 0.1)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")  # others may read, but not write
    store, encoder = Store(path, WIDTH), Encoder(ITEMS)
    np.testing.assert_array_equal(store.vectors([key_of(i) for i in ITEMS], encoder), EXPECTED)
    connection.close()
    assert encoder.batches == [ITEMS[20:]]
    assert caplog.messages == [f"nothing can be kept in {path.parent}: database is locked"]


@pytest.mark.skipif(os.geteuid() == 0 if hasattr(os, "geteuid") else True, reason="root can write to any folder")
def test_complete_store_is_used_though_read_only(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    vectors(path)
    path.chmod(0o400)
    path.parent.chmod(0o500)
    store, encoder = Store(path, WIDTH), Encoder(ITEMS)
    try:
        np.testing.assert_array_equal(store.vectors([key_of(i) for i in ITEMS], encoder), EXPECTED)
        assert not caplog.messages and encoder.n_encoded == 0
    finally:
        path.parent.chmod(0o700)


def test_full_disk_is_an_input_error_with_a_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(InputError, match="No space left on device .set TEXTCAP_CACHE to a folder with free space"):
        vectors(tmp_path / "store.sqlite")


def test_stores_differ_by_kind_backbone_width_and_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEXTCAP_CACHE", str(tmp_path))
    stores = [
        Store.of("text", "a/../b\n", "1" * 64, 8),
        Store.of("audio", "a/../b\n", "1" * 64, 8),
        Store.of("text", "a/../b\n", "2" * 64, 8),
        Store.of("text", "a/../b\n", "1" * 64, 9),
        Store.of("text", "a/../b\n", "1" * 64, 8, "other rules"),
    ]
    assert len({store.path for store in stores}) == 5
    for store in stores:
        assert store.path.parent == tmp_path / "embeddings"
        assert re.fullmatch(r"(text|audio)-b_-[0-9a-f]{24}\.sqlite", store.path.name)


def test_use_of_a_store_shows_in_its_time(path: Path) -> None:
    vectors(path)
    os.utime(path, (0, 0))
    vectors(path)
    assert time.time() - path.stat().st_mtime < 100


def test_deleted_store_leaves_nothing(path: Path) -> None:
    vectors(path)
    Path(f"{path}-journal").touch()
    delete_store(path)
    assert list(path.parent.iterdir()) == []


# Captions.


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The captions that a text encoder embeds during the test."""
    encoded: list[str] = []
    encode = MsclapTextEncoder.encode

    def counting(self: MsclapTextEncoder, captions: list[str], **options: int) -> torch.Tensor:
        encoded.extend(captions)
        return encode(self, captions, **options)

    monkeypatch.setattr(MsclapTextEncoder, "encode", counting)
    return encoded


def test_captions_are_embedded_once_whatever_list_they_are_in(backbone: Backbone, encoded: list[str]) -> None:
    captions = tiny_random.tiny_captions(30)
    first = embed_captions(captions[:20], backbone, CPU)
    expected = backbone.text_encoder().encode(captions).numpy()
    del encoded[:]
    more = embed_captions([*captions[25:], *captions[:25]], backbone, CPU)
    assert encoded == captions[25:] + captions[20:25]
    np.testing.assert_array_equal(more[5:25], first)
    np.testing.assert_allclose(more, np.roll(expected, 5, axis=0), atol=1e-6)
    del encoded[:]
    found = embed_inputs([], [captions[3], captions[0]], backbone, CPU)
    assert encoded == []
    np.testing.assert_array_equal(found.vectors, first[[3, 0]])


def test_other_weights_do_not_share_a_store(backbone: Backbone, encoded: list[str], tmp_path: Path) -> None:
    captions = tiny_random.tiny_captions(3)
    embed_captions(captions, backbone, CPU)
    other = Backbone.load(str(tiny_random.write_tiny_backbone(tmp_path / "other", seed=1)))
    assert not np.allclose(embed_captions(captions, other, CPU), embed_captions(captions, backbone, CPU))
    assert len(encoded) == 6 and len(list(store_folder().glob("*.sqlite"))) == 2


def test_damaged_text_encoder_is_named(backbone_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MsclapTextEncoder, "encode", lambda self, captions: torch.full((len(captions), 24), torch.nan))
    with pytest.raises(CheckpointError, match="the text encoder of .* gives embeddings that are NaN or infinite"):
        embed_captions(["a dog barks"], Backbone.load(str(backbone_folder)), CPU)


# Sounds.


def write_sounds(folder: Path, n: int, seed: int = 0) -> list[Path]:
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    paths = [folder / f"{i:04d}.wav" for i in range(n)]
    for i, path in enumerate(paths):
        soundfile.write(path, rng.normal(size=400 + 3000 * (i % 5)) * 0.1, RATE_HZ)
    return paths


@pytest.fixture
def sounds(tmp_path: Path) -> list[Path]:
    return write_sounds(tmp_path / "sounds", 7)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Choose the cache folder by a name."""

    def choose(name: str) -> None:
        monkeypatch.setenv("TEXTCAP_CACHE", str(tmp_path / name))

    choose("cache")
    return choose


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of windows of each batch that an audio encoder embeds during the test."""
    counts: list[int] = []
    forward = MsclapAudioEncoder.forward

    def counting(self: MsclapAudioEncoder, samples: torch.Tensor) -> torch.Tensor:
        counts.append(len(samples))
        return forward(self, samples)

    monkeypatch.setattr(MsclapAudioEncoder, "forward", counting)
    return counts


def embed(backbone: Backbone, paths: list[Path], batch_size: int = 8, **options: object) -> np.ndarray:
    """Return the embeddings of sounds, all of which can be read."""
    return np.stack([r.embedding for r in results(backbone, paths, batch_size, **options)])  # type: ignore[union-attr]


def results(
    backbone: Backbone, paths: list[Path], batch_size: int = 8, **options: object
) -> list[Recording | InputError]:
    return RecordingEmbedder(backbone, CPU).embed(paths, batch_size=batch_size, **options)  # type: ignore[arg-type]


def n_windows(backbone: Backbone, paths: list[Path]) -> int:
    return sum(1 for path in paths for _ in read_windows(path, backbone.config.clap.audio))


def make_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let time pass: files that were just written count as settled."""
    now = time.time
    monkeypatch.setattr("textcap.files.time.time", lambda: now() + 10)


def test_embeddings_are_the_mean_over_the_windows(backbone: Backbone, sounds: list[Path]) -> None:
    found = embed(backbone, sounds)
    encoder, config = backbone.audio_encoder(), backbone.config.clap.audio
    for row, path in zip(found, sounds, strict=True):
        cut = torch.stack([torch.from_numpy(window.samples) for window in read_windows(path, config)])
        mean = encoder(cut).mean(dim=0)
        np.testing.assert_allclose(row, torch.nn.functional.normalize(mean, dim=0).numpy(), atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_embeddings_depend_neither_on_batch_size_nor_on_order(
    backbone: Backbone, sounds: list[Path], cache: Callable[[str], None], batch_size: int
) -> None:
    plain = embed(backbone, sounds)
    cache("other")
    np.testing.assert_allclose(embed(backbone, sounds[::-1], batch_size)[::-1], plain, atol=1e-6)


def test_a_hit_gives_the_same_result_as_a_miss(backbone: Backbone, sounds: list[Path], windows: list[int]) -> None:
    first = results(backbone, sounds[:5])
    del windows[:]
    more = results(backbone, sounds)
    assert sum(windows) == n_windows(backbone, sounds[5:])
    for one, again in zip(first, more, strict=False):
        assert isinstance(one, Recording) and isinstance(again, Recording)
        np.testing.assert_array_equal(one.embedding, again.embedding)
        assert one.duration_s == again.duration_s > 0


def test_copies_share_an_embedding_and_changed_files_get_a_new_one(
    backbone: Backbone, sounds: list[Path], windows: list[int]
) -> None:
    copy = sounds[0].with_name("copy.wav")
    copy.write_bytes(sounds[0].read_bytes())
    both = embed(backbone, [sounds[0], copy])
    assert sum(windows) == n_windows(backbone, [copy])
    np.testing.assert_array_equal(both[0], both[1])
    soundfile.write(copy, soundfile.read(sounds[0])[0][::-1], RATE_HZ)  # the same name and size
    assert not np.allclose(embed(backbone, [copy])[0], both[0], atol=1e-4)


@pytest.mark.parametrize("settled", [False, True], ids=["recent", "settled"])
@pytest.mark.parametrize("replace", [False, True], ids=["in place", "by another file"])
def test_sounds_replaced_at_the_same_size_and_time_get_new_vectors(
    backbone: Backbone, sounds: list[Path], monkeypatch: pytest.MonkeyPatch, settled: bool, replace: bool
) -> None:
    if settled:
        make_settled(monkeypatch)
    before = embed(backbone, sounds)
    for path in sounds:
        status = path.stat()
        new = path.with_suffix(".new") if replace else path
        soundfile.write(new, soundfile.read(path)[0][::-1], RATE_HZ, format="WAV")
        os.utime(new, ns=(status.st_atime_ns, status.st_mtime_ns))
        new.rename(path)
        assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    after = embed(backbone, sounds)
    assert np.abs(after - before).max(axis=1).min() > 1e-4


def test_unchanged_files_are_not_read_again(
    backbone: Backbone, sounds: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_settled(monkeypatch)
    odd = sounds[0].rename(sounds[0].with_name(os.fsdecode(b"caf\xe9\n\xc3\xa9.wav")))
    first = embed(backbone, [odd, *sounds[1:]])
    monkeypatch.setattr(store_module, "sha256_of_file", lambda path: pytest.fail(f"read {path}"))
    np.testing.assert_array_equal(embed(backbone, [odd, *sounds[1:]]), first)


def test_recent_files_are_hashed_again(backbone: Backbone, sounds: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    embed(backbone, sounds)
    hashed: list[Path] = []
    sha256_of_file = store_module.sha256_of_file
    monkeypatch.setattr(store_module, "sha256_of_file", lambda path: hashed.append(path) or sha256_of_file(path))
    embed(backbone, sounds)
    assert hashed == sounds


def test_file_that_changes_while_it_is_read_is_not_kept(
    backbone: Backbone, sounds: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, before = MsclapAudioEncoder.forward, sounds[0].read_bytes()

    def changing(self: MsclapAudioEncoder, samples: torch.Tensor) -> torch.Tensor:
        sounds[0].write_bytes(sounds[1].read_bytes())
        return forward(self, samples)

    with monkeypatch.context() as patch:
        patch.setattr(MsclapAudioEncoder, "forward", changing)
        embed(backbone, sounds[:1])
    sounds[0].write_bytes(before)
    expected = embed(backbone, sounds[:1])
    assert inspect_store(*store_folder().glob("audio-*.sqlite"))[0] == 1
    np.testing.assert_array_equal(embed(backbone, sounds[:1]), expected)


def test_unreadable_files_do_not_stop_the_others(backbone: Backbone, sounds: list[Path]) -> None:
    missing, text, nan = (sounds[0].with_name(name) for name in ("gone.wav", "text.wav", "nan.wav"))
    text.write_text("no sound", encoding="utf-8")
    soundfile.write(nan, np.full(RATE_HZ, np.nan, np.float32), RATE_HZ, subtype="FLOAT")
    other_text = text.with_name("other.wav")
    other_text.write_text("no sound", encoding="utf-8")
    paths = [missing, sounds[0], text, nan, other_text, sounds[0].parent, sounds[1], Path("nul\0.wav")]
    for _ in range(2):  # the second time with a store, which must not contain them
        found = results(backbone, paths)
        assert [isinstance(result, Recording) for result in found] == [
            False,
            True,
            False,
            False,
            False,
            False,
            True,
            False,
        ]
        messages = [str(result) for result in found if isinstance(result, InputError)]
        assert messages[0] == f"{missing} does not exist"
        assert messages[1].startswith(f"{text} cannot be read as sound")
        assert "nan.wav contains NaN or infinite samples" in messages[2]
        assert messages[3].startswith(f"{other_text} cannot be read as sound")
        assert messages[4].startswith(f"{sounds[0].parent} is a folder")
        assert "is not a valid file name" in messages[5]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes")
def test_pipe_is_read_once_and_not_kept(backbone: Backbone, sounds: list[Path]) -> None:
    pipe = sounds[0].with_name("pipe")
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(sounds[0].read_bytes()))
    writer.start()
    piped = embed(backbone, [pipe])
    writer.join(timeout=60)
    np.testing.assert_allclose(piped, embed(backbone, sounds[:1]), atol=1e-6)


def test_embedding_that_is_not_finite_is_an_error_and_not_kept(
    backbone: Backbone, sounds: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(MsclapAudioEncoder, "forward", lambda self, samples: torch.full((len(samples), 24), torch.nan))
        for path, result in zip(sounds, results(backbone, sounds), strict=True):
            assert isinstance(result, FileError)
            assert str(result).startswith(f"{path} has an embedding that is NaN or infinite")
    assert np.isfinite(embed(backbone, sounds)).all()


def test_unwritable_cache_folder_is_a_warning_of_each_use(
    backbone: Backbone,
    sounds: list[Path],
    tmp_path: Path,
    cache: Callable[[str], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "file").touch()
    cache("file/cache")
    rows = "\n".join(f"{sound.name},a dog" for sound in sounds)
    (sounds[0].parent / "pairs.csv").write_text(f"file,caption\n{rows}\n", encoding="utf-8")
    pairs = read_pairs(sounds[0].parent / "pairs.csv")
    for use in (
        lambda: embed_pairs(pairs, backbone, CPU),
        lambda: embed_inputs(sounds, ["a dog barks"], backbone, CPU),  # with two stores
        lambda: embed_captions(["a dog barks"], backbone, CPU),
        lambda: list(captioner_of(backbone).caption(sounds, batch_size=2)),
    ):
        store_module._warn_unwritable.cache_clear()  # a process says it once
        caplog.clear()
        use()
        (warning,) = caplog.messages
        assert warning.startswith(f"nothing can be kept in {store_folder()}: ")


def test_progress_counts_up_to_all_files(backbone: Backbone, sounds: list[Path]) -> None:
    seen: list[tuple[int, int]] = []
    embed(backbone, sounds, 3, progress=lambda *done: seen.append(done))
    assert seen == [(0, 7), (3, 7), (6, 7), (7, 7)]
    seen.clear()
    embed(backbone, sounds, progress=lambda *done: seen.append(done))
    assert seen == [(7, 7)]


# Killed runs over sounds, and several processes at once.

CHILD_SCRIPT = """
import logging, os, signal, sys
sys.path.insert(0, sys.argv[1])
import test_store as t
backbone = t.Backbone.load(sys.argv[2])
paths = sorted(t.Path(sys.argv[3]).glob("*.wav"))
stop = int(sys.argv[4])
def progress(n_done, n_total):
    if stop and n_done >= stop:
        os.kill(os.getpid(), signal.SIGKILL)
records = []
logging.getLogger("textcap").addFilter(records.append)
embedder = t.RecordingEmbedder(backbone, t.CPU)
print(len(embedder.embed(paths, batch_size=8, progress=progress)), len(records))
"""


def start_child(backbone_folder: Path, sounds: Path, stop: int) -> "subprocess.Popen[str]":
    where = [str(Path(__file__).parent), str(backbone_folder), str(sounds), str(stop)]
    return subprocess.Popen([sys.executable, "-c", CHILD_SCRIPT, *where], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize(("n_files", "stop"), [(60, 32), pytest.param(2000, 1000, marks=pytest.mark.slow)])
def test_killed_run_loses_at_most_a_batch(
    backbone_folder: Path,
    tmp_path: Path,
    windows: list[int],
    cache: Callable[[str], None],
    n_files: int,
    stop: int,
) -> None:
    paths = write_sounds(tmp_path / "sounds", n_files)
    killed = start_child(backbone_folder, tmp_path / "sounds", stop)
    assert killed.wait(500) == -signal.SIGKILL
    assert killed.stdout is not None
    killed.stdout.close()
    backbone = Backbone.load(str(backbone_folder))
    found = embed(backbone, paths)
    assert sum(windows) <= n_windows(backbone, paths[stop - 8 :])
    cache("other")
    np.testing.assert_allclose(found, embed(backbone, paths), atol=1e-6)


@pytest.mark.long
def test_two_processes_can_use_a_store_at_once(
    backbone_folder: Path, backbone: Backbone, tmp_path: Path, windows: list[int]
) -> None:
    paths = write_sounds(tmp_path / "sounds", 40)
    both = [start_child(backbone_folder, tmp_path / "sounds", 0) for _ in range(2)]
    for process in both:
        assert process.communicate(timeout=300)[0] == "40 0\n"
        assert process.returncode == 0
    assert len(embed(backbone, paths)) == 40
    assert windows == []


# Pairs.


@pytest.fixture
def pairs_file(sounds: list[Path]) -> Iterator[Path]:
    path = sounds[0].parent / "pairs.csv"
    rows = [f"{sound.name},first of {i},second of {i}" for i, sound in enumerate(sounds)]
    path.write_text("\n".join(["file,caption_1,caption_2", *rows, "gone.wav,x,y"]) + "\n", encoding="utf-8")
    yield path


def test_pairs_are_embedded_on_both_sides(backbone: Backbone, pairs_file: Path, sounds: list[Path]) -> None:
    sounds[3].write_bytes(b"broken")
    embedded = embed_pairs(read_pairs(pairs_file), backbone, CPU)
    assert [pair.audio for pair in embedded.pairs] == [*sounds[:3], *sounds[4:]]
    assert [skipped.name for skipped in embedded.source.skipped] == ["gone.wav", str(sounds[3])]
    assert embedded.owners.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert embedded.captions[6:8] == ["first of 4", "second of 4"]
    assert embedded.source.file.n_captions == 12
    np.testing.assert_array_equal(embedded.audio, embed(backbone, [*sounds[:3], *sounds[4:]]))
    text = embed_captions(embedded.captions, backbone, CPU)
    np.testing.assert_allclose(text, backbone.text_encoder().encode(embedded.captions).numpy(), atol=1e-6)


def test_one_caption_of_each_pair_is_drawn(pairs_file: Path) -> None:
    pairs = read_pairs(pairs_file)
    one = one_caption_each(pairs, seed=0)
    for whole, drawn in zip(pairs.pairs, one.pairs, strict=True):
        assert len(drawn.captions) == 1 and drawn.captions[0] in whole.captions and drawn.audio == whole.audio
    assert one == one_caption_each(pairs, seed=0)
    assert any(one_caption_each(pairs, seed=seed) != one for seed in range(1, 5))


def test_too_few_pairs_name_both_counts_and_the_reason(backbone: Backbone, pairs_file: Path) -> None:
    message = r"has 7 pairs with a readable sound file, but must have at least 8: .*gone\.wav does not exist"
    with pytest.raises(InputError, match=message):
        embed_pairs(read_pairs(pairs_file), backbone, CPU, min_pairs=8)


def test_silent_sounds_are_left_out_of_pairs_with_a_count(
    backbone: Backbone, pairs_file: Path, sounds: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    soundfile.write(sounds[3], np.zeros(RATE_HZ), RATE_HZ)
    sounds[6].write_bytes(sounds[6].read_bytes()[:-2000])
    embedded = embed_pairs(read_pairs(pairs_file), backbone, CPU)
    assert [pair.audio for pair in embedded.pairs] == [*sounds[:3], *sounds[4:]]
    assert [skipped.reason for skipped in embedded.source.skipped][1:] == [f"{sounds[3]} is silent"]
    assert "left out 1 silent sound" in caplog.messages
    [note] = [message for message in caplog.messages if message.startswith(str(sounds[6]))]
    assert note.startswith(f"{sounds[6]} ends early: ")


def test_silent_sounds_are_left_out_of_exports(
    backbone: Backbone, sounds: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    soundfile.write(sounds[1], np.zeros(RATE_HZ), RATE_HZ)
    for _ in range(2):  # without and with a store
        caplog.clear()
        found = embed_inputs(sounds[:3], [], backbone, CPU)
        assert (found.names, found.silent) == ((str(sounds[0]), str(sounds[2])), (str(sounds[1]),))
        assert len(found.vectors) == 2 and not found.errors
        assert caplog.messages == ["left out 1 silent sound"]


# What is known of a recording, and the thread that reads.


def test_silence_and_notes_are_kept_with_the_embedding(backbone: Backbone, sounds: list[Path]) -> None:
    soundfile.write(sounds[0], np.zeros(RATE_HZ), RATE_HZ)
    sounds[1].write_bytes(sounds[1].read_bytes()[:-1000])
    first, again = (results(backbone, sounds[:3]) for _ in range(2))
    for found in (first, again):
        assert [r.is_silent for r in found if isinstance(r, Recording)] == [True, False, False]
        notes = [r.notes for r in found if isinstance(r, Recording)]
        assert notes[0] == notes[2] == ()
        assert notes[1][0].startswith("ends early: ")
    assert all(np.isfinite(r.embedding).all() for r in first if isinstance(r, Recording))


def test_open_files_and_samples_are_embedded_as_files_are(backbone: Backbone, sounds: list[Path]) -> None:
    samples, rate_hz = soundfile.read(sounds[1])
    expected = embed(backbone, sounds[:2])
    with sounds[0].open("rb") as file:
        sources = [file, Sound(samples, rate_hz), str(sounds[0]), Sound(samples[:10], rate_hz)]
        found = RecordingEmbedder(backbone, CPU).embed(sources)
    vectors = np.stack([r.embedding for r in found if isinstance(r, Recording)])
    np.testing.assert_allclose(vectors, expected[[0, 1, 0]], atol=1e-6)
    assert str(found[3]).startswith("samples has only ")


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_windows_are_embedded_one_by_one(backbone: Backbone, tmp_path: Path, batch_size: int) -> None:
    audio = backbone.config.clap.audio
    n = round(2.6 * audio.window_s * RATE_HZ)
    noise = np.random.default_rng(0).normal(size=n) * 0.1
    noise[: round(1.2 * audio.window_s * RATE_HZ)] = 0
    soundfile.write(tmp_path / "a.wav", noise, RATE_HZ)
    embedder = RecordingEmbedder(backbone, CPU)
    found = embedder.windows(tmp_path / "a.wav", batch_size=batch_size)
    cut = list(read_windows(tmp_path / "a.wav", dataclasses.replace(audio, hop_s=audio.window_s / 2)))
    expected = embedder.encoder(torch.stack([torch.from_numpy(window.samples) for window in cut])).detach().numpy()
    np.testing.assert_allclose(found.vectors, expected, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-6)
    starts = audio.window_s * np.array([0, 0.5, 1, 1.5, 1.6])
    np.testing.assert_allclose(found.starts_s, starts, atol=1e-2)
    np.testing.assert_allclose(found.ends_s, starts + audio.window_s, atol=1e-2)
    assert found.is_silent.tolist() == [True, False, False, False, False]
    assert found.duration_s == pytest.approx(2.6 * audio.window_s, abs=1e-2)
    assert len(embedder.windows(tmp_path / "a.wav", hop_s=audio.window_s).vectors) == 3
    for source, hop_s, message in (("gone.wav", None, "gone.wav does not exist"), (tmp_path / "a.wav", 1e9, "hop_s")):
        with pytest.raises(InputError, match=message):
            embedder.windows(source, hop_s=hop_s)


def reading_threads() -> int:
    return sum(thread.name == "textcap-reader" for thread in threading.enumerate())


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_reading_thread_ends_with_an_error_of_the_model(
    backbone: Backbone, sounds: list[Path], monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def failing(self: MsclapAudioEncoder, samples: torch.Tensor) -> torch.Tensor:
        assert reading_threads() == 1
        raise error

    monkeypatch.setattr(MsclapAudioEncoder, "forward", failing)
    long = Sound(np.random.default_rng(0).normal(size=600 * RATE_HZ) * 0.1, RATE_HZ)
    begun = time.monotonic()
    for use in (lambda e: e.embed([long, *sounds], batch_size=2), lambda e: e.windows(long, batch_size=2)):
        with pytest.raises(error):
            use(RecordingEmbedder(backbone, CPU))
        assert reading_threads() == 0
    assert time.monotonic() - begun < 10


def test_error_of_the_reading_thread_is_raised(backbone: Backbone, sounds: list[Path]) -> None:
    with pytest.raises(ValueError, match="samples must be floating point"):
        RecordingEmbedder(backbone, CPU).embed([*sounds, Sound(np.zeros(100, np.int16), RATE_HZ)])  # type: ignore
    assert reading_threads() == 0


def test_results_do_not_depend_on_which_side_is_slow(
    backbone: Backbone, sounds: list[Path], monkeypatch: pytest.MonkeyPatch, cache: Callable[[str], None]
) -> None:
    forward, n_read = MsclapAudioEncoder.forward, 0
    batches: list[list[torch.Tensor]] = []

    def reading(source: object, config: object, note: object) -> Iterator[object]:
        nonlocal n_read
        for window in read_windows(source, config, note=note):  # type: ignore[arg-type]
            time.sleep(read_s)
            n_read += 1
            yield window

    def embedding(self: MsclapAudioEncoder, samples: torch.Tensor) -> torch.Tensor:
        time.sleep(embed_s)
        batches[-1].append(samples)
        assert n_read <= sum(map(len, batches[-1])) + 3 + 2  # the queue, what waits for a place, and the next
        return forward(self, samples)

    monkeypatch.setattr("textcap.embedding.recordings.read_windows", reading)
    monkeypatch.setattr(MsclapAudioEncoder, "forward", embedding)
    vectors = []
    for delays_s in ((0.0, 0.02), (0.01, 0.0)):
        read_s, embed_s = delays_s
        n_read = 0
        batches.append([])
        cache(f"{read_s}")
        vectors.append(embed(backbone, sounds, batch_size=3))
    for one, other in zip(*batches, strict=True):
        assert torch.equal(one, other)
    np.testing.assert_array_equal(*vectors)


# Captions of sounds.


def captioner_of(backbone: Backbone) -> Captioner:
    mapper = new_mapper(backbone.config.mapper, 0)
    return Captioner(backbone, mapper, Bridge(BridgeConfig(0.0)), backbone.tokenizer.end_id, CPU)


def test_captions_of_stored_embeddings_equal_those_of_files(
    backbone: Backbone, sounds: list[Path], windows: list[int]
) -> None:
    captioner = captioner_of(backbone)
    by_file = list(captioner.caption(sounds, batch_size=3))
    assert sum(windows) == n_windows(backbone, sounds)
    del windows[:]
    assert list(captioner.caption(sounds, batch_size=3)) == by_file  # to the last bit, with scores and durations
    found = [several[0] for several in captioner.candidates(torch.from_numpy(embed(backbone, sounds)))]
    assert [result.caption for result in found] == [result.caption for result in by_file]
    assert windows == []
