"""The cache of text embeddings: computed once, continued after an interruption, and verified before use."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from textcap.embedding.store import text as store
from textcap.embedding.store.text import TextEmbeddings, embed_captions

WIDTH = 8


def vector_of(caption: str) -> np.ndarray:
    """Return a unit vector that depends only on the caption."""
    generator = torch.Generator().manual_seed(int.from_bytes(caption.encode()[-6:], "big"))
    return torch.nn.functional.normalize(torch.randn(WIDTH, generator=generator), dim=0).numpy()


class CountingEncoder:
    """An encoder that counts its calls and the captions it embeds."""

    def __init__(self) -> None:
        self.n_encoded = 0
        self.n_calls = 0

    def encode(self, captions: Sequence[str]) -> Tensor:
        self.n_encoded += len(captions)
        self.n_calls += 1
        return torch.from_numpy(np.stack([vector_of(caption) for caption in captions]))


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "CHUNK_CAPTIONS", 10)


CAPTIONS = [f"caption {i}" for i in range(25)]
EXPECTED = np.stack([vector_of(caption) for caption in CAPTIONS])


def embed(cache: Path, encoder: object, captions: Sequence[str] = CAPTIONS, **changes: str) -> TextEmbeddings:
    settings = {"content_hash": "c" * 64, "backbone_hash": "b" * 64, **changes}
    return embed_captions(captions, width=WIDTH, load_encoder=lambda: encoder, cache_folder=cache, **settings)


def only_file(cache: Path, suffix: str) -> Path:
    (path,) = cache.glob(f"*{suffix}")
    return path


def test_embeddings_are_computed_once_and_mapped_read_only(tmp_path: Path) -> None:
    first, second = CountingEncoder(), CountingEncoder()
    computed, cached = embed(tmp_path, first), embed(tmp_path, second)
    assert first.n_encoded == 25 and second.n_encoded == 0
    for found in (computed, cached):
        np.testing.assert_array_equal(found.vectors, EXPECTED)
        assert isinstance(found.vectors, np.memmap) and found.vectors.dtype == np.float32
        assert not found.vectors.flags.writeable and found.warnings == ()


def test_cache_file_is_an_ordinary_npy_file(tmp_path: Path) -> None:
    embed(tmp_path, CountingEncoder())
    np.testing.assert_array_equal(np.load(only_file(tmp_path, ".npy")), EXPECTED)


@pytest.mark.parametrize("changed", ["content_hash", "backbone_hash"])
def test_other_captions_or_weights_do_not_share_the_cache(tmp_path: Path, changed: str) -> None:
    embed(tmp_path, CountingEncoder())
    other = CountingEncoder()
    embed(tmp_path, other, **{changed: "d" * 64})
    assert other.n_encoded == 25 and len(list(tmp_path.glob("*.npy"))) == 2


def test_progress_counts_up_to_all_captions(tmp_path: Path) -> None:
    seen: list[int] = []
    embed_captions(
        CAPTIONS,
        content_hash="c",
        backbone_hash="b",
        width=WIDTH,
        load_encoder=CountingEncoder,
        cache_folder=tmp_path,
        progress=seen.append,
    )
    assert seen == [0, 10, 20, 25]


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[:-1],
        lambda raw: raw + b"\0",
        lambda raw: raw[:-3] + bytes([raw[-3] ^ 1]) + raw[-2:],
        lambda raw: raw[:20] + b"x" + raw[21:],
        lambda raw: b"",
    ],
    ids=["short", "long", "one bit", "header", "empty"],
)
def test_damaged_cache_is_computed_again(tmp_path: Path, damage) -> None:
    embed(tmp_path, CountingEncoder())
    path = only_file(tmp_path, ".npy")
    path.write_bytes(damage(path.read_bytes()))
    again = CountingEncoder()
    np.testing.assert_array_equal(embed(tmp_path, again).vectors, EXPECTED)
    assert again.n_encoded == 25


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe", b"0\n0\n0\n"])
def test_cache_with_damaged_checksums_is_computed_again(tmp_path: Path, damage: bytes) -> None:
    embed(tmp_path, CountingEncoder())
    only_file(tmp_path, ".sha256").write_bytes(damage)
    again = CountingEncoder()
    np.testing.assert_array_equal(embed(tmp_path, again).vectors, EXPECTED)
    assert again.n_encoded == 25


class InterruptedEncoder(CountingEncoder):
    """Embeds two chunks and is interrupted in the third."""

    def encode(self, captions: Sequence[str]) -> Tensor:
        if self.n_calls == 2:
            raise KeyboardInterrupt
        return super().encode(captions)


def test_interrupted_computation_continues_where_it_stopped(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        embed(tmp_path, InterruptedEncoder())
    rest = CountingEncoder()
    np.testing.assert_array_equal(embed(tmp_path, rest).vectors, EXPECTED)
    assert rest.n_encoded == 5


def test_damaged_partial_file_is_truncated_to_its_intact_chunks(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        embed(tmp_path, InterruptedEncoder())
    partial = only_file(tmp_path, ".partial")
    raw = bytearray(partial.read_bytes())
    raw[-1] ^= 255  # damages the second of two chunks
    partial.write_bytes(bytes(raw) + b"trailing bytes")
    rest = CountingEncoder()
    np.testing.assert_array_equal(embed(tmp_path, rest).vectors, EXPECTED)
    assert rest.n_encoded == 15


def test_killed_computation_repeats_at_most_one_chunk(tmp_path: Path) -> None:
    script = textwrap.dedent(
        f"""
        import os, signal, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import test_store_text as t
        t.store.CHUNK_CAPTIONS = 10
        class Killed(t.CountingEncoder):
            def encode(self, captions):
                if self.n_calls == 1:
                    os.kill(os.getpid(), signal.SIGKILL)
                return super().encode(captions)
        t.embed(t.Path(sys.argv[1]), Killed())
        """
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], timeout=120)
    assert done.returncode == -signal.SIGKILL
    rest = CountingEncoder()
    np.testing.assert_array_equal(embed(tmp_path, rest).vectors, EXPECTED)
    assert rest.n_encoded == 15


def test_two_threads_at_once_compute_only_once(tmp_path: Path) -> None:
    encoders = [CountingEncoder(), CountingEncoder()]
    results: list[TextEmbeddings] = []
    threads = [threading.Thread(target=lambda e=e: results.append(embed(tmp_path, e))) for e in encoders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert sorted(encoder.n_encoded for encoder in encoders) == [0, 25]
    for result in results:
        np.testing.assert_array_equal(result.vectors, EXPECTED)


def test_unwritable_cache_gives_a_warning_and_a_temporary_file(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    found = embed(blocked / "cache", CountingEncoder())
    np.testing.assert_array_equal(found.vectors, EXPECTED)
    assert isinstance(found.vectors, np.memmap)
    (warning,) = found.warnings
    assert warning.startswith(f"text embeddings cannot be cached in {blocked / 'cache'}")


@pytest.mark.skipif(os.geteuid() == 0 if hasattr(os, "geteuid") else True, reason="root can write to any folder")
def test_complete_cache_is_used_though_read_only(tmp_path: Path) -> None:
    embed(tmp_path, CountingEncoder())
    tmp_path.chmod(0o500)
    again = CountingEncoder()
    try:
        assert embed(tmp_path, again).warnings == () and again.n_encoded == 0
    finally:
        tmp_path.chmod(0o700)


def test_cache_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEXTCAP_CACHE", str(tmp_path))
    assert store.default_cache_folder().parent == tmp_path
