"""Send one HTTP request to a Hugging Face hub or another server: redirects, the token, and errors of one line.

One client for all versions of huggingface_hub, which has changed its own twice (requests, httpx, httpx2). Its
`get_hf_file_metadata` is not used: in 0.x it retries for 23 s and logs eleven lines where there is no network.
"""

import os
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import httpx2
from huggingface_hub import get_token

from textcap.errors import DownloadError

DEFAULT_ENDPOINT = "https://huggingface.co"
NETWORK_HINT = "log in to the network first if it asks for it, and check HF_ENDPOINT and HTTPS_PROXY"
_MAX_REDIRECTS = 5
_REFUSED_HINT = "set HF_TOKEN to a token that may read it, and check HF_ENDPOINT"
_HINTS = {
    401: _REFUSED_HINT,
    403: _REFUSED_HINT,
    404: "there is no such file or revision: check --revision, and HF_ENDPOINT",
    429: "wait some minutes, or set HF_TOKEN: signed-in users may send more requests",
}


@dataclass(frozen=True)
class Hub:
    """The hub to download from, and when to try again or give up."""

    endpoint: str = DEFAULT_ENDPOINT  # address of the hub or of a mirror
    token: str | None = field(default=None, repr=False)  # sent to the endpoint's scheme, host and port only
    timeout_s: float = 20.0  # a connection without an answer for this long counts as lost
    retries: int = 5  # how often to try again in a row without progress
    first_wait_s: float = 1.0  # wait before the first retry; doubled each time
    slow_after_s: float = 30.0  # a connection counts as lost if, over this long,
    slow_bytes_per_s: float = 1000.0  # it brings fewer bytes per second than this

    def __post_init__(self) -> None:
        try:
            scheme, host, port = _origin(httpx2.URL(self.endpoint))
            good = scheme in ("http", "https") and bool(host) and port != 0
        except httpx2.InvalidURL:
            good = False
        if not good:
            message = f"HF_ENDPOINT is {self.endpoint!r}, but must be a web address"
            raise DownloadError(message, hint=f"use an address such as {DEFAULT_ENDPOINT}")
        if self.token and not (self.token.isascii() and self.token.isprintable()):
            hint = "check HF_TOKEN, or run hf auth login again"
            raise DownloadError("the token for the hub has characters that no token has", hint=hint)

    @classmethod
    def from_environment(cls) -> "Hub":
        """Return the hub that HF_ENDPOINT currently names, with the user's token."""
        return cls((os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/"), get_token())


class PassingFailure(DownloadError):
    """A failure after which another try may succeed.

    Attributes:
        wait_s: Seconds that the server asks to wait before it; 0 if it does not say.
    """

    def __init__(self, message: str, *, hint: str, wait_s: float = 0.0) -> None:
        super().__init__(message, hint=hint)
        self.wait_s = wait_s


class Refused(DownloadError):
    """The server wants a token, or another one; hubs also say so of what does not exist."""


class Unreachable(PassingFailure):
    """No server answered."""


@contextmanager
def answer(
    hub: Hub, method: str, url: str, what: str, headers: Mapping[str, str] | None = None
) -> Iterator[httpx2.Response]:
    """Send a request, follow its redirects, and yield the answer; its body is not read yet.

    Args:
        hub: The hub; its token is sent only to its own scheme, host and port.
        method: "HEAD" or "GET". The answer to HEAD may be a redirect that describes the file that it leads to.
        url: The address.
        what: What is requested, for error messages.
        headers: Headers to send.

    Raises:
        PassingFailure: There is no answer, or the server is busy.
        DownloadError: The server refuses, does not have the file, or redirects to something else than a web address.
    """
    # "identity": a compressed answer would have another size and could not be resumed.
    sent = {"User-Agent": "textcap", "Accept-Encoding": "identity", **(headers or {})}
    try:
        client = httpx2.Client(timeout=hub.timeout_s)  # made for each request, so that the current proxy is used
    except (OSError, ImportError, ValueError, httpx2.InvalidURL) as error:
        message = f"the proxy or certificate settings cannot be used: {one_line(error)}"
        raise DownloadError(message, hint="check HTTPS_PROXY, ALL_PROXY and SSL_CERT_FILE") from error
    try:
        with client:
            try:
                response = _send(hub, client, client.build_request(method, url, headers=sent))
            except (httpx2.InvalidURL, ValueError) as error:
                message = f"{host_of(url)} redirects to an address that is not valid: {one_line(error)}"
                raise DownloadError(message, hint=NETWORK_HINT) from error
            try:
                _check_status(hub, response, what)
                yield response
            finally:
                response.close()
    except httpx2.TransportError as error:
        raise _unreachable(error.request.url, error) from error


def is_offline() -> bool:
    """Return whether Hugging Face's environment variables forbid the use of the network."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return any(os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE") for name in names)


def check_online(remedy: str) -> None:
    """Raise a DownloadError if the environment forbids the use of the network, with what to do instead."""
    if is_offline():
        message = "the environment forbids downloads (HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set)"
        raise DownloadError(message, hint=f"unset it, or {remedy}")


def host_of(url: httpx2.URL | str) -> str:
    """Return the host and port of an address, as messages show them."""
    return httpx2.URL(url).netloc.decode("ascii")


def number_of(text: str) -> int | None:
    """Return the number in a header, or None if there is none, or none of a sensible size."""
    return int(text) if text.isdecimal() and len(text) < 18 else None


def one_line(error: BaseException) -> str:
    """Return the reason of an error in one line."""
    return " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__


def _origin(url: httpx2.URL) -> tuple[str, bytes, int | None]:
    return url.scheme, url.raw_host, url.port  # None for the scheme's own port


def _send(hub: Hub, client: httpx2.Client, request: httpx2.Request) -> httpx2.Response:
    for _ in range(_MAX_REDIRECTS + 1):
        request.headers.pop("Authorization", None)
        if hub.token and _origin(request.url) == _origin(httpx2.URL(hub.endpoint)):
            request.headers["Authorization"] = f"Bearer {hub.token}"
        with _answer_within(hub.timeout_s + hub.slow_after_s, request):
            response = client.send(request, stream=True)
        # The store of large files need not describe them, so the redirect to it is the answer.
        describes = request.method == "HEAD" and "X-Linked-Etag" in response.headers
        if describes or not response.has_redirect_location:
            return response
        response.close()  # unread, for a server may send a body without end
        following = response.next_request
        if following is None or following.url.scheme not in ("http", "https"):
            target = " ".join(response.headers["Location"].split())
            message = f"{host_of(request.url)} redirects to {target}, which is not a web address"
            raise DownloadError(message, hint=NETWORK_HINT)
        request = following
    raise DownloadError(f"{host_of(request.url)} redirects too often", hint=NETWORK_HINT)


@contextmanager
def _answer_within(seconds: float, request: httpx2.Request) -> Iterator[None]:
    """Cut the connection if the headers are not there in time, for the timeout of a read starts anew at each byte."""
    sockets: list[socket.socket] = []

    def keep_socket(event: str, info: Mapping[str, Any]) -> None:
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            sockets.append(info["return_value"].get_extra_info("socket"))

    def cut() -> None:
        with suppress(OSError, IndexError):
            sockets[-1].shutdown(socket.SHUT_RDWR)

    request.extensions["trace"] = keep_socket
    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _check_status(hub: Hub, response: httpx2.Response, what: str) -> None:
    status = response.status_code
    if status < 400 or status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        return
    message = f"{host_of(response.url)} answered HTTP {status} for {what}"
    hint = _HINTS.get(status, "try again later" if status >= 500 else NETWORK_HINT)
    if status >= 500 or status in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS):
        raise PassingFailure(message, hint=hint, wait_s=number_of(response.headers.get("Retry-After", "")) or 0)
    if hub.token and hint == _REFUSED_HINT:
        hint = "renew or remove your token (HF_TOKEN, or the one of hf auth login): it is not accepted"
    raise (Refused if status in (401, 403) else DownloadError)(message, hint=hint)


def _unreachable(url: httpx2.URL, error: httpx2.TransportError) -> DownloadError:
    cause: BaseException = error
    while (inner := cause.__cause__ or cause.__context__) is not None:
        cause = inner
    if isinstance(cause, ssl.SSLCertVerificationError):
        hint = "if a proxy decrypts connections, set SSL_CERT_FILE to its certificate"
        return DownloadError(f"the certificate of {host_of(url)} is not trusted: {cause.verify_message}", hint=hint)
    if isinstance(error, httpx2.TimeoutException):
        return Unreachable(f"no answer from {host_of(url)} in time", hint="check the network and run the command again")
    hint = "check the network, HF_ENDPOINT and HTTPS_PROXY; the tiny backbone needs no network"
    return Unreachable(f"cannot reach {host_of(url)}: {one_line(cause)}", hint=hint)
