"""The cache of audio embeddings: equal to the captioner's, computed once, verified, and shared by processes."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import tiny_random
from textcap.audio.windows import read_windows
from textcap.captioner import Captioner
from textcap.config import BridgeConfig
from textcap.data.pairs import read_pairs
from textcap.embedding.pairs import embed_pair_captions, embed_pairs, one_caption_per_pair
from textcap.embedding.store.audio import AudioEmbeddings, embed_audio_files
from textcap.errors import InputError
from textcap.gap.bridge import Bridge
from textcap.models.backbone import Backbone
from textcap.training.loop import new_mapper

RATE_HZ = 8000


@pytest.fixture(scope="module")
def backbone_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_random.write_tiny_backbone(tmp_path_factory.mktemp("backbone"))


@pytest.fixture(scope="module")
def backbone(backbone_folder: Path) -> Backbone:
    return Backbone.load(str(backbone_folder))


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


class CountingEncoder:
    """An encoder that counts how often it is loaded and how many windows it embeds."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self.n_windows = self.n_loaded = 0

    def load(self) -> "CountingEncoder":
        self.n_loaded += 1
        self._encoder = self._backbone.audio_encoder()
        return self

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        self.n_windows += len(windows)
        return self._encoder(windows)


def embed(
    backbone: Backbone, paths: list[Path], encoder: CountingEncoder | None = None, **options: object
) -> AudioEmbeddings:
    encoder = encoder or CountingEncoder(backbone)
    return embed_audio_files(
        paths,
        backbone_hash=backbone.content_hash,
        audio=backbone.config.clap.audio,
        width=backbone.config.clap.embedding_width,
        load_encoder=encoder.load,
        device=torch.device("cpu"),
        **options,  # type: ignore[arg-type]
    )


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def database(cache: Path) -> Path:
    (path,) = cache.glob("*.sqlite")
    return path


def test_embeddings_are_the_mean_over_the_windows(backbone: Backbone, sounds: list[Path], cache: Path) -> None:
    found = embed(backbone, sounds, cache_folder=cache)
    encoder, config = backbone.audio_encoder(), backbone.config.clap.audio
    for row, path in zip(found.vectors, sounds, strict=True):
        windows = torch.stack([torch.from_numpy(window.samples) for window in read_windows(path, config)])
        mean = encoder(windows).mean(dim=0)
        np.testing.assert_allclose(row, torch.nn.functional.normalize(mean, dim=0).numpy(), atol=1e-6)
    assert found.readable == tuple(range(7)) and not found.errors and not found.warnings


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_embeddings_depend_neither_on_batch_size_nor_on_order(
    backbone: Backbone, sounds: list[Path], tmp_path: Path, batch_size: int
) -> None:
    plain = embed(backbone, sounds, cache_folder=tmp_path / "a").vectors
    other = embed(backbone, sounds[::-1], cache_folder=tmp_path / "b", batch_size=batch_size).vectors
    np.testing.assert_allclose(other[::-1], plain, atol=1e-6)


def test_cached_embeddings_are_not_computed_again(backbone: Backbone, sounds: list[Path], cache: Path) -> None:
    first = embed(backbone, sounds[:5], cache_folder=cache)
    encoder = CountingEncoder(backbone)
    again = embed(backbone, sounds[:5], encoder, cache_folder=cache)
    assert encoder.n_loaded == 0
    np.testing.assert_array_equal(again.vectors, first.vectors)
    more = embed(backbone, sounds, encoder, cache_folder=cache)
    n_new = sum(1 for path in sounds[5:] for _ in read_windows(path, backbone.config.clap.audio))
    assert (encoder.n_loaded, encoder.n_windows) == (1, n_new)
    np.testing.assert_array_equal(more.vectors[:5], first.vectors)


