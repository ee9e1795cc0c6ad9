"""A fake Hugging Face hub on loopback that serves a few files, with configurable faults.

It answers the two requests of a download, HEAD and GET of a `/resolve/` URL, with the headers of the real hub: large
files are redirected to a store, small ones are served directly. `/api/models/` lists the files of a repository.
"""

import hashlib
import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from textcap.weights.hub import Hub

COMMIT = "a" * 40
PAGE = b"<!DOCTYPE html><html><body>Please log in to the network</body></html>"


def git_hash(content: bytes) -> str:
    """Return the SHA-1 of a git blob, which the hub sends as the ETag of small files."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Request:
    """One request that was received."""

    method: str
    path: str
    first_byte: int  # start of the requested range
    authorization: str | None  # the Authorization header
    n_sent: int = 0  # number of bytes of the body that were sent


@dataclass
class FakeHub:
    """The files to serve and the faults to make; fields can be changed at any time.

    A fault that is a list applies to one request per entry and is then over.
    """

    large: dict[tuple[str, str], bytes] = field(default_factory=dict)  # content by repository and file name
    small: dict[tuple[str, str], bytes] = field(default_factory=dict)  # content by repository and file name
    cards: dict[str, Any] = field(default_factory=dict)  # what the cards of repositories state, by repository
    commit: str = COMMIT  # the commit of the branch main
    other_commits: dict[str, str] = field(default_factory=dict)  # commits by revision
    requests: list[Request] = field(default_factory=list)  # all requests so far

    head_statuses: list[int] = field(default_factory=list)  # status codes of the next HEAD requests
    get_statuses: list[int] = field(default_factory=list)  # status codes of the next GET requests
    headers: dict[str, str] = field(default_factory=dict)  # headers to add to error responses
    drop_after: list[int] = field(default_factory=list)  # cut the connection of a GET after this number of bytes
    stall_s: list[float] = field(default_factory=list)  # wait this long before responding to a GET
    chunk_bytes: int = 4096  # send bodies in pieces of this size
    chunk_pause_s: float = 0.0  # pause after each piece of a body
    ignore_ranges: bool = False  # always send the whole file
    wrong_range: bool = False  # send a range that starts one byte too early
    wrong_hash: bool = False  # send the wrong hash of a file
    extra_bytes: int = 0  # number of bytes to send after the end of a file
    page_for_head: bool = False  # respond to HEAD with a web page, like a captive portal
    page_for_get: bool = False  # respond to GET with a web page, like a captive portal
    page_type: str = "text/html; charset=utf-8"  # content type of that page
    without_length: bool = False  # leave out the Content-Length header
    store_url: str | None = None  # URL of the store for large files; by default this server under another host name

    def __enter__(self) -> "FakeHub":
        hub = self

        class Handler(_Handler):
            fake = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def n_sent(self) -> int:
        """Number of bytes sent in response to GET so far."""
        return sum(request.n_sent for request in self.requests if request.method == "GET")

    def publish(self, repo: str, folder: Path) -> None:
        """Serve the files of a folder as a repository, weights as large files."""
        for path in folder.rglob("*"):
            if path.is_file():
                is_large = path.suffix in (".safetensors", ".bin")
                (self.large if is_large else self.small)[repo, path.relative_to(folder).as_posix()] = path.read_bytes()

    @property
    def commits(self) -> dict[str, str]:
        """The commits by revision, each also by itself."""
        commits = {"main": self.commit, **self.other_commits}
        return commits | {commit: commit for commit in commits.values()}

    def content(self, repo: str, name: str) -> bytes | None:
        """Return the content of a file, or None if the hub does not have it."""
        return self.large.get((repo, name), self.small.get((repo, name)))


class _Handler(BaseHTTPRequestHandler):
    fake: FakeHub
    # One connection per request, so that a connection that is cut is not used again.
    protocol_version = "HTTP/1.0"

    def log_message(self, *arguments: Any) -> None:
        return

    def do_HEAD(self) -> None:
        self._answer("HEAD")

    def do_GET(self) -> None:
        self._answer("GET")

    def _answer(self, method: str) -> None:
        first = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0]
        request = Request(method, self.path, int(first), self.headers.get("Authorization"))
        self.fake.requests.append(request)
        statuses = self.fake.head_statuses if method == "HEAD" else self.fake.get_statuses
        status = statuses.pop(0) if statuses else 200
        if status != 200:
            self._send_status(status)
        elif self.fake.page_for_head if method == "HEAD" else self.fake.page_for_get:
            self._send(200, {"Content-Type": self.fake.page_type, "Content-Length": str(len(PAGE))})
            if method == "GET":
                self.wfile.write(PAGE)
        elif self.path.startswith("/store/"):
            repo, name = self.path.removeprefix("/store/").rsplit("/", 1)
            self._serve(method, repo, name, request)
        elif self.path.startswith("/api/models/"):
            self._describe(request)
        else:
            self._resolve(method, request)

    def _describe(self, request: Request) -> None:
        repo, _, revision = self.path.removeprefix("/api/models/").partition("/revision/")
        names = sorted(name for owner, name in [*self.fake.large, *self.fake.small] if owner == repo)
        commit = self.fake.commits.get(unquote(revision))
        if not names or commit is None:
            self._send_status(404)
            return
        described = {"id": repo, "sha": commit, "siblings": [{"rfilename": name} for name in names]}
        body = json.dumps({**described, "cardData": self.fake.cards.get(repo)}).encode()
        self._send(200, {"Content-Type": "application/json", "Content-Length": str(len(body))})
        self._send_body(body, request)

    def _resolve(self, method: str, request: Request) -> None:
        repo, _, rest = self.path.lstrip("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        revision = unquote(revision)
        commits = self.fake.commits
        content = self.fake.content(repo, name)
        if content is None:
            self._send_status(404, {"X-Error-Code": "EntryNotFound"})
            return
        if revision not in commits:
            self._send_status(404, {"X-Error-Code": "RevisionNotFound"})
            return
        headers = {"X-Repo-Commit": commits[revision]}
        if (repo, name) in self.fake.small:
            digest = git_hash(content)
            self._serve(method, repo, name, request, {**headers, "ETag": f'"{self._sent_hash(digest)}"'})
            return
        digest = hashlib.sha256(content).hexdigest()
        headers |= {"X-Linked-Etag": f'"{self._sent_hash(digest)}"', "X-Linked-Size": str(len(content))}
        store = self.fake.store_url or self.fake.url.replace("127.0.0.1", "localhost")
        self._send(302, {**headers, "Location": f"{store}/store/{repo}/{name}", "Content-Length": "0"})

    def _sent_hash(self, digest: str) -> str:
        return digest[::-1] if self.fake.wrong_hash else digest

    def _serve(
        self, method: str, repo: str, name: str, request: Request, extra_headers: dict[str, str] | None = None
    ) -> None:
        content = self.fake.content(repo, name)
        if content is None:
            self._send_status(404)
            return
        if self.fake.stall_s and method == "GET":
            time.sleep(self.fake.stall_s.pop(0))
        first = 0 if self.fake.ignore_ranges else request.first_byte
        if first >= len(content) > 0:
            self._send_status(416, {"Content-Range": f"bytes */{len(content)}"})
            return
        if self.fake.wrong_range and first:
            first -= 1
        body = content[first:] + b"x" * self.fake.extra_bytes
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(len(body)),
            **(extra_headers or {}),
        }
        if first:
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        if self.fake.without_length:
            del headers["Content-Length"]
        self._send(206 if first else 200, headers)
        if method == "GET":
            self._send_body(body, request)

    def _send_body(self, body: bytes, request: Request) -> None:
        limit = self.fake.drop_after.pop(0) if self.fake.drop_after else len(body)
        try:
            for start in range(0, min(limit, len(body)), self.fake.chunk_bytes):
                piece = body[start : min(start + self.fake.chunk_bytes, limit)]
                request.n_sent += len(piece)  # before writing: the client may be done before this thread goes on
                self.wfile.write(piece)
                time.sleep(self.fake.chunk_pause_s) if self.fake.chunk_pause_s else None
        except OSError:  # the client has closed the connection
            return

    def _send_status(self, status: int, headers: dict[str, str] | None = None) -> None:
        self._send(status, {**(headers or {}), **self.fake.headers, "Content-Length": "0"})

    def _send(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


def hub_at(fake: FakeHub) -> Hub:
    """Return the client's view of a fake hub, with short waits."""
    return Hub(fake.url, timeout_s=5.0, first_wait_s=0.001)
