"""`textcap fetch metrics`: from the user's files, from pycocoevalcap, or by download from a server on loopback."""

import io
import os
import shutil
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fake_hub import PAGE, FakeHub
from fake_jars import (
    BY_NAME,
    CONTENTS,
    CORENLP,
    CORENLP_ZIP,
    MODELS,
    WHEEL,
    corenlp_zip,
    fill_cache,
    hash_of,
    install_package,
    tiny_jar,
    use_tiny_catalogue,
    wheel,
)
from textcap.cli.app import app
from textcap.errors import DownloadError, InputError
from textcap.scoring import jar_fetching
from textcap.scoring.jar_fetching import fetch_metrics, verify_metrics
from textcap.scoring.jars import find_jars
from textcap.weights import Hub

PACKAGED = {path: content for path, content in CONTENTS.items() if not path.startswith("spice/lib/")}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, a tiny catalogue, no package, no proxy, no waiting."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    use_tiny_catalogue(monkeypatch)
    monkeypatch.setenv("AAC_METRICS_CACHE_PATH", str(tmp_path / "cache"))
    empty = tmp_path / "no-packages" / "pycocoevalcap"
    empty.mkdir(parents=True)
    (empty / "__init__.py").write_text("raise ImportError('not to be imported')")
    monkeypatch.syspath_prepend(str(empty.parent))  # takes precedence over an installed one
    return tmp_path / "cache"


