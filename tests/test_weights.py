"""Sets of weights: found on disk or downloaded, checked, and used together with Hugging Face's cache."""

import errno
import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import huggingface_hub
import pytest
from typer.testing import CliRunner

from fake_hub import COMMIT, FakeHub, hub_at
from textcap.errors import CheckpointError, DownloadError, InputError
from textcap.store import own_cache_folder
from textcap.weights import (
    WEIGHT_SETS,
    cache_folder,
    ensure,
    fetch,
    find,
    folder_hash,
    verify_cache,
)
from textcap.weights.hub_cache import RepoCache

MSCLAP, GPT2 = "microsoft/msclap", "openai-community/gpt2"
CLAP = "CLAP_weights_2023.pth"
LARGE = {
    (MSCLAP, CLAP): os.urandom(200_000),
    (MSCLAP, "clapcap_weights_2023.pth"): os.urandom(100_000),
    (GPT2, "model.safetensors"): os.urandom(50_000),
}
SMALL = {(GPT2, "vocab.json"): b'{"a": 0}', (GPT2, "merges.txt"): b"#version: 0.2\n"}
LATER = "b" * 40


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with FakeHub(large=dict(LARGE), small=dict(SMALL)) as fake:
        monkeypatch.setenv("HF_ENDPOINT", fake.url)
        yield fake


def contents(paths: dict[str, Path]) -> dict[str, bytes]:
    return {role: path.read_bytes() for role, path in paths.items()}


def expected(name: str) -> dict[str, bytes]:
    return {file.role: {**LARGE, **SMALL}[file.repo, file.name] for file in WEIGHT_SETS[name]}


def refuse_to_write(*arguments: object, **options: object) -> None:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def partial_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.endswith((".textcap-partial", ".tmp"))]


@pytest.mark.parametrize("name", list(WEIGHT_SETS))
def test_ensure_downloads_every_file_of_a_set(fake, name):
    assert find(name) is None
    weights = ensure(name, hub=hub_at(fake))
    assert contents(weights.paths) == expected(name)
    assert weights.name == name
    assert all(path.is_relative_to(os.environ["TEXTCAP_CACHE"]) for path in weights.paths.values())
    assert not partial_files(own_cache_folder())


def test_weights_on_disk_are_used_without_the_network(fake, request):
    fetch(list(WEIGHT_SETS), hub=hub_at(fake))
    request.getfixturevalue("no_network")
    for name in WEIGHT_SETS:
        assert contents(ensure(name).paths) == expected(name)
        found = find(name)
        assert found is not None
        assert contents(found.paths) == expected(name)
    assert not any(one.downloaded for one in fetch(list(WEIGHT_SETS)))
    assert {one.state for one in verify_cache(list(WEIGHT_SETS))} == {"right"}


def test_fetch_lists_each_file_once_with_its_commit(fake):
    fetched = fetch(["msclap-2023", "clapcap"], hub=hub_at(fake))
    assert [one.file.name for one in fetched] == [
        CLAP,
        "model.safetensors",
        "vocab.json",
        "merges.txt",
        "clapcap_weights_2023.pth",
    ]
    assert all(one.downloaded and one.commit == COMMIT for one in fetched)
    assert fake.n_sent == sum(map(len, [*LARGE.values(), *SMALL.values()]))


def test_fetch_downloads_only_missing_files(fake):
    fetch(["msclap-2023"], hub=hub_at(fake))
    before = fake.n_sent
    fetched = fetch(["clapcap"], hub=hub_at(fake))
    assert [one.downloaded for one in fetched] == [True, False, False]
    assert fake.n_sent - before == 100_000


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", None])
def test_missing_weights_offline_suggest_how_to_get_them(no_network, monkeypatch, variable):
    if variable is not None:
        monkeypatch.setenv(variable, "1")
    with pytest.raises(DownloadError) as error:
        ensure("msclap-2023", offline=None if variable else True)
    assert "textcap fetch msclap-2023" in str(error.value)
    assert "--backbone tiny" in str(error.value)
    assert "\n" not in str(error.value)


