"""Opening inputs: remote sounds are copied under limits and deleted afterwards, and every failure is one line."""

import io
import os
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from textcap.audio.inputs import Input, find_inputs
from textcap.errors import FileError, InputError
from textcap.remote import open_source
from textcap.weights.hub import Hub

CONTENT = os.urandom(100_000)
FAST = Hub(timeout_s=2.0, retries=2, first_wait_s=0.001, slow_after_s=0.4, slow_bytes_per_s=1000)


class Handler(BaseHTTPRequestHandler):
    """Serves the content at any path, with the fault that the path names."""

    seen: list[Any] = []  # of each request the path, the Authorization header and the Range header

    def log_message(self, *arguments: Any) -> None:
        return

    def do_GET(self) -> None:
        self.seen.append((self.path, self.headers.get("Authorization"), self.headers.get("Range")))
        if "/missing" in self.path:
            self.send_response(404)
            self.end_headers()
            return
        if "/moved" in self.path:
            self.send_response(302)
            self.send_header("Location", "/real.wav")
            self.end_headers()
            return
        first = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        body = CONTENT[first:]
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(body)))
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.end_headers()
        if "/drops" in self.path and not first:
            body = body[:50_000]
        if "/page" in self.path:
            body = b"<!DOCTYPE html><html>"
        try:
            for start in range(0, len(body), 10_000):
                self.wfile.write(body[start : start + (10 if "/slow" in self.path else 10_000)])
                time.sleep(0.1 if "/slow" in self.path else 0)
        except OSError:
            return


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    Handler.seen.clear()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert not list(folder.iterdir())


def found(address: str) -> Input:
    (entry,) = find_inputs([address]).entries
    assert isinstance(entry, Input), entry
    return entry


def content(address: str, **settings: Any) -> bytes:
    with open_source(found(address), hub=FAST, **settings) as source:
        assert isinstance(source, str)
        return Path(source).read_bytes()


def error(address: str, **settings: Any) -> str:
    with pytest.raises(FileError) as caught:
        content(address, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_file_is_opened_by_its_name_and_stdin_as_a_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.wav"
    path.touch()
    with open_source(found(str(path))) as source:
        assert source == str(path)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"RIFF")))
    with open_source(found("-")) as source:
        assert source.read() == b"RIFF"  # type: ignore[union-attr]
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match="standard input is closed"), open_source(found("-")):
        pass


def test_web_address_is_copied_with_its_ending_and_deleted(url: str) -> None:
    with open_source(found(f"{url}/a/dog.flac?v=1"), hub=FAST) as source:
        assert isinstance(source, str) and source.endswith("/sound.flac")
        assert Path(source).read_bytes() == CONTENT
    assert not os.path.exists(source)
    assert content(f"{url}/moved") == CONTENT


def test_password_is_sent_but_not_shown(url: str) -> None:
    address = url.replace("//", "//me:pa55@")
    assert content(f"{address}/a.wav") == CONTENT
    assert Handler.seen[-1][1] == "Basic bWU6cGE1NQ=="
    message = error(f"{address}/missing.wav?token=5ec")
    host = url.removeprefix("http://")
    assert message == (
        f"http://***@{host}/missing.wav?token=*** cannot be downloaded: {host} answered HTTP 404 for missing.wav "
        "(check the address)"
    )


def test_lost_connection_is_continued(url: str) -> None:
    assert content(f"{url}/drops.wav") == CONTENT
    assert [seen[2] for seen in Handler.seen] == [None, "bytes=50000-"]


def test_slow_server_and_web_page_are_refused(url: str) -> None:
    assert "sends less than 1,000 bytes/s; stopped after" in error(f"{url}/slow.wav")
    assert "sent a web page instead of page.wav" in error(f"{url}/page.wav")


@pytest.mark.parametrize("kind", ["http", "memory"])
def test_size_is_limited(url: str, kind: str) -> None:
    MemoryFileSystem.store.clear()
    fsspec.filesystem("memory").pipe("/a.wav", CONTENT)
    address = f"{url}/a.wav" if kind == "http" else "memory://a.wav"
    assert error(address, max_bytes=99_999) == (
        f"{address} has more than 99,999 bytes (copy the sound to this machine, and name the file)"
    )
    assert content(address, max_bytes=100_000) == CONTENT


def test_offline_refuses_the_network_only(url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(CONTENT)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "nothing is downloaded offline" in error(f"{url}/a.wav")
    assert "nothing is downloaded offline" in error("hf://datasets/a/b/c.wav")
    assert not Handler.seen
    assert content(f"file://{tmp_path}/a.wav") == CONTENT
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert "nothing is downloaded offline" in error(f"{url}/a.wav", offline=True)
    assert content(f"{url}/a.wav") == CONTENT


def test_member_of_a_zip_file_is_copied(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "sounds.zip", "w") as archive:
        archive.writestr("in/dog.wav", CONTENT)
    assert content(f"zip://in/dog.wav::{tmp_path}/sounds.zip") == CONTENT
    assert "cannot be downloaded: it does not exist" in error(f"zip://in/cat.wav::file://{tmp_path}/sounds.zip")
    assert "cannot be downloaded: it does not exist" in error(f"zip://in/dog.wav::{tmp_path}/nowhere.zip")
    (tmp_path / "sounds.zip").write_bytes(CONTENT)
    assert "not a zip file" in error(f"zip://in/dog.wav::{tmp_path}/sounds.zip")


def test_file_system_that_stalls_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec.filesystem("memory").pipe("/a.wav", CONTENT)
    is_over = threading.Event()

    def stall(self: Any, path: str, *arguments: Any, **settings: Any) -> Any:
        is_over.wait(30)
        raise OSError("left")

    monkeypatch.setattr(MemoryFileSystem, "_open", stall)
    start = time.monotonic()
    message = error("memory://a.wav")
    is_over.set()
    assert "less than 1,000 bytes/s arrive" in message
    assert time.monotonic() - start < 10


def test_error_about_the_copy_names_the_address() -> None:
    fsspec.filesystem("memory").pipe("/a.wav", CONTENT)
    with pytest.raises(FileError, match=r"^memory://a\.wav is not sound"):
        with open_source(found("memory://a.wav")) as source:
            raise FileError(str(source), "is not sound")
    with pytest.raises(FileError, match="^other is bad"), open_source(found("memory://a.wav")):
        raise FileError("other", "is bad")


@pytest.mark.parametrize(
    ("address", "package"), [("s3://bucket/a.wav", "s3fs"), ("zip://a.wav::https://localhost/b", "aiohttp")]
)
def test_missing_package_is_an_error_that_names_it(address: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # importing it fails
    assert package in error(address)


def test_unknown_kind_of_address_is_an_error() -> None:
    assert "cannot be downloaded: Protocol not known: foo" in error("foo://a.wav")