def test_copies_share_an_embedding_and_changed_files_get_a_new_one(
    backbone: Backbone, sounds: list[Path], cache: Path
) -> None:
    copy = sounds[0].with_name("copy.wav")
    copy.write_bytes(sounds[0].read_bytes())
    encoder = CountingEncoder(backbone)
    both = embed(backbone, [sounds[0], copy], encoder, cache_folder=cache)
    assert encoder.n_windows == sum(1 for _ in read_windows(copy, backbone.config.clap.audio))
    np.testing.assert_array_equal(both.vectors[0], both.vectors[1])
    # The same name and size, but other bytes and another modification time.
    long_ago = os.stat(copy).st_mtime - 1000
    os.utime(copy, (long_ago, long_ago))
    embed(backbone, [copy], cache_folder=cache)
    soundfile.write(copy, soundfile.read(sounds[0])[0][::-1], RATE_HZ)
    changed = embed(backbone, [copy], cache_folder=cache)
    assert not np.allclose(changed.vectors[0], both.vectors[0], atol=1e-4)


def test_unchanged_files_are_not_read_again(
    backbone: Backbone, sounds: list[Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in sounds:
        os.utime(path, (1e9, 1e9))
    first = embed(backbone, sounds, cache_folder=cache)
    monkeypatch.setattr("textcap.embedding.store.audio.sha256_of_file", lambda path: pytest.fail(f"read {path}"))
    np.testing.assert_array_equal(embed(backbone, sounds, cache_folder=cache).vectors, first.vectors)


def test_other_weights_do_not_share_the_cache(backbone: Backbone, sounds: list[Path], cache: Path) -> None:
    embed(backbone, sounds[:1], cache_folder=cache)
    encoder = CountingEncoder(backbone)
    embed_audio_files(
        sounds[:1],
        backbone_hash="another",
        audio=backbone.config.clap.audio,
        width=24,
        load_encoder=encoder.load,
        device=torch.device("cpu"),
        cache_folder=cache,
    )
    assert encoder.n_loaded == 1


def test_unreadable_files_do_not_stop_the_others(backbone: Backbone, sounds: list[Path], cache: Path) -> None:
    missing, text, nan = (sounds[0].with_name(name) for name in ("gone.wav", "text.wav", "nan.wav"))
    text.write_text("no sound", encoding="utf-8")
    soundfile.write(nan, np.full(RATE_HZ, np.nan, np.float32), RATE_HZ, subtype="FLOAT")
    other_text = text.with_name("other.wav")
    other_text.write_text("no sound", encoding="utf-8")
    for _ in range(2):  # the second time with a cache, which must not contain them
        found = embed(backbone, [missing, sounds[0], text, nan, other_text, sounds[1]], cache_folder=cache)
        assert found.readable == (1, 5)
        assert len(found.vectors) == 2
        messages = [str(found.errors[i]) for i in (0, 2, 3, 4)]
        assert "gone.wav" in messages[0] and "No such file" in messages[0]
        assert messages[1].startswith(f"{text} cannot be read as sound")
        assert "nan.wav contains NaN or infinite samples" in messages[2]
        assert messages[3].startswith(f"{other_text} cannot be read as sound")


def test_damaged_rows_are_computed_again(backbone: Backbone, sounds: list[Path], cache: Path) -> None:
    first = embed(backbone, sounds, cache_folder=cache)
    with sqlite3.connect(database(cache)) as connection:
        rows = connection.execute("SELECT content, vector FROM embeddings").fetchall()
        content, vector = rows[0]
        changed = bytes([vector[0] ^ 1]) + vector[1:]
        connection.execute("UPDATE embeddings SET vector = ? WHERE content = ?", (changed, content))
        connection.execute("UPDATE embeddings SET vector = ? WHERE content = ?", (rows[1][1][:-4], rows[1][0]))
    connection.close()
    encoder = CountingEncoder(backbone)
    again = embed(backbone, sounds, encoder, cache_folder=cache)
    assert encoder.n_loaded == 1
    np.testing.assert_allclose(again.vectors, first.vectors, atol=1e-6)


@pytest.mark.parametrize("damage", ["garbage", "truncated", "empty", "another table"])
def test_damaged_cache_is_deleted_and_rebuilt(backbone: Backbone, sounds: list[Path], cache: Path, damage: str) -> None:
    first = embed(backbone, sounds, cache_folder=cache)
    path = database(cache)
    if damage == "garbage":
        path.write_bytes(b"no database at all" * 300)
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE embeddings (something TEXT)")
        connection.close()
    again = embed(backbone, sounds, cache_folder=cache)
    np.testing.assert_allclose(again.vectors, first.vectors, atol=1e-6)
    assert damage == "empty" or again.warnings
    # The rebuilt cache works.
    encoder = CountingEncoder(backbone)
    assert not embed(backbone, sounds, encoder, cache_folder=cache).warnings
    assert encoder.n_loaded == 0


def test_unwritable_cache_gives_a_warning(backbone: Backbone, sounds: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = embed(backbone, sounds, cache_folder=tmp_path / "file" / "cache")
    assert len(found.vectors) == 7
    (warning,) = found.warnings
    assert warning.startswith(f"audio embeddings cannot be cached in {tmp_path / 'file' / 'cache'}")


def test_progress_counts_up_to_all_files(backbone: Backbone, sounds: list[Path], cache: Path) -> None:
    seen: list[tuple[int, int]] = []
    embed(backbone, sounds, cache_folder=cache, batch_size=3, progress=lambda *done: seen.append(done))
    assert seen == [(0, 7), (3, 7), (6, 7), (7, 7)]
    seen.clear()
    embed(backbone, sounds, cache_folder=cache, progress=lambda *done: seen.append(done))
    assert seen == [(7, 7)]


def test_no_files_give_an_empty_array(backbone: Backbone, cache: Path) -> None:
    assert embed(backbone, [], cache_folder=cache).vectors.shape == (0, 24)


# Killed runs, and several processes at once.

CHILD_SCRIPT = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import test_store_audio as t
from pathlib import Path
backbone = t.Backbone.load(sys.argv[2])
paths = sorted(Path(sys.argv[3]).glob("*.wav"))
stop = int(sys.argv[5])
def progress(n_done, n_total):
    if stop and n_done >= stop:
        os.kill(os.getpid(), signal.SIGKILL)
found = t.embed(backbone, paths, cache_folder=Path(sys.argv[4]), batch_size=8, progress=progress)
print(len(found.vectors), len(found.warnings))
"""


def start_child(backbone_folder: Path, sounds: Path, cache: Path, stop: int) -> "subprocess.Popen[str]":
    where = [str(Path(__file__).parent), str(backbone_folder), str(sounds), str(cache), str(stop)]
    return subprocess.Popen([sys.executable, "-c", CHILD_SCRIPT, *where], stdout=subprocess.PIPE, text=True)


def n_recomputed_after_kill(backbone_folder: Path, tmp_path: Path, n_files: int, stop: int) -> int:
    """Kill a run after `stop` files, run it again, and return how many of those files were computed twice."""
    paths = write_sounds(tmp_path / "sounds", n_files)
    killed = start_child(backbone_folder, tmp_path / "sounds", tmp_path / "cache", stop)
    assert killed.wait(500) == -signal.SIGKILL
    assert killed.stdout is not None
    killed.stdout.close()
    backbone = Backbone.load(str(backbone_folder))
    encoder = CountingEncoder(backbone)
    found = embed(backbone, paths, encoder, cache_folder=tmp_path / "cache")
    assert len(found.vectors) == n_files and not found.warnings
    n_windows = [sum(1 for _ in read_windows(path, backbone.config.clap.audio)) for path in paths]
    n_left = sum(n_windows[stop:])
    n_windows_twice, n_files_twice = encoder.n_windows - n_left, 0
    while n_windows_twice > 0:  # the files done last are the ones that were lost
        n_windows_twice -= n_windows[stop - 1 - n_files_twice]
        n_files_twice += 1
    uninterrupted = embed(backbone, paths, cache_folder=tmp_path / "other")
    np.testing.assert_allclose(found.vectors, uninterrupted.vectors, atol=1e-6)
    return n_files_twice


def test_killed_run_loses_at_most_a_batch(backbone_folder: Path, tmp_path: Path) -> None:
    assert n_recomputed_after_kill(backbone_folder, tmp_path, 60, 32) <= 8


@pytest.mark.slow
def test_killed_run_over_2000_files_loses_at_most_a_batch(backbone_folder: Path, tmp_path: Path) -> None:
    assert n_recomputed_after_kill(backbone_folder, tmp_path, 2000, 1000) <= 8


def test_two_processes_can_use_the_cache_at_once(backbone_folder: Path, backbone: Backbone, tmp_path: Path) -> None:
    paths = write_sounds(tmp_path / "sounds", 40)
    both = [start_child(backbone_folder, tmp_path / "sounds", tmp_path / "cache", 0) for _ in range(2)]
    for process in both:
        assert process.communicate(timeout=300)[0] == "40 0\n"
        assert process.returncode == 0
    encoder = CountingEncoder(backbone)
    assert len(embed(backbone, paths, encoder, cache_folder=tmp_path / "cache").vectors) == 40
    assert encoder.n_loaded == 0


# Pairs.


@pytest.fixture
def pairs_file(sounds: list[Path]) -> Iterator[Path]:
    path = sounds[0].parent / "pairs.csv"
    rows = [f"{sound.name},first of {i},second of {i}" for i, sound in enumerate(sounds)]
    path.write_text("\n".join(["file,caption_1,caption_2", *rows, "gone.wav,x,y"]) + "\n", encoding="utf-8")
    yield path


def test_pairs_are_embedded_on_both_sides(backbone: Backbone, pairs_file: Path, sounds: list[Path]) -> None:
    sounds[3].write_bytes(b"broken")
    embedded = embed_pairs(read_pairs(pairs_file), backbone, torch.device("cpu"))
    assert [pair.audio for pair in embedded.pairs] == [*sounds[:3], *sounds[4:]]
    assert [skipped.name for skipped in embedded.skipped] == ["gone.wav", str(sounds[3])]
    assert embedded.owners.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert embedded.captions[6:8] == ["first of 4", "second of 4"]
    assert embedded.source.file.n_captions == 12
    text = embed_pair_captions(embedded, backbone, torch.device("cpu"))
    np.testing.assert_allclose(text, backbone.text_encoder().encode(embedded.captions).numpy(), atol=1e-6)
    one = one_caption_per_pair(embedded, text, seed=0)
    for i, row in enumerate(one):
        assert any(np.array_equal(row, text[j]) for j in (2 * i, 2 * i + 1))
    assert any(not np.array_equal(one_caption_per_pair(embedded, text, seed=s), one) for s in range(1, 5))


def test_too_few_pairs_name_both_counts_and_the_reason(backbone: Backbone, pairs_file: Path) -> None:
    message = r"has 7 pairs with a readable sound file, but must have at least 8: .*gone\.wav does not exist"
    with pytest.raises(InputError, match=message):
        embed_pairs(read_pairs(pairs_file), backbone, torch.device("cpu"), min_pairs=8)


def test_captions_of_cached_embeddings_equal_those_of_files(
    backbone: Backbone, sounds: list[Path], cache: Path
) -> None:

    mapper = new_mapper(backbone.config.mapper, 0)
    bridge, end_id = Bridge(BridgeConfig(0.0)), backbone.tokenizer.end_id
    captioner = Captioner(backbone, mapper, bridge, end_id, torch.device("cpu"))
    by_file = [result.caption for result in captioner.caption(sounds)]
    vectors = torch.from_numpy(embed(backbone, sounds, cache_folder=cache).vectors)
    assert [found.caption for found in captioner.caption_embeddings(vectors)] == by_file