def test_fetch_is_refused_if_the_environment_forbids_the_network(no_network, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "ON")
    with pytest.raises(DownloadError, match="the environment forbids downloads"):
        fetch(["msclap-2023"])


def test_unknown_weights_are_refused_with_the_known_ones():
    with pytest.raises(InputError, match="no weights called 'msclap-2022'.*msclap-2023, clapcap"):
        find("msclap-2022")


# Cache folders


def test_cache_folder_follows_textcap_then_hugging_face_then_the_platform(monkeypatch, tmp_path):
    monkeypatch.setenv("TEXTCAP_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    assert cache_folder() == tmp_path / "own" / "hub"
    assert own_cache_folder() == tmp_path / "own"
    monkeypatch.delenv("TEXTCAP_CACHE")
    assert cache_folder() == tmp_path / "hub"
    monkeypatch.delenv("HF_HUB_CACHE")
    assert cache_folder() == tmp_path / "home" / "hub"
    monkeypatch.delenv("HF_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == own_cache_folder() / "hub"
    if sys.platform == "linux":
        assert own_cache_folder() == tmp_path / "xdg" / "textcap"


def test_own_cache_folder_is_never_that_of_hugging_face(monkeypatch, tmp_path):
    monkeypatch.delenv("TEXTCAP_CACHE")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    assert not own_cache_folder().is_relative_to(tmp_path / "home")


# Together with huggingface_hub


@pytest.fixture
def hugging_face(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    # Before its first download, huggingface_hub 2.x asks huggingface.co about its user, whatever the endpoint is.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_TELEMETRY", True)
    return tmp_path / "hub"


def download_as_msclap_does(fake: FakeHub, folder: Path, repo: str, name: str) -> Path:
    return Path(huggingface_hub.hf_hub_download(repo, name, cache_dir=folder, endpoint=fake.url))


@pytest.mark.parametrize("old_name", [False, True])
def test_files_downloaded_by_hugging_face_are_used(fake, hugging_face, old_name, capfd):
    for repo, name in [*LARGE, *SMALL]:
        download_as_msclap_does(fake, hugging_face, repo, name)
    if old_name:  # the folder has the name that the repository was requested by
        (hugging_face / "models--openai-community--gpt2").rename(hugging_face / "models--gpt2")
    before = len(fake.requests)
    fetched = fetch(list(WEIGHT_SETS))
    assert len(fake.requests) == before
    assert all(not one.downloaded and one.path.is_relative_to(hugging_face) for one in fetched)
    assert contents(ensure("clapcap").paths) == expected("clapcap")
    assert {one.state for one in verify_cache(list(WEIGHT_SETS))} == {"right"}


def test_single_file_of_hugging_face_is_not_downloaded_again(fake, hugging_face, capfd):
    download_as_msclap_does(fake, hugging_face, MSCLAP, CLAP)
    before = fake.n_sent
    weights = ensure("msclap-2023", hub=hub_at(fake))
    assert weights.paths["clap"].is_relative_to(hugging_face)
    assert fake.n_sent - before == 50_000 + sum(map(len, SMALL.values()))


def test_hugging_face_finds_files_downloaded_by_textcap(fake, hugging_face, monkeypatch):
    monkeypatch.delenv("TEXTCAP_CACHE")
    fetched = fetch(list(WEIGHT_SETS), hub=hub_at(fake))
    before = len(fake.requests)
    for one in fetched:
        assert one.path.is_relative_to(hugging_face)
        path = huggingface_hub.hf_hub_download(
            one.file.repo, one.file.name, cache_dir=hugging_face, local_files_only=True
        )
        assert Path(path) == one.path
    assert len(fake.requests) == before
    scanned = huggingface_hub.scan_cache_dir(hugging_face)
    assert not scanned.warnings
    assert {repo.repo_id: repo.nb_files for repo in scanned.repos} == {MSCLAP: 2, GPT2: 3}


def test_same_content_under_a_later_commit_is_not_downloaded_again(fake, hugging_face, capfd):
    download_as_msclap_does(fake, hugging_face, MSCLAP, CLAP)
    fake.commit = LATER
    before = fake.n_sent
    fetched = fetch(["msclap-2023"], revision="main", hub=hub_at(fake))[0]
    assert (fetched.commit, fetched.downloaded) == (LATER, False)
    assert fetched.path.read_bytes() == LARGE[MSCLAP, CLAP]
    assert fake.n_sent - before == 50_000 + sum(map(len, SMALL.values()))


# Revisions


def test_fetched_revision_is_preferred_from_then_on(fake):
    hub = hub_at(fake)
    fetch(["msclap-2023"], hub=hub)
    old = ensure("msclap-2023")
    fake.commit, fake.large[MSCLAP, CLAP] = LATER, b"new weights"
    assert fetch(["msclap-2023"], hub=hub)[0].commit == COMMIT
    assert fetch(["msclap-2023"], revision="main", hub=hub)[0].commit == LATER
    new = ensure("msclap-2023")
    assert new.paths["clap"].read_bytes() == b"new weights"
    assert new.content_hash != old.content_hash
    n_requests = len(fake.requests)
    assert fetch(["msclap-2023"], revision=COMMIT, hub=hub)[0].commit == COMMIT
    assert len(fake.requests) == n_requests
    assert ensure("msclap-2023") == old


def test_revision_of_another_repository(fake):
    fake.other_commits["v1"] = LATER
    fetched = fetch(["msclap-2023"], revision={GPT2: "v1"}, hub=hub_at(fake))
    assert [one.commit for one in fetched] == [COMMIT, LATER, LATER, LATER]


def test_unknown_revision_is_reported(fake):
    with pytest.raises(
        DownloadError, match=f"HTTP 404 for {MSCLAP}/{CLAP} at revision v9 .there is no such file or revision"
    ):
        fetch(["msclap-2023"], revision="v9", hub=hub_at(fake))
    assert find("msclap-2023") is None


@pytest.mark.parametrize("revision", ["", "../../x", "a b", "a//b"])
def test_invalid_revision_is_refused(no_network, revision):
    with pytest.raises(InputError, match="is not a valid revision"):
        fetch(["msclap-2023"], revision=revision)


# Files on disk


def test_content_hash_is_the_same_in_any_folder(fake, monkeypatch, tmp_path):
    first = ensure("clapcap", hub=hub_at(fake))
    shutil.copytree(os.environ["TEXTCAP_CACHE"], tmp_path / "moved", symlinks=True)
    monkeypatch.setenv("TEXTCAP_CACHE", str(tmp_path / "moved"))
    second = ensure("clapcap", offline=True)
    assert second.content_hash == first.content_hash
    assert second.paths != first.paths
    assert first.content_hash != ensure("msclap-2023", hub=hub_at(fake)).content_hash


def test_content_hash_is_remembered_between_starts(fake, monkeypatch):
    monkeypatch.setattr("textcap.files.SETTLED_S", -1.0)  # as if the files were older
    monkeypatch.setattr("textcap.files.SETTLED_S", -1.0)  # as if the files were older
    first = ensure("clapcap", hub=hub_at(fake))
    monkeypatch.setattr("textcap.store.sha256_of_file", lambda path: pytest.fail(f"hashed {path} again"))
    assert find("clapcap") == first


def test_content_hash_changes_with_the_file(fake):
    first = ensure("clapcap", hub=hub_at(fake))
    first.paths["clapcap"].write_bytes(b"other weights")
    second = find("clapcap")
    assert second is not None
    assert second.content_hash != first.content_hash


@pytest.mark.parametrize("memory", [b"", b"[]", b"no database at all" * 300])
def test_content_hash_survives_a_broken_memory(fake, memory, monkeypatch):
    monkeypatch.setattr("textcap.files.SETTLED_S", -1.0)  # as if the files were older
    first = ensure("clapcap", hub=hub_at(fake))
    remembered = own_cache_folder() / "hashes.sqlite"
    assert remembered.stat().st_size
    remembered.write_bytes(memory)
    assert find("clapcap") == first


def test_folder_hash_depends_on_names_and_content_but_not_on_order(tmp_path):
    for name, content in (("a", b"1"), ("b", b"2")):
        (tmp_path / name).write_bytes(content)
    both = folder_hash([tmp_path / "a", tmp_path / "b"])
    lines = "".join(f"{name} {hashlib.sha256(content).hexdigest()}\n" for name, content in (("a", b"1"), ("b", b"2")))
    assert both == hashlib.sha256(lines.encode()).hexdigest()
    assert folder_hash([tmp_path / "b", tmp_path / "a"]) == both
    (tmp_path / "b").write_bytes(b"3")
    assert folder_hash([tmp_path / "a", tmp_path / "b"]) != both
    with pytest.raises(CheckpointError, match="gone does not exist"):
        folder_hash([tmp_path / "gone"])


def test_verify_finds_damaged_and_missing_files_that_fetch_replaces(fake):
    weights = ensure("clapcap", hub=hub_at(fake))
    blob = weights.paths["clapcap"].resolve()
    content = bytearray(blob.read_bytes())
    content[1000] ^= 1
    blob.write_bytes(content)
    weights.paths["vocab"].unlink()
    assert {one.file.role: one.state for one in verify_cache(["clapcap"])} == {
        "clapcap": "damaged",
        "vocab": "missing",
        "merges": "right",
    }
    blob.unlink()
    fetch(["clapcap"], hub=hub_at(fake))
    assert {one.state for one in verify_cache(["clapcap"])} == {"right"}
    assert contents(ensure("clapcap").paths) == expected("clapcap")


def test_damaged_blob_is_downloaded_again(fake):
    weights = ensure("clapcap", hub=hub_at(fake))
    weights.paths["clapcap"].resolve().write_bytes(b"damaged")
    weights.paths["clapcap"].unlink()
    assert contents(ensure("clapcap", hub=hub_at(fake)).paths) == expected("clapcap")


def damage(path: Path, how: str) -> bytes:
    """Damage the content that a path leads to, without changing the time of its last change, and return it."""
    blob = path.resolve()
    before, content = blob.stat(), blob.read_bytes()
    changed = {
        "truncated": content[:-1],
        "emptied": b"",
        "zeroed": bytes(len(content)),
        "one bit flipped": bytes([content[0] ^ 1]) + content[1:],
    }[how]
    blob.write_bytes(changed)
    os.utime(blob, ns=(before.st_atime_ns, before.st_mtime_ns))
    return changed


@pytest.mark.parametrize("how", ["truncated", "emptied", "zeroed", "one bit flipped"])
@pytest.mark.parametrize("role", ["clapcap", "vocab"])
def test_fetch_downloads_damaged_files_again_and_says_so(fake, monkeypatch, how, role):
    monkeypatch.setattr("textcap.files.SETTLED_S", -1.0)  # as if the files were older
    path = ensure("clapcap", hub=hub_at(fake)).paths[role]
    damage(path, how)
    fake.commit, fake.other_commits = LATER, {"old": COMMIT}
    notes: list[str] = []
    fetched = fetch(["clapcap"], hub=hub_at(fake), progress=lambda *step: notes.append(step[3]) if step[3] else None)
    assert notes == [f"{path.resolve()} is damaged: {path.name} is downloaded again"]
    assert {one.file.role for one in fetched if one.downloaded} == {role}
    assert {one.commit for one in fetched} == {COMMIT}  # the commit that the others have, too
    assert contents(ensure("clapcap", offline=True).paths) == expected("clapcap")
    assert {one.state for one in verify_cache(["clapcap"])} == {"right"}
    notes.clear()
    assert not any(one.downloaded for one in fetch(["clapcap"], hub=hub_at(fake)))
    assert not notes


def test_damaged_file_of_hugging_face_is_left_alone(fake, hugging_face, capfd):
    theirs = download_as_msclap_does(fake, hugging_face, MSCLAP, "clapcap_weights_2023.pth")
    changed = damage(theirs, "zeroed")
    mine = fetch(["clapcap"], hub=hub_at(fake))[0]
    assert mine.downloaded and not mine.path.is_relative_to(hugging_face)
    assert theirs.read_bytes() == changed
    assert contents(ensure("clapcap", offline=True).paths) == expected("clapcap")


def test_damaged_file_offline_is_an_error(fake, monkeypatch):
    damage(ensure("clapcap", hub=hub_at(fake)).paths["clapcap"], "emptied")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DownloadError, match="the environment forbids downloads"):
        fetch(["clapcap"])


@pytest.mark.parametrize("name", ["blob", "partial", "lock", "file"])
def test_planted_links_do_not_lead_out_of_the_cache(fake, tmp_path, name):
    content = LARGE[MSCLAP, "clapcap_weights_2023.pth"]
    digest = hashlib.sha256(content).hexdigest()
    repo = cache_folder() / "models--microsoft--msclap"
    link = {
        "blob": repo / "blobs" / digest,
        "partial": repo / "blobs" / f"{digest}.textcap-partial",
        "lock": cache_folder() / ".locks" / repo.name / f"{digest}.lock",
        "file": repo / "snapshots" / COMMIT / "clapcap_weights_2023.pth",
    }[name]
    canary = tmp_path / "canary"
    canary.write_bytes(b"precious")
    link.parent.mkdir(parents=True)
    link.symlink_to(canary)
    fetched = fetch(["clapcap"], revision=COMMIT if name != "file" else "main", hub=hub_at(fake))
    assert fetched[0].path.read_bytes() == content
    assert canary.read_bytes() == b"precious"


def test_cache_folder_may_be_a_link(fake, monkeypatch, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    monkeypatch.setenv("TEXTCAP_CACHE", str(tmp_path / "link"))
    assert contents(ensure("clapcap", hub=hub_at(fake)).paths) == expected("clapcap")
    assert list((tmp_path / "elsewhere").rglob("merges.txt"))


@pytest.mark.parametrize("also_no_hard_links", [False, True])
def test_file_systems_without_symbolic_links_work(fake, monkeypatch, also_no_hard_links):
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "symlink", refuse)
    if also_no_hard_links:
        monkeypatch.setattr(os, "link", refuse)
    assert contents(ensure("clapcap", hub=hub_at(fake)).paths) == expected("clapcap")
    states = {one.state for one in verify_cache(["clapcap"])}
    assert states == {"unknown"} if also_no_hard_links else {"right"}


# Failures


@pytest.mark.parametrize(
    "fault", [{"wrong_hash": True}, {"page_for_get": True}, {"extra_bytes": 1}, {"drop_after": [100] * 99}]
)
def test_faulty_download_is_never_used(fake, fault):
    for name, value in fault.items():
        setattr(fake, name, value)
    with pytest.raises(DownloadError):
        ensure("msclap-2023", hub=hub_at(fake))
    assert find("msclap-2023") is None
    assert {one.state for one in verify_cache(["msclap-2023"])} == {"missing"}
    for name in fault:
        setattr(fake, name, type(fault[name])())
    assert contents(ensure("msclap-2023", hub=hub_at(fake)).paths) == expected("msclap-2023")


def test_changed_file_is_not_appended_to_an_old_partial_file(fake):
    fake.drop_after = [100_000] + [0] * 9
    with pytest.raises(DownloadError):
        fetch(["msclap-2023"], hub=hub_at(fake))
    assert [path.stat().st_size for path in partial_files(cache_folder())] == [100_000]
    fake.drop_after, fake.commit, fake.large[MSCLAP, CLAP] = [], LATER, os.urandom(200_000)
    n_requests = len(fake.requests)
    fetched = fetch(["msclap-2023"], hub=hub_at(fake))[0]
    assert fetched.path.read_bytes() == fake.large[MSCLAP, CLAP]
    assert {request.first_byte for request in fake.requests[n_requests:]} == {0}


def test_too_little_space_is_reported_before_any_download(fake, monkeypatch):
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DownloadError, match=r"need 0 MB more, but .* has only 0 MB free .*TEXTCAP_CACHE"):
        fetch(["msclap-2023"], hub=hub_at(fake))
    assert fake.n_sent == 0


class FullFile(io.BytesIO):
    """A file on a full disk."""

    def write(self, content: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_full_disk_is_reported_in_one_line(fake, monkeypatch):
    monkeypatch.setattr("textcap.weights.download.open_partial", lambda path: FullFile())
    with pytest.raises(DownloadError) as error:
        fetch(["msclap-2023"], hub=hub_at(fake))
    assert "the disk is full under" in str(error.value)
    assert "run the command again to continue" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["below a file", "read-only"])
def test_unwritable_cache_folder_is_reported_in_one_line(fake, monkeypatch, tmp_path, kind):
    if kind == "below a file":
        (tmp_path / "file").write_text("")
        folder = tmp_path / "file" / "cache"
    else:
        folder = tmp_path / "cache"
        monkeypatch.setattr(os, "mkdir", refuse_to_write)  # file modes do not stop root
    monkeypatch.setenv("TEXTCAP_CACHE", str(folder))
    with pytest.raises(DownloadError) as error:
        fetch(["msclap-2023"], hub=hub_at(fake))
    assert f"the cache folder {folder}" in str(error.value)
    assert "cannot be written: " in str(error.value)
    assert "set TEXTCAP_CACHE to a folder that you may write to" in str(error.value)
    assert "\n" not in str(error.value)


def test_weights_in_a_read_only_cache_are_used(fake, monkeypatch):
    monkeypatch.setattr("textcap.files.SETTLED_S", -1.0)  # as if the files were older
    monkeypatch.setattr("textcap.files.SETTLED_S", -1.0)  # as if the files were older
    first = ensure("clapcap", hub=hub_at(fake))
    (own_cache_folder() / "hashes.sqlite").unlink()

    for name in ("replace", "mkdir", "symlink", "link", "unlink"):
        monkeypatch.setattr(os, name, refuse_to_write)
    assert ensure("clapcap", offline=True) == first
    assert not any(one.downloaded for one in fetch(["clapcap"]))


# Concurrent and killed downloads


def test_concurrent_fetches_download_each_file_once(fake):
    fake.chunk_pause_s = 0.003
    failures: list[BaseException] = []

    def run() -> None:
        try:
            fetch(["msclap-2023"], hub=hub_at(fake))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert fake.n_sent == 250_000 + sum(map(len, SMALL.values()))
    assert contents(ensure("msclap-2023", offline=True).paths) == expected("msclap-2023")
    assert not partial_files(cache_folder())


def test_wait_for_another_process_is_shown(fake):
    digest = hashlib.sha256(LARGE[MSCLAP, "clapcap_weights_2023.pth"]).hexdigest()
    path = cache_folder() / ".locks" / "models--microsoft--msclap" / f"{digest}.lock"
    path.parent.mkdir(parents=True)
    notes: list[str] = []
    held = filelock.FileLock(str(path))

    def show(name: str, done: int, total: int, note: str) -> None:
        if note:
            notes.append(note)
            held.release()

    held.acquire()
    fetch(["clapcap"], hub=hub_at(fake), progress=show)
    assert notes == ["waiting for another process that downloads clapcap_weights_2023.pth"]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_killed_fetch_is_continued_by_the_next(fake):
    fake.chunk_pause_s = 0.02
    code = "from textcap.weights import fetch; fetch(['msclap-2023'])"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)
    limit = time.monotonic() + 60
    while fake.n_sent < 100_000:
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < limit
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert find("msclap-2023") is None
    fake.chunk_pause_s = 0.0
    kept = partial_files(cache_folder())[0].stat().st_size
    assert kept > 50_000
    # The hub may still count bytes that it sends to the killed process, so only the new requests are counted.
    n_requests = len(fake.requests)
    assert contents(ensure("msclap-2023", hub=hub_at(fake)).paths) == expected("msclap-2023")
    sent = sum(request.n_sent for request in fake.requests[n_requests:])
    assert sent == 250_000 + sum(map(len, SMALL.values())) - kept


