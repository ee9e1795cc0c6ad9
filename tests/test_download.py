"""Download of one file from a hub on loopback: a complete and checked file, or an error of one line."""

import contextlib
import hashlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest

from fake_hub import COMMIT, PAGE, FakeHub, git_hash
from textcap.errors import DownloadError
from textcap.weights.download import RemoteFile, download_file, look_up
from textcap.weights.hub import Hub

REPO, NAME = "microsoft/msclap", "CLAP_weights_2023.pth"
SMALL_REPO, SMALL_NAME = "openai-community/gpt2", "merges.txt"
CONTENT = os.urandom(300_000)
_getaddrinfo = socket.getaddrinfo
SMALL = b"#version: 0.2\na b\n"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def fake() -> Iterator[FakeHub]:
    with FakeHub(large={(REPO, NAME): CONTENT}, small={(SMALL_REPO, SMALL_NAME): SMALL}) as fake:
        yield fake


def hub_at(fake: FakeHub, token: str | None = None, **patience: Any) -> Hub:
    return Hub(fake.url, token, **{"timeout_s": 5.0, "first_wait_s": 0.001, **patience})


def fetch_to(fake: FakeHub, path: Path, **patience: float) -> None:
    hub = hub_at(fake, **patience)
    download_file(hub, look_up(hub, REPO, NAME, "main"), path)


