"""Send HTTP requests to a Hugging Face hub; the token goes to the hub alone, and errors are one line.

Redirects are returned to the caller. A failure is a DownloadError, or a PassingFailure if another try may succeed.

The standard library's client is used because huggingface_hub has changed its own twice (requests, httpx, httpx2), and
because huggingface_hub 2.x requests more from huggingface.co than the file. The proxy variables are the same.
"""

import http.client
import os
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import urljoin, urlsplit

from huggingface_hub import get_token

from textcap.errors import DownloadError

DEFAULT_ENDPOINT = "https://huggingface.co"
MAX_REDIRECTS = 5
NETWORK_HINT = "log in to the network first if it asks for it, and check HF_ENDPOINT and HTTPS_PROXY"
_LONGEST_WAIT_S = 60.0
_PASSING = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)


@dataclass(frozen=True)
class Hub:
    """The hub to download from, and when to try again or give up."""

    endpoint: str = DEFAULT_ENDPOINT  # address of the hub or of a mirror
    token: str | None = field(default=None, repr=False)  # sent to the endpoint only
    timeout_s: float = 20.0  # a connection without an answer for this long counts as lost
    retries: int = 5  # how often to try again in a row without progress
    first_wait_s: float = 1.0  # wait before the first retry; doubled each time

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.endpoint)
            good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:  # the port is not a number
            good = False
        if not good:
            message = f"HF_ENDPOINT is {self.endpoint!r}, but must be a web address"
            raise DownloadError(message, hint=f"use an address such as {DEFAULT_ENDPOINT}")

    @classmethod
    def from_environment(cls) -> "Hub":
        """Return the hub that HF_ENDPOINT currently names, with the user's token."""
        return cls((os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/"), get_token())


class PassingFailure(DownloadError):
    """A failure after which another try may succeed.

    Attributes:
        wait_s: Seconds that the hub asks to wait before it; 0 if it does not say.
    """

    def __init__(self, message: str, *, hint: str, wait_s: float = 0.0) -> None:
        super().__init__(message, hint=hint)
        self.wait_s = wait_s


def request(hub: Hub, method: str, url: str, headers: dict[str, str] | None = None) -> http.client.HTTPResponse:
    """Send one request and return the answer, including redirects and HTTP errors.

    Args:
        hub: The hub; its token is sent only if the address is the hub's own.
        method: "HEAD" or "GET".
        url: The address, on the hub or where the hub redirects to.
        headers: Additional headers to send.

    Raises:
        DownloadError: There is no answer, or the address is not valid.
    """
    # "identity": a compressed answer would have another size and could not be resumed.
    sent = {"User-Agent": "textcap", "Accept-Encoding": "identity", **(headers or {})}
    if hub.token and _origin(url) == _origin(hub.endpoint):
        sent["Authorization"] = f"Bearer {hub.token}"
    try:
        # Built for each request, so that the current proxy variables apply.
        opener = urllib.request.build_opener(_AnyStatus)
        response = opener.open(urllib.request.Request(url, method=method, headers=sent), timeout=hub.timeout_s)
    except (OSError, http.client.HTTPException) as error:
        raise connection_failure(url, error) from error
    except ValueError as error:  # a redirect to an address that is not valid
        raise DownloadError(f"{url} is not a valid address: {error}", hint=NETWORK_HINT) from error
    if not isinstance(response, http.client.HTTPResponse):
        raise DownloadError(f"{url} is not served over HTTP", hint=NETWORK_HINT)
    return response


def redirect_of(response: http.client.HTTPResponse, url: str) -> str | None:
    """Return the address that an answer redirects to, or None if it is not a redirect.

    Raises:
        DownloadError: The address is not a web address.
    """
    location = response.headers.get("Location")
    if response.status not in (301, 302, 303, 307, 308) or not location:
        return None
    target = urljoin(url, location)
    if urlsplit(target).scheme not in ("http", "https"):
        raise DownloadError(f"{host_of(url)} redirects to {target}, which is not a web address", hint=NETWORK_HINT)
    return target


def check_status(hub: Hub, response: http.client.HTTPResponse, url: str, what: str, revision: str) -> None:
    """Raise an error unless the answer contains the file or a part of it.

    Args:
        hub: The hub that the request was sent to.
        response: The answer, not a redirect.
        url: The address that the answer came from.
        what: Repository and file, for the message.
        revision: Requested branch, tag or commit, for the message.

    Raises:
        PassingFailure: The hub is busy or has an internal error.
        DownloadError: The hub refuses the request, or does not have the file.
    """
    status, host = response.status, host_of(url)
    if status in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
        return
    if status in _PASSING or status >= 500:
        busy = status == HTTPStatus.TOO_MANY_REQUESTS
        hint = (
            "wait some minutes, or set HF_TOKEN: signed-in users may send more requests" if busy else "try again later"
        )
        retry_after = response.headers.get("Retry-After", "")
        wait_s = float(retry_after) if retry_after.isdecimal() else 0.0
        raise PassingFailure(f"{host} returned HTTP {status} for {what}", hint=hint, wait_s=wait_s)
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        hint = "set HF_TOKEN to a token that may read it, and check HF_ENDPOINT"
        if hub.token:
            hint = "renew or remove your token (HF_TOKEN, or the one of hf auth login): it is not accepted"
        raise DownloadError(f"{host} refused access to {what} (HTTP {status})", hint=hint)
    if status == HTTPStatus.NOT_FOUND and response.headers.get("X-Error-Code") == "RevisionNotFound":
        hint = "give --revision a branch, tag or full commit of the repository, or omit it"
        raise DownloadError(f"there is no revision {revision!r} of {what}", hint=hint)
    if status == HTTPStatus.NOT_FOUND:
        raise DownloadError(f"{host} has no {what} at revision {revision}", hint="check --revision and HF_ENDPOINT")
    raise DownloadError(f"{host} returned HTTP {status} for {what} at revision {revision}", hint=NETWORK_HINT)


def connection_failure(url: str, error: Exception) -> DownloadError:
    """Return an error that says in one line why there was no answer."""
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    host = host_of(url)
    if isinstance(reason, ssl.SSLCertVerificationError):
        hint = "if a proxy decrypts connections, set SSL_CERT_FILE to its certificate"
        return DownloadError(f"the certificate of {host} is not trusted: {reason.verify_message}", hint=hint)
    if isinstance(reason, TimeoutError):
        return PassingFailure(f"no answer from {host} in time", hint="check the network and run the command again")
    text = getattr(reason, "strerror", None) or " ".join(str(reason).split()) or type(reason).__name__
    hint = "check the network, HF_ENDPOINT and HTTPS_PROXY; --backbone tiny needs no network"
    return PassingFailure(f"cannot reach {host}: {text}", hint=hint)


def wait(hub: Hub, failures: int, error: PassingFailure) -> None:
    """Sleep before the next try: longer after each failure, at least as long as the hub asks, up to a limit."""
    time.sleep(min(max(hub.first_wait_s * 2**failures, error.wait_s), _LONGEST_WAIT_S))


def host_of(url: str) -> str:
    """Return the host and port of an address, as messages show them."""
    return urlsplit(url).netloc.rpartition("@")[2]


class _AnyStatus(urllib.request.HTTPErrorProcessor):
    """Returns every answer instead of following redirects and raising HTTP errors."""

    def http_response(
        self, request: urllib.request.Request, response: http.client.HTTPResponse
    ) -> http.client.HTTPResponse:
        return response

    https_response = http_response


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