# The command


def run_command(*arguments: str) -> tuple[int, str, str]:
    from textcap.cli.app import app

    result = CliRunner().invoke(app, ["fetch", *arguments], catch_exceptions=False)
    return result.exit_code, result.stdout, result.stderr


def test_command_prints_licence_size_commit_and_path(fake):
    code, stdout, stderr = run_command()
    assert code == 0, stderr
    rows = [line.split("\t") for line in stdout.splitlines()]
    assert rows[0][:4] == [CLAP, "MS-PL", "200.0 kB", f"{MSCLAP}@{COMMIT}"]
    assert Path(rows[0][4]).read_bytes() == LARGE[MSCLAP, CLAP]
    assert [row[1] for row in rows[1:]] == ["MIT"] * 3
    assert f"downloading {CLAP} (200.0 kB)" in stderr
    assert "4 fetched, 0 already on disk" in stderr


def test_command_with_quiet_prints_nothing_on_stderr(fake):
    code, stdout, stderr = run_command("all", "-q")
    assert (code, stderr) == (0, "")
    assert len(stdout.splitlines()) == 5


def test_command_takes_revisions_of_both_repositories(fake):
    fake.other_commits = {"v1": LATER}
    code, stdout, stderr = run_command("--revision", "v1", "--revision", f"{GPT2}@{COMMIT}")
    assert code == 0, stderr
    assert [line.split("\t")[3] for line in stdout.splitlines()] == [f"{MSCLAP}@{LATER}"] + [f"{GPT2}@{COMMIT}"] * 3