@pytest.fixture
def server(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    large = {
        ("pypi", WHEEL): wheel(),
        ("maven", CORENLP): BY_NAME[CORENLP],
        ("maven", MODELS): BY_NAME[MODELS],
    }
    with FakeHub(large=large) as fake:
        use_tiny_catalogue(monkeypatch, fake.url)
        yield fake


def fetch_from(server: FakeHub, *sources: Path, **more: object) -> list[jar_fetching.FetchedJar]:
    hub = Hub(server.url, None, timeout_s=5.0, retries=2, first_wait_s=0.001)
    return list(fetch_metrics(sources, hub=hub, **more))  # type: ignore[arg-type]


def cached(cache: Path) -> dict[str, bytes]:
    folder = cache / "aac-metrics"
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("textcap-"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def one_line(error: pytest.ExceptionInfo[Exception]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def paths_asked_for(server: FakeHub) -> list[str]:
    return [request.path.rpartition("/")[2] for request in server.requests if request.method == "GET"]


# Where the files come from


def test_everything_is_downloaded_if_nothing_is_on_disk(server, cache):
    reported: dict[str, tuple[int, int]] = {}
    fetched = fetch_from(server, progress=lambda name, done, total, note: reported.__setitem__(name, (done, total)))
    assert cached(cache) == CONTENTS
    assert [one.file.path for one in fetched] == [*PACKAGED, f"spice/lib/{CORENLP}", f"spice/lib/{MODELS}"]
    assert all(one.new and one.known for one in fetched)
    assert paths_asked_for(server) == [WHEEL, CORENLP, MODELS]
    assert reported[WHEEL] == (len(wheel()), len(wheel()))
    assert reported[CORENLP] == (len(BY_NAME[CORENLP]),) * 2
    assert (cache / "aac-metrics" / "spice" / "cache").is_dir()
    for program in ("ptb", "meteor", "spice"):
        assert find_jars(program).unknown == []


def test_files_on_disk_are_not_downloaded_again(server, cache):
    fill_cache(cache)
    fetched = fetch_from(server)
    assert not any(one.new for one in fetched)
    assert server.requests == []
    assert {one.source for one in fetched} == {"already on disk"}


def test_installed_package_is_used(server, cache, monkeypatch, tmp_path):
    install_package(tmp_path / "packages")
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    fetched = fetch_from(server)
    assert cached(cache) == CONTENTS
    assert paths_asked_for(server) == [CORENLP, MODELS]
    assert str(tmp_path / "packages") in fetched[0].source
    assert "pycocoevalcap" not in sys.modules


def test_changed_file_of_the_package_is_not_used(server, cache, monkeypatch, tmp_path):
    install_package(tmp_path / "packages", meteor_1_5=tiny_jar("changed"))
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    fetch_from(server)
    assert cached(cache) == CONTENTS
    assert paths_asked_for(server) == [WHEEL, CORENLP, MODELS]


def test_wrong_file_in_the_cache_is_replaced(server, cache):
    fill_cache(cache)
    (cache / "aac-metrics" / "meteor" / "meteor-1.5.jar").write_bytes(b"<html>")
    fetched = fetch_from(server)
    assert cached(cache) == CONTENTS
    assert [one.file.name for one in fetched if one.new] == ["meteor-1.5.jar"]


def test_complete_files_are_kept_if_others_cannot_be_downloaded(server, cache):
    del server.large["maven", MODELS]
    with pytest.raises(DownloadError) as error:
        fetch_from(server)
    assert cached(cache) == {path: content for path, content in CONTENTS.items() if MODELS not in path}
    assert find_jars("meteor").unknown == []
    assert "127.0.0.1" in one_line(error) and "--from PATH" in one_line(error)


# Downloads that go wrong


def test_interrupted_download_continues_where_it_stopped(server, cache):
    server.drop_after = [1000]
    fetch_from(server)
    assert cached(cache) == CONTENTS
    wheel_requests = [r for r in server.requests if r.path.endswith(WHEEL) and r.method == "GET"]
    assert [request.first_byte for request in wheel_requests] == [0, 1000]


@pytest.mark.parametrize(("drops", "name"), [([500, 0, 0], WHEEL), ([10**9, 500, 0, 0], CORENLP)])
def test_next_fetch_continues_an_interrupted_download(drops, name, server, cache):
    server.drop_after = drops
    with pytest.raises(DownloadError, match="lost the connection .* run the command again to continue"):
        fetch_from(server)
    (partial,) = (path for path in cached(cache) if path.endswith(".textcap-partial"))
    assert partial.endswith(f"{name}.textcap-partial")
    n_before = len(server.requests)
    fetch_from(server)
    assert cached(cache) == CONTENTS
    assert server.requests[n_before].path.endswith(name) and server.requests[n_before].first_byte == 500


@pytest.mark.parametrize(("folder", "name"), [("", WHEEL), ("spice/lib", MODELS)])
@pytest.mark.parametrize("content", ["whole", "damaged", "link"])
def test_partial_file_of_a_killed_run_is_used_if_it_is_right(content, folder, name, server, cache, tmp_path):
    partial = cache / "aac-metrics" / folder / f"{name}.textcap-partial"
    partial.parent.mkdir(parents=True, exist_ok=True)
    whole = server.large["pypi" if name == WHEEL else "maven", name]
    planted = tmp_path / "planted"
    planted.write_bytes(whole)
    if content == "link":
        partial.symlink_to(planted)
    else:
        partial.write_bytes(whole if content == "whole" else bytes(len(whole)))
    fetch_from(server)
    assert cached(cache) == CONTENTS
    assert not any(path.is_symlink() for path in cache.rglob("*"))
    assert planted.read_bytes() == whole
    from_start = [request for request in server.requests if request.path.endswith(name) and request.first_byte == 0]
    assert len(from_start) == (0 if content == "whole" else 1)


def test_second_of_two_runs_downloads_nothing_again(server, cache, monkeypatch):
    @contextmanager
    def locked_late(path: Path, name: str, progress: object) -> Iterator[None]:
        fill_cache(cache)  # by another process, while this one waits for the lock
        yield

    monkeypatch.setattr(jar_fetching, "locked", locked_late)
    fetched = fetch_from(server)
    assert {one.source for one in fetched} == {"already on disk"} and len(fetched) == len(CONTENTS)
    assert server.requests == []


def test_link_in_the_place_of_a_jar_is_replaced_and_never_written_through(server, cache, tmp_path):
    planted = tmp_path / "planted"
    planted.write_bytes(b"precious")
    for path in CONTENTS:
        place = cache / "aac-metrics" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(planted)
    fetch_from(server)
    assert cached(cache) == CONTENTS
    assert planted.read_bytes() == b"precious"


@pytest.mark.parametrize("name", [("pypi", WHEEL), ("maven", CORENLP)])
def test_wrong_bytes_from_a_server_never_reach_the_cache(name, server, cache):
    server.large[name] = bytes(len(server.large[name]))
    with pytest.raises(DownloadError, match="with a hash other than"):
        fetch_from(server)
    assert all(content == CONTENTS[path] for path, content in cached(cache).items())


def test_web_page_instead_of_a_file_is_reported(server, cache):
    server.page_for_get = True
    with pytest.raises(DownloadError, match="sent a web page instead of") as error:
        fetch_from(server)
    assert "--from PATH" in one_line(error)
    assert "HF_ENDPOINT" not in one_line(error)
    assert cached(cache) == {}


def test_error_without_a_network_says_how_to_do_without(cache):
    hub = Hub("http://127.0.0.1:9", None, timeout_s=2, retries=1, first_wait_s=0.001)
    with pytest.raises(DownloadError, match="cannot reach 127.0.0.1:9") as error:
        list(fetch_metrics(hub=hub))
    assert "pip install 'textcap[jars]'" in one_line(error)
    assert "textcap fetch metrics --from PATH" in one_line(error)
    assert "HF_ENDPOINT" not in one_line(error)


def test_offline_mode_sends_no_request(server, cache, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DownloadError, match="the environment forbids downloads"):
        fetch_from(server)
    assert server.requests == []
    fill_cache(cache)
    assert len(fetch_from(server)) == len(CONTENTS)


def test_lack_of_disk_space_is_reported_before_any_download(server, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10))
    with pytest.raises(DownloadError, match="the jars need .* MB more, but .* has only 0 MB free"):
        fetch_from(server)
    assert server.requests == []


@pytest.mark.parametrize(("number", "message"), [(28, "the disk is full under"), (13, "cannot be written: Perm")])
def test_disk_that_cannot_be_written_leaves_nothing_behind(number, message, server, cache, monkeypatch, tmp_path):
    install_package(tmp_path / "packages")
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))

    def refuse(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(DownloadError, match=message) as error:
        fetch_from(server)
    assert "AAC_METRICS_CACHE_PATH" in one_line(error)
    assert cached(cache) == {}


def test_cache_that_cannot_be_created_is_reported(server, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("AAC_METRICS_CACHE_PATH", str(tmp_path / "file"))
    with pytest.raises(DownloadError, match="cannot be written") as error:
        fetch_from(server)
    assert "set AAC_METRICS_CACHE_PATH to a folder that you may write to" in one_line(error)


def test_only_the_folder_of_the_jars_is_written_to(server, cache, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("TEXTCAP_CACHE", str(tmp_path / "file"))
    fetch_from(server)
    assert cached(cache) == CONTENTS


# Files of the user


def write_sources(folder: Path, form: str) -> list[Path]:
    """Write CoreNLP's two jars in one of the forms in which users have them, and return the paths to name."""
    folder.mkdir()
    if form == "jars":
        for name in (CORENLP, MODELS):
            (folder / name).write_bytes(BY_NAME[name])
        return [folder / CORENLP, folder / MODELS]
    if form == "renamed jars":
        for name in (CORENLP, MODELS):
            (folder / f"my {name}.bin").write_bytes(BY_NAME[name])
        return sorted(folder.iterdir())
    if form == "folder":
        (folder / "deep" / "er").mkdir(parents=True)
        (folder / CORENLP).write_bytes(BY_NAME[CORENLP])
        (folder / "deep" / "er" / MODELS).write_bytes(BY_NAME[MODELS])
        (folder / "notes.txt").write_text("nothing of use")
        return [folder]
    name = {"zip": CORENLP_ZIP, "folder of a zip": "download.ZIP", "zip without a suffix": "download"}[form]
    (folder / name).write_bytes(corenlp_zip())
    return [folder] if form == "folder of a zip" else [folder / name]


@pytest.mark.parametrize("form", ["jars", "renamed jars", "folder", "zip", "folder of a zip", "zip without a suffix"])
def test_files_of_the_user_are_used_in_any_form(form, server, cache, tmp_path):
    fetched = fetch_from(server, *write_sources(tmp_path / "mine", form))
    assert cached(cache) == CONTENTS
    assert paths_asked_for(server) == [WHEEL]
    assert all(one.known for one in fetched)
    assert not list(tmp_path.rglob("evil.txt"))


def test_wheel_is_used_instead_of_the_package(server, cache, tmp_path):
    (tmp_path / WHEEL).write_bytes(wheel())
    fetch_from(server, tmp_path / WHEEL)
    assert cached(cache) == CONTENTS
    assert WHEEL not in paths_asked_for(server)


def test_unknown_jar_is_used_and_named_and_kept_by_the_next_run(server, cache, tmp_path):
    mine = tiny_jar("cut down models")
    (tmp_path / MODELS).write_bytes(mine)
    for again in (False, True):
        fetched = fetch_from(server, *([] if again else [tmp_path / MODELS]))
        (unknown,) = [one for one in fetched if not one.known]
        assert (unknown.file.name, unknown.sha256, unknown.new) == (MODELS, hash_of(mine), not again)
    assert find_jars("spice").unknown == [f"spice/lib/{MODELS}"]
    assert find_jars("spice").hashes[f"spice/lib/{MODELS}"] == hash_of(mine)


def test_known_jar_can_replace_an_unknown_one(server, cache, tmp_path):
    (tmp_path / MODELS).write_bytes(tiny_jar("cut down models"))
    fetch_from(server, tmp_path / MODELS)
    (tmp_path / MODELS).write_bytes(BY_NAME[MODELS])
    fetch_from(server, tmp_path / MODELS)
    assert find_jars("spice").unknown == []
    assert cached(cache) == CONTENTS


def test_known_file_is_preferred_among_several(server, cache, tmp_path):
    for name, content in (("a", tiny_jar("other")), ("b", BY_NAME[MODELS]), ("c", tiny_jar("third"))):
        (tmp_path / "mine" / name).mkdir(parents=True)
        (tmp_path / "mine" / name / MODELS).write_bytes(content)
    fetch_from(server, tmp_path / "mine")
    assert cached(cache) == CONTENTS


def test_jar_in_the_cache_can_be_given_as_a_source(server, cache):
    fill_cache(cache)
    jar = cache / "aac-metrics" / "meteor" / "meteor-1.5.jar"
    jar.write_bytes(tiny_jar("my own"))
    fetch_from(server, jar)
    assert jar.read_bytes() == tiny_jar("my own")
    assert find_jars("meteor").unknown == ["meteor/meteor-1.5.jar"]
    assert server.requests == []


BAD_SOURCES = {
    "missing": (None, "does not exist"),
    f"missing/{MODELS}": (None, "does not exist"),
    f"{MODELS}": (BY_NAME[MODELS][:-10], "is damaged or incomplete"),
    "meteor-1.5.jar": (PAGE, "is a web page, not a jar"),
    "paraphrase-en.gz": (CONTENTS["meteor/data/paraphrase-en.gz"][:-10], "is damaged or incomplete"),
    CORENLP_ZIP: (PAGE, "is a web page, not a jar, a zip file"),
    "cut.zip": (corenlp_zip()[: len(corenlp_zip()) // 2], "is damaged or incomplete"),
    "other.zip": (tiny_jar("other"), "contains none of the files that the metrics need"),
    "empty.zip": (b"", "is another kind of file, not a jar, a zip file"),
    "song.mp3": (b"ID3\x03" + bytes(1000), "is another kind of file, not a jar, a zip file"),
}


@pytest.mark.parametrize("name", BAD_SOURCES)
def test_useless_source_is_a_one_line_error(name, server, cache, tmp_path):
    content, message = BAD_SOURCES[name]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        fetch_from(server, tmp_path / name)
    assert str(tmp_path / name) in one_line(error)
    assert all(content == CONTENTS[path] for path, content in cached(cache).items())
    assert server.requests == []


def test_empty_folder_is_reported(server, tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(InputError, match="mine contains none of the files"):
        fetch_from(server, tmp_path / "mine")


def test_damaged_member_of_a_zip_file_is_reported(server, cache, tmp_path):
    content = bytearray(corenlp_zip(stanford_corenlp_3_6_0_jar=os.urandom(5000)))
    with zipfile.ZipFile(io.BytesIO(bytes(content))) as archive:
        entry = next(entry for entry in archive.infolist() if entry.filename.endswith(CORENLP))
    content[entry.header_offset + 200] ^= 0xFF
    (tmp_path / CORENLP_ZIP).write_bytes(bytes(content))
    with pytest.raises(InputError, match=f"{CORENLP_ZIP}:.*{CORENLP} is damaged"):
        fetch_from(server, tmp_path / CORENLP_ZIP)
    assert not [path for path in cached(cache) if CORENLP in path]


def test_member_that_unpacks_to_more_than_any_jar_is_rejected(server, cache, tmp_path, monkeypatch):
    monkeypatch.setattr("textcap.scoring.jar_fetching.MOST_BYTES", 10_000)
    bomb = corenlp_zip(stanford_corenlp_3_6_0_jar=bytes(3_000_000))
    (tmp_path / CORENLP_ZIP).write_bytes(bomb)
    with pytest.raises(InputError, match="is larger than 10,000 bytes"):
        fetch_from(server, tmp_path / CORENLP_ZIP)
    assert not [path for path in cache.rglob("*") if path.is_file() and CORENLP in path.name]


# Verification, and the command line


def test_verify_reads_every_byte(cache):
    fill_cache(cache, without=("spice-1.0.jar",))
    jar = cache / "aac-metrics" / "meteor" / "meteor-1.5.jar"
    find_jars("meteor")  # remembers the hash
    before = jar.stat()
    content = bytearray(jar.read_bytes())
    content[100] ^= 1
    jar.write_bytes(bytes(content))
    os.utime(jar, ns=(before.st_atime_ns, before.st_mtime_ns))
    states = {one.file.name: one.state for one in verify_metrics()}
    assert states.pop("spice-1.0.jar") == "missing"
    assert states.pop("meteor-1.5.jar") == "wrong"
    assert set(states.values()) == {"right"}


def run(*arguments: str, exit_code: int = 0) -> tuple[list[list[str]], str]:
    result = CliRunner().invoke(app, ["fetch", *arguments])
    assert isinstance(result.exception, SystemExit | None), result.exception
    assert result.exit_code == exit_code, result.stderr
    return [line.split("\t") for line in result.stdout.splitlines()], result.stderr


def test_command_prints_name_licence_size_source_and_path(server, cache):
    rows, stderr = run("metrics")
    assert [row[0] for row in rows] == [path.rpartition("/")[2] for path in CONTENTS]
    for row, (path, content) in zip(rows, CONTENTS.items(), strict=True):
        assert row[1] == "MIT" and server.url in row[3]
        assert row[2].endswith(("bytes", "kB"))
        assert Path(row[4]) == cache / "aac-metrics" / path
        assert Path(row[4]).read_bytes() == content
    assert "6 fetched, 0 already on disk" in stderr
    rows, stderr = run("metrics")
    assert "0 fetched, 6 already on disk" in stderr
    assert {row[3] for row in rows} == {"already on disk"}


def test_command_notes_an_unknown_jar_with_its_hash(server, tmp_path):
    (tmp_path / MODELS).write_bytes(tiny_jar("mine"))
    rows, stderr = run("metrics", "--from", str(tmp_path / MODELS))
    assert len(rows) == 6
    assert f"{MODELS} differs from the known version; it is used because you gave it" in stderr
    assert hash_of(tiny_jar("mine")) in stderr
    rows, _ = run("metrics", "--verify")
    assert [row[1] for row in rows if row[0] == MODELS] == ["given"]


def test_command_checks_the_files_on_disk(cache):
    fill_cache(cache)
    rows, stderr = run("metrics", "--verify")
    assert [row[1] for row in rows] == ["right"] * 6
    assert stderr == ""
    (cache / "aac-metrics" / "meteor" / "meteor-1.5.jar").write_bytes(b"x")
    rows, stderr = run("metrics", "--verify", exit_code=1)
    assert [row[1] for row in rows].count("damaged") == 1
    assert stderr == "textcap: damaged or missing: 1 of 6 files (run textcap fetch metrics)\n"


def test_command_prints_complete_files_before_it_fails(server, cache):
    del server.large["maven", CORENLP]
    rows, stderr = run("metrics", exit_code=1)
    assert [row[0] for row in rows] == [path.rpartition("/")[2] for path in PACKAGED]
    assert len(stderr.splitlines()) <= 4
    assert stderr.splitlines()[-1].startswith("textcap: ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["clapcap", "--from", "x.zip"],
        ["metrics", "--revision", "main"],
        ["metrics", "--verify", "--from", "x.zip"],
    ],
)
def test_command_rejects_options_that_cannot_be_combined(arguments):
    rows, stderr = run(*arguments, exit_code=2)
    assert rows == [] and "Invalid value for --" in stderr
