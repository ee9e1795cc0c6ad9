"""A Hugging Face hub on loopback that serves a few files, and misbehaves when told to.

It answers the two requests that fetching a file takes, HEAD and GET of a resolve address, with the headers of
the real hub: large files are redirected to a store, small ones are served directly.
"""

import hashlib
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

COMMIT = "a" * 40
PAGE = b"<!DOCTYPE html><html><body>Please log in to the network</body></html>"


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Request:
    """One request as it was served."""

    method: str
    path: str
    first_byte: int  # of the range that was asked for
    authorization: str | None
    n_sent: int = 0  # bytes of body


@dataclass
class FakeHub:
    """What is served and how; change the fields at any time.

    The faults that are lists are used up, one entry for each request they apply to.
    """

    large: dict[tuple[str, str], bytes] = field(default_factory=dict)  # by repository and name
    small: dict[tuple[str, str], bytes] = field(default_factory=dict)
    commit: str = COMMIT
    other_commits: dict[str, str] = field(default_factory=dict)  # by revision
    requests: list[Request] = field(default_factory=list)

    head_statuses: list[int] = field(default_factory=list)
    get_statuses: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)  # added to error answers
    drop_after: list[int] = field(default_factory=list)  # bytes of a GET after which the connection is cut
    stall_s: list[float] = field(default_factory=list)  # before a GET is answered
    chunk_pause_s: float = 0.0  # after each 4 KiB
    ignore_ranges: bool = False
    wrong_range: bool = False  # answers with a part that was not asked for
    wrong_hash: bool = False
    extra_bytes: int = 0  # sent after the end of a file
    page_for_head: bool = False
    page_for_get: bool = False
    page_type: str = "text/html; charset=utf-8"
    without_length: bool = False
    store_url: str | None = None  # where large files lie, by default here under another host name

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
        """Bytes of files sent so far."""
        return sum(request.n_sent for request in self.requests if request.method == "GET")

    def content(self, repo: str, name: str) -> bytes | None:
        return self.large.get((repo, name), self.small.get((repo, name)))


class _Handler(BaseHTTPRequestHandler):
    fake: FakeHub
    # One request for each connection: one that is cut is cut for good.
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
        else:
            self._resolve(method, request)

    def _resolve(self, method: str, request: Request) -> None:
        repo, _, rest = self.path.lstrip("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        revision = unquote(revision)
        commits = {"main": self.fake.commit, **self.fake.other_commits}
        commits |= {commit: commit for commit in commits.values()}
        content = self.fake.content(repo, name)
        if content is None:
            self._send_status(404, {"X-Error-Code": "EntryNotFound"})
            return
        if revision not in commits:
            self._send_status(404, {"X-Error-Code": "RevisionNotFound"})
            return
        facts = {"X-Repo-Commit": commits[revision]}
        if (repo, name) in self.fake.small:
            digest = git_hash(content)
            self._serve(method, repo, name, request, {**facts, "ETag": f'"{self._lie(digest)}"'})
            return
        digest = hashlib.sha256(content).hexdigest()
        facts |= {"X-Linked-Etag": f'"{self._lie(digest)}"', "X-Linked-Size": str(len(content))}
        store = self.fake.store_url or self.fake.url.replace("127.0.0.1", "localhost")
        self._send(302, {**facts, "Location": f"{store}/store/{repo}/{name}", "Content-Length": "0"})

    def _lie(self, digest: str) -> str:
        return digest[::-1] if self.fake.wrong_hash else digest

    def _serve(self, method: str, repo: str, name: str, request: Request, facts: dict[str, str] | None = None) -> None:
        content = self.fake.content(repo, name)
        if content is None:
            self._send_status(404)
            return
        if self.fake.stall_s and method == "GET":
            time.sleep(self.fake.stall_s.pop(0))
        first = 0 if self.fake.ignore_ranges else request.first_byte
        if first >= len(content) > 0:
            self._send_status(416)
            return
        if self.fake.wrong_range and first:
            first -= 1
        body = content[first:] + b"x" * self.fake.extra_bytes
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(len(body)),
            **(facts or {}),
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
            for start in range(0, min(limit, len(body)), 4096):
                piece = body[start : min(start + 4096, limit)]
                self.wfile.write(piece)
                request.n_sent += len(piece)
                time.sleep(self.fake.chunk_pause_s) if self.fake.chunk_pause_s else None
        except OSError:  # the other side is gone
            return

    def _send_status(self, status: int, headers: dict[str, str] | None = None) -> None:
        self._send(status, {**(headers or {}), **self.fake.headers, "Content-Length": "0"})

    def _send(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