def test_command_verifies_without_the_network(fake, request):
    weights = ensure("clapcap", hub=hub_at(fake))
    request.getfixturevalue("no_network")
    code, stdout, stderr = run_command("clapcap", "--verify")
    assert (code, [line.split("\t")[1] for line in stdout.splitlines()]) == (0, ["right"] * 3)
    blob = weights.paths["clapcap"].resolve()
    blob.write_bytes(b"damaged")
    code, stdout, stderr = run_command("clapcap", "--verify")
    assert (code, [line.split("\t")[1] for line in stdout.splitlines()]) == (1, ["damaged", "right", "right"])
    assert "damaged or missing: 1 of 3 files" in stderr
    assert "(run textcap fetch clapcap)" in stderr
    assert blob.read_bytes() == b"damaged"


def test_command_says_that_a_damaged_file_is_downloaded_again(fake):
    blob = ensure("clapcap", hub=hub_at(fake)).paths["clapcap"].resolve()
    blob.write_bytes(b"damaged")
    code, stdout, stderr = run_command("clapcap")
    assert (code, len(stdout.splitlines())) == (0, 3)
    assert f"{blob} is damaged: clapcap_weights_2023.pth is downloaded again" in stderr
    assert "1 fetched, 2 already on disk" in stderr


def test_command_reports_a_failure_in_one_line(fake):
    fake.head_statuses = [401]
    code, stdout, stderr = run_command()
    assert (code, stdout) == (1, "")
    assert len(stderr.splitlines()) == 1
    assert f"127.0.0.1:{fake.url.rpartition(':')[2]} answered HTTP 401 for {MSCLAP}/{CLAP}" in stderr


def test_command_refuses_unknown_weights():
    assert run_command("msclap-2022")[0] == 2


def test_file_that_a_killed_process_left_in_a_snapshot_is_removed_after_a_day(tmp_path: Path) -> None:
    content = tmp_path / "content"
    content.write_bytes(b"weights")
    cache = RepoCache(tmp_path / "hub", "a/b")
    placed = cache.place(COMMIT, "model.bin", content)
    old, new = placed.with_name(".textcap-000000000000.tmp"), placed.with_name(".textcap-111111111111.tmp")
    for path in (old, new):
        path.symlink_to(content)
    os.utime(old, (time.time() - 25 * 3600,) * 2, follow_symlinks=False)
    assert cache.place(COMMIT, "model.bin", content).read_bytes() == b"weights"
    assert not os.path.lexists(old) and os.path.lexists(new)