def one_line(error: pytest.ExceptionInfo[DownloadError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert error.value.hint
    return text


def test_look_up_of_a_large_file_gives_commit_sha256_and_size(fake):
    remote = look_up(hub_at(fake), REPO, NAME, "main")
    url = f"{fake.url}/{REPO}/resolve/{COMMIT}/{NAME}"
    assert remote == RemoteFile(
        name=NAME,
        url=url,
        hash=hashlib.sha256(CONTENT).hexdigest(),
        size_bytes=len(CONTENT),
        commit=COMMIT,
    )


def test_look_up_of_a_small_file_gives_git_hash(fake):
    remote = look_up(hub_at(fake), SMALL_REPO, SMALL_NAME, "main")
    assert (remote.commit, remote.hash, remote.size_bytes) == (COMMIT, git_hash(SMALL), len(SMALL))


def test_git_hash_equals_that_of_git():
    # `printf 'hello\n' | git hash-object --stdin`
    assert git_hash(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"


def test_look_up_follows_a_renamed_repository_and_keeps_the_token(fake):
    with FakeHub() as renaming:
        renaming.head_statuses = [307]
        renaming.headers = {"Location": f"/{REPO}/resolve/main/{NAME}"}
        renaming.large = fake.large
        assert look_up(hub_at(renaming, token="secret"), "old/name", NAME, "main").commit == COMMIT
        assert [request.authorization for request in renaming.requests] == ["Bearer secret"] * 2


@pytest.mark.parametrize(("repo", "name", "content"), [(REPO, NAME, CONTENT), (SMALL_REPO, SMALL_NAME, SMALL)])
def test_download_writes_the_exact_bytes(fake, tmp_path, repo, name, content):
    hub = hub_at(fake)
    steps: list[tuple[str, int, int, str]] = []
    download_file(hub, look_up(hub, repo, name, "main"), tmp_path / "p", lambda *step: steps.append(step))
    assert (tmp_path / "p").read_bytes() == content
    assert steps[-1] == (name, len(content), len(content), "")
    assert [step[1] for step in steps] == sorted({step[1] for step in steps})


def test_download_continues_where_the_connection_was_cut(fake, tmp_path):
    fake.drop_after = [100_000, 50_000, 1]
    fetch_to(fake, tmp_path / "p")
    assert (tmp_path / "p").read_bytes() == CONTENT
    stored = [request for request in fake.requests if request.path.startswith("/store/")]
    assert [request.first_byte for request in stored] == [0, 100_000, 150_000, 150_001]
    assert fake.n_sent == len(CONTENT)


def test_download_continues_a_partial_file_of_an_earlier_run(fake, tmp_path):
    (tmp_path / "p").write_bytes(CONTENT[:200_000])
    fetch_to(fake, tmp_path / "p")
    assert (tmp_path / "p").read_bytes() == CONTENT
    assert fake.n_sent == 100_000


def test_download_of_a_complete_partial_file_only_checks_it(fake, tmp_path):
    (tmp_path / "p").write_bytes(CONTENT)
    fetch_to(fake, tmp_path / "p")
    assert fake.n_sent == 0


@pytest.mark.parametrize("bad", [bytes(200_000), bytes(300_000), CONTENT + b"more"])
def test_download_starts_again_if_the_partial_file_is_wrong(fake, tmp_path, bad):
    (tmp_path / "p").write_bytes(bad)
    fetch_to(fake, tmp_path / "p")
    assert (tmp_path / "p").read_bytes() == CONTENT


def test_download_from_a_hub_that_ignores_ranges(fake, tmp_path):
    fake.ignore_ranges, fake.drop_after = True, [100_000]
    fetch_to(fake, tmp_path / "p")
    assert (tmp_path / "p").read_bytes() == CONTENT


def test_download_discards_a_part_that_was_not_requested(fake, tmp_path):
    fake.wrong_range, fake.drop_after = True, [100_000]
    fetch_to(fake, tmp_path / "p")
    assert (tmp_path / "p").read_bytes() == CONTENT


def test_download_starts_again_if_the_hub_lacks_the_rest(fake, tmp_path):
    hub = hub_at(fake, retries=2)
    remote = look_up(hub, REPO, NAME, "main")
    (tmp_path / "p").write_bytes(CONTENT[:200_000])
    fake.large[REPO, NAME] = b"short"
    with pytest.raises(DownloadError, match="127.0.0.1.* does not send the rest of|lost the connection"):
        download_file(hub, remote, tmp_path / "p")
    fake.large[REPO, NAME] = CONTENT
    download_file(hub, remote, tmp_path / "p")
    assert (tmp_path / "p").read_bytes() == CONTENT
    assert [request.first_byte for request in fake.requests if request.path.startswith("/store/")][:2] == [
        200_000,
        0,
    ]


def test_download_works_without_content_length(fake, tmp_path):
    fake.without_length, fake.drop_after = True, [100_000]
    fetch_to(fake, tmp_path / "p")
    assert (tmp_path / "p").read_bytes() == CONTENT


def test_download_gives_up_on_a_hub_that_cuts_every_connection(fake, tmp_path):
    fake.drop_after = [1000] * 50
    with pytest.raises(DownloadError) as error:
        fetch_to(fake, tmp_path / "p", retries=3)
    assert "lost the connection to 127.0.0.1" in one_line(error)
    assert "after 4,000 of 300,000 bytes" in str(error.value)
    assert "continues where it stopped" in str(error.value)
    assert (tmp_path / "p").read_bytes() == CONTENT[:4000]


def test_download_resets_its_retries_after_progress(tmp_path):
    content = os.urandom(5 << 20)
    with FakeHub(large={(REPO, NAME): content}) as fake:
        fake.drop_after = [(1 << 20) + 1] * 4
        fetch_to(fake, tmp_path / "p", retries=1)
    assert (tmp_path / "p").read_bytes() == content


def test_download_deletes_a_file_with_another_hash(fake, tmp_path):
    fake.wrong_hash = True
    with pytest.raises(DownloadError) as error:
        fetch_to(fake, tmp_path / "p")
    expected_hash = hashlib.sha256(CONTENT).hexdigest()[::-1]
    assert f"sent {NAME} with a hash other than {expected_hash}, so it was deleted" in one_line(error)
    assert not (tmp_path / "p").exists()


def test_download_deletes_a_file_that_is_too_long(fake, tmp_path):
    fake.extra_bytes = 10
    with pytest.raises(DownloadError) as error:
        fetch_to(fake, tmp_path / "p")
    assert f"sends more than the 300,000 bytes of {NAME}" in one_line(error)
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize("page_type", ["text/html", "application/octet-stream"])
def test_download_recognizes_a_web_page(fake, tmp_path, page_type):
    fake.page_for_get, fake.page_type = True, page_type
    with pytest.raises(DownloadError) as error:
        fetch_to(fake, tmp_path / "p")
    assert f"sent a web page instead of {NAME} (log in to the network first" in one_line(error)
    assert not (tmp_path / "p").exists() or PAGE not in (tmp_path / "p").read_bytes()


def test_look_up_recognizes_a_web_page(fake):
    fake.page_for_head = True
    with pytest.raises(DownloadError) as error:
        look_up(hub_at(fake), REPO, NAME, "main")
    assert "does not answer like a Hugging Face hub" in one_line(error)


def test_look_up_recognizes_the_login_page_of_a_network(fake):
    with FakeHub(page_for_head=True) as portal:
        fake.head_statuses, fake.headers = [302], {"Location": f"{portal.url}/login"}
        with pytest.raises(DownloadError) as error:
            look_up(hub_at(fake, token="secret"), REPO, NAME, "main")
        assert [request.authorization for request in portal.requests] == [None]
    assert "does not answer like a Hugging Face hub" in one_line(error)


@pytest.mark.parametrize(
    ("status", "headers", "token", "message"),
    [
        (401, {}, None, "set HF_TOKEN"),
        (403, {}, "wrong", "is not accepted"),
        (404, {}, None, f"answered HTTP 404 for {REPO}/{NAME} at revision main (there is no such file or revision"),
        (418, {}, None, "HTTP 418"),
    ],
)
def test_look_up_reports_a_refusal_at_once(fake, status, headers, token, message):
    fake.head_statuses, fake.headers = [status] * 9, headers
    with pytest.raises(DownloadError) as error:
        look_up(hub_at(fake, token), REPO, NAME, "main")
    assert message in one_line(error)
    assert "wrong" not in str(error.value)
    assert len(fake.requests) == 1


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_requests_are_repeated_after_passing_failures(fake, tmp_path, status):
    fake.head_statuses, fake.get_statuses = [status], [status, status]
    fetch_to(fake, tmp_path / "p")
    assert (tmp_path / "p").read_bytes() == CONTENT


@pytest.mark.parametrize(("status", "hint"), [(429, "wait some minutes"), (503, "try again later")])
def test_lasting_failures_are_reported(fake, tmp_path, status, hint):
    fake.get_statuses = [status] * 50
    with pytest.raises(DownloadError) as error:
        fetch_to(fake, tmp_path / "p")
    assert f"HTTP {status}" in one_line(error)
    assert hint in str(error.value)
    assert sum(request.method == "GET" for request in fake.requests) == 6


def test_retry_waits_as_long_as_the_hub_asks(fake, monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    fake.head_statuses, fake.headers = [429, 503], {"Retry-After": "7"}
    look_up(hub_at(fake), REPO, NAME, "main")
    fake.head_statuses, fake.headers = [429], {"Retry-After": "100000"}
    look_up(hub_at(fake), REPO, NAME, "main")
    assert waits == [7, 7, 60]


def test_silent_connection_counts_as_lost(fake, tmp_path):
    fake.stall_s = [0.6]
    fetch_to(fake, tmp_path / "p", timeout_s=0.2)
    assert (tmp_path / "p").read_bytes() == CONTENT
    fake.stall_s = [0.6] * 5
    with pytest.raises(DownloadError) as error:
        fetch_to(fake, tmp_path / "q", timeout_s=0.2, retries=1)
    assert "no answer from localhost" in one_line(error)


def test_closed_port_is_reported_in_one_line():
    with socket.socket() as not_listening:
        not_listening.bind(("127.0.0.1", 0))
        hub = Hub(f"http://127.0.0.1:{not_listening.getsockname()[1]}", first_wait_s=0.001)
        with pytest.raises(DownloadError) as error:
            look_up(hub, REPO, NAME, "main")
    assert "cannot reach 127.0.0.1" in one_line(error)
    assert "Connection refused" in str(error.value)
    assert "HF_ENDPOINT" in str(error.value)


def test_host_name_that_does_not_resolve_is_reported_in_one_line(monkeypatch):
    def unknown(*arguments: object, **options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(DownloadError) as error:
        look_up(Hub("http://hub.example", first_wait_s=0.001), REPO, NAME, "main")
    assert "cannot reach hub.example: Name or service not known" in one_line(error)


def test_answer_that_is_not_http_is_reported_in_one_line():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def answer_as_mail_server() -> None:
            for _ in range(3):
                connection, _ = server.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(b"220 smtp ready\r\n")

        thread = threading.Thread(target=answer_as_mail_server)
        thread.start()
        hub = Hub(f"http://127.0.0.1:{server.getsockname()[1]}", first_wait_s=0.001)
        with pytest.raises(DownloadError) as error:
            look_up(hub, REPO, NAME, "main")
        thread.join()
    assert "cannot reach 127.0.0.1" in one_line(error)


def test_token_is_sent_to_the_hub_only(fake, tmp_path):
    with FakeHub(large=fake.large) as store:
        fake.store_url = store.url
        hub = hub_at(fake, token="secret")
        download_file(hub, look_up(hub, REPO, NAME, "main"), tmp_path / "p")
        assert {request.authorization for request in store.requests} == {None}
    assert {request.authorization for request in fake.requests} == {"Bearer secret"}
    assert "secret" not in repr(hub)


def test_redirect_to_a_local_file_is_refused(fake, tmp_path):
    hub = hub_at(fake)
    remote = look_up(hub, REPO, NAME, "main")
    fake.get_statuses, fake.headers = [302], {"Location": "file:///etc/hostname"}
    with pytest.raises(DownloadError, match="redirects to file:///etc/hostname, which is not a web address"):
        download_file(hub, remote, tmp_path / "p")


def test_endless_redirects_are_reported(fake, tmp_path):
    hub = hub_at(fake)
    remote = look_up(hub, REPO, NAME, "main")
    fake.get_statuses, fake.headers = [302] * 50, {"Location": "/again"}
    with pytest.raises(DownloadError, match="redirects too often"):
        download_file(hub, remote, tmp_path / "p")


def test_proxy_in_the_environment_is_used(fake, monkeypatch):
    monkeypatch.setenv("http_proxy", fake.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    fake.head_statuses = [401]
    with pytest.raises(DownloadError, match="hub.example answered HTTP 401"):
        look_up(Hub("http://hub.example"), REPO, NAME, "main")
    assert fake.requests[0].path == f"http://hub.example/{REPO}/resolve/main/{NAME}"


@pytest.mark.parametrize("endpoint", ["hub.example", "ftp://hub.example", "http:///x", "http://a:b", "/mirror"])
def test_invalid_endpoint_is_reported(monkeypatch, endpoint):
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    with pytest.raises(DownloadError) as error:
        Hub.from_environment()
    assert f"HF_ENDPOINT is {endpoint!r}, but must be a web address" in one_line(error)


def test_hub_follows_changes_of_the_environment(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/")
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert Hub.from_environment() == Hub("https://mirror.example", "secret")
    monkeypatch.delenv("HF_ENDPOINT")
    assert Hub.from_environment().endpoint == "https://huggingface.co"


def test_weights_that_begin_like_html_are_accepted(tmp_path):
    content = b"<\x00\x00\x00\x00\x00\x00\x00" + CONTENT  # the first bytes of a safetensors file with a 60-byte header
    with FakeHub(large={(REPO, NAME): content}) as fake:
        fetch_to(fake, tmp_path / "p")
    assert (tmp_path / "p").read_bytes() == content


# Waits, slow and lying servers


def test_waits_are_shown(fake, tmp_path):
    notes: list[str] = []
    hub = hub_at(fake, first_wait_s=0.01)
    fake.head_statuses, fake.drop_after = [503], [100_000]
    remote = look_up(hub, REPO, NAME, "main", lambda name, done, total, note: notes.append(note))
    download_file(hub, remote, tmp_path / "p", lambda *step: notes.append(step[3]) if step[3] else None)
    host = fake.url.removeprefix("http://")
    assert notes == [
        f"{host} answered HTTP 503 for {REPO}/{NAME} at revision main; trying again in 0 s",
        f"lost the connection to {host} after 100,000 of 300,000 bytes of {NAME}; trying again in 0 s",
    ]


def test_slow_connection_counts_as_cut(fake, tmp_path):
    fake.chunk_bytes, fake.chunk_pause_s = 100, 0.01
    with pytest.raises(DownloadError) as error:
        fetch_to(fake, tmp_path / "p", retries=1, slow_after_s=0.05, slow_bytes_per_s=1e9)
    assert "sends less than 1,000,000,000 bytes/s; stopped after" in one_line(error)
    assert "continues where it stopped" in str(error.value)
    kept = (tmp_path / "p").read_bytes()
    assert CONTENT.startswith(kept) and kept
    fake.chunk_bytes, fake.chunk_pause_s = 4096, 0.0
    before = len(fake.requests)
    fetch_to(fake, tmp_path / "p")
    assert (tmp_path / "p").read_bytes() == CONTENT
    assert [request.first_byte for request in fake.requests[before:]][-1] == len(kept)


def test_headers_that_drip_count_as_cut():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            for _ in range(2):
                connection, _ = server.accept()
                with connection, contextlib.suppress(OSError):
                    connection.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
                    while True:
                        connection.sendall(b"x")
                        time.sleep(0.01)

        thread = threading.Thread(target=drip)
        thread.start()
        hub = Hub(f"http://127.0.0.1:{server.getsockname()[1]}", None, 0.1, 1, 0.001, slow_after_s=0.1)
        with pytest.raises(DownloadError) as error:
            look_up(hub, REPO, NAME, "main")
        thread.join()
    assert "127.0.0.1" in one_line(error)


def test_connection_that_is_fast_enough_is_kept(fake, tmp_path):
    fake.chunk_bytes, fake.chunk_pause_s = 30_000, 0.02
    fetch_to(fake, tmp_path / "p", retries=0, slow_after_s=0.05, slow_bytes_per_s=1000.0)
    assert (tmp_path / "p").read_bytes() == CONTENT


@pytest.fixture
def empty() -> Iterator[FakeHub]:
    with FakeHub() as fake:  # without content, as hypothesis prints its arguments
        yield fake


def _only_loopback(host: Any, *more: Any, **options: Any) -> Any:
    if host not in ("127.0.0.1", "localhost"):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return _getaddrinfo(host, *more, **options)


@hypothesis.settings(max_examples=60, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.example("http://[::1")
@hypothesis.example("http://a:b/")
@hypothesis.example("http://")
@hypothesis.example("http://xn--/")
@hypothesis.example("https:///x")
@hypothesis.example("file:///etc/hostname")
@hypothesis.example("//[")
@hypothesis.example("http://%00/")
@hypothesis.given(
    st.builds(
        str.__add__,
        st.sampled_from(["http://", "https://", "//", "nowhere:", "http://a:", "http://["]),
        st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f")),
    )
)
def test_redirect_to_anything_is_an_error_of_one_line(empty, tmp_path_factory, monkeypatch, location):
    partial = tmp_path_factory.getbasetemp() / "never-written"
    monkeypatch.setattr(socket, "getaddrinfo", _only_loopback)
    empty.headers = {"Location": location}
    for method, statuses in (("HEAD", empty.head_statuses), ("GET", empty.get_statuses)):
        statuses[:] = [302]
        with pytest.raises(DownloadError) as error:
            if method == "HEAD":
                look_up(hub_at(empty, retries=0), REPO, NAME, "main")
            else:
                url = f"{empty.url}/{REPO}/resolve/main/{NAME}"
                download_file(hub_at(empty, retries=0), RemoteFile(NAME, url, "0" * 64), partial)
        one_line(error)


@pytest.mark.parametrize("kind", ["link", "hard link", "dangling link", "pipe"])
def test_nothing_planted_as_partial_file_is_written_through(fake, tmp_path, kind):
    canary, partial = tmp_path / "canary", tmp_path / "p"
    canary.write_bytes(CONTENT[:1000])
    if kind == "hard link":
        os.link(canary, partial)
    elif kind == "pipe":
        os.mkfifo(partial)
    else:
        partial.symlink_to(canary if kind == "link" else tmp_path / "nowhere")
    fetch_to(fake, partial)
    assert partial.read_bytes() == CONTENT and not partial.is_symlink()
    assert canary.read_bytes() == CONTENT[:1000]
    assert not (tmp_path / "nowhere").exists()


def test_complete_file_of_unknown_size_is_only_checked(fake, tmp_path):
    (tmp_path / "p").write_bytes(CONTENT)
    remote = RemoteFile(NAME, f"{fake.url}/store/{REPO}/{NAME}", hashlib.sha256(CONTENT).hexdigest())
    download_file(hub_at(fake), remote, tmp_path / "p")
    assert fake.n_sent == 0


def test_absurd_numbers_in_headers_are_ignored(fake, monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    fake.head_statuses, fake.headers = [503], {"Retry-After": "9" * 5000}
    look_up(hub_at(fake), REPO, NAME, "main")
    assert waits == [0.001]


@pytest.mark.parametrize("token", ["hf_x\ny", "hf_\u2028", "hf_x\x00"])
def test_token_that_cannot_be_sent_is_not_shown(token):
    with pytest.raises(DownloadError) as error:
        Hub(token=token)
    assert "HF_TOKEN" in one_line(error) and "hf_" not in str(error.value)


@pytest.mark.parametrize(
    ("variable", "value"),
    [("HTTP_PROXY", "nonsense://x"), ("ALL_PROXY", "http://[::1"), ("SSL_CERT_FILE", "/nowhere/x.pem")],
)
def test_unusable_proxy_or_certificate_is_reported(fake, monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    with pytest.raises(DownloadError, match="cannot be used") as error:
        look_up(hub_at(fake), REPO, NAME, "main")
    assert "HTTPS_PROXY" in one_line(error)
