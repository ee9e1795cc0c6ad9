"""Talk HTTP to a Hugging Face hub: one request at a time, the token for the hub alone, failures in one line.

Knows no files and no cache. Redirects come back as they are; what went wrong is a DownloadError, or a
PassingFailure when another try may succeed.

The standard library's client is used because huggingface_hub has changed its own twice (requests, httpx,
httpx2), and its 2.x asks huggingface.co for more than the file; the proxy variables are the same.
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
    """Where to fetch from, and with how much patience."""

    endpoint: str = DEFAULT_ENDPOINT  # address of the hub or of a mirror
    token: str | None = field(default=None, repr=False)  # sent to the endpoint and to nobody else
    timeout_s: float = 20.0  # silence after which a connection counts as lost
    retries: int = 5  # in a row, without progress
    first_wait_s: float = 1.0  # before the first retry; doubled each time

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.endpoint)
            good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:  # a port that is no number
            good = False
        if not good:
            message = f"HF_ENDPOINT is no address: {self.endpoint!r}"
            raise DownloadError(message, hint=f"it looks like {DEFAULT_ENDPOINT}")

    @classmethod
    def from_environment(cls) -> "Hub":
        """Return the hub that HF_ENDPOINT names now, with the user's token."""
        return cls((os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/"), get_token())


class PassingFailure(DownloadError):
    """May be gone when tried again.

    Attributes:
        wait_s: Seconds that the hub asks to wait, 0 when it does not say.
    """

    def __init__(self, message: str, *, hint: str, wait_s: float = 0.0) -> None:
        super().__init__(message, hint=hint)
        self.wait_s = wait_s


def request(hub: Hub, method: str, url: str, headers: dict[str, str] | None = None) -> http.client.HTTPResponse:
    """Send one request and return whatever comes back, redirects and errors too.

    Args:
        hub: Its token goes along where the address is the hub's own.
        method: "HEAD" or "GET".
        url: The address, of the hub or of where it redirects to.
        headers: What to send besides.

    Raises:
        DownloadError: No answer came.
    """
    # "identity": a compressed answer would have another size and could not be resumed.
    sent = {"User-Agent": "textcap", "Accept-Encoding": "identity", **(headers or {})}
    if hub.token and _origin(url) == _origin(hub.endpoint):
        sent["Authorization"] = f"Bearer {hub.token}"
    try:
        # Built each time, so that the proxy variables of now count.
        opener = urllib.request.build_opener(_AnyStatus)
        response = opener.open(urllib.request.Request(url, method=method, headers=sent), timeout=hub.timeout_s)
    except (OSError, http.client.HTTPException) as error:
        raise connection_failure(url, error) from error
    except ValueError as error:  # a redirect to something that is no address
        raise DownloadError(f"{url} is no address: {error}", hint=NETWORK_HINT) from error
    if not isinstance(response, http.client.HTTPResponse):
        raise DownloadError(f"{url} is not served over HTTP", hint=NETWORK_HINT)
    return response


def redirect_of(response: http.client.HTTPResponse, url: str) -> str | None:
    """Return the address that an answer points to, or None when it is no redirect."""
    location = response.headers.get("Location")
    if response.status not in (301, 302, 303, 307, 308) or not location:
        return None
    target = urljoin(url, location)
    if urlsplit(target).scheme not in ("http", "https"):
        raise DownloadError(f"{host_of(url)} redirects to {target}, which is no web address", hint=NETWORK_HINT)
    return target


def check_status(hub: Hub, response: http.client.HTTPResponse, url: str, what: str, revision: str) -> None:
    """Raise unless the answer is the file or a part of it.

    Args:
        hub: Who was asked.
        response: What came back, not a redirect.
        url: From where.
        what: Repository and file, for the message.
        revision: What was asked for, for the message.
    """
    status, host = response.status, host_of(url)
    if status in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
        return
    if status in _PASSING or status >= 500:
        busy = status == HTTPStatus.TOO_MANY_REQUESTS
        hint = "wait some minutes, or set HF_TOKEN: known users may ask more often" if busy else "try again later"
        pause = response.headers.get("Retry-After", "")
        wait_s = float(pause) if pause.isdecimal() else 0.0
        raise PassingFailure(f"{host} answers HTTP {status} for {what}", hint=hint, wait_s=wait_s)
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        hint = "set HF_TOKEN to a token that may read it, and check HF_ENDPOINT"
        if hub.token:
            hint = "your token (HF_TOKEN, or of hf auth login) is not accepted: renew or remove it"
        raise DownloadError(f"{host} refuses {what} (HTTP {status})", hint=hint)
    if status == HTTPStatus.NOT_FOUND and response.headers.get("X-Error-Code") == "RevisionNotFound":
        hint = "give --revision a branch, tag or full commit of it, or leave it out"
        raise DownloadError(f"there is no revision {revision!r} of {what}", hint=hint)
    if status == HTTPStatus.NOT_FOUND:
        raise DownloadError(f"{host} has no {what} at {revision}", hint="check --revision and HF_ENDPOINT")
    raise DownloadError(f"{host} answers HTTP {status} for {what} at {revision}", hint=NETWORK_HINT)


def connection_failure(url: str, error: Exception) -> DownloadError:
    """Say in one line why there was no answer."""
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    host = host_of(url)
    if isinstance(reason, ssl.SSLCertVerificationError):
        hint = "behind a proxy that opens connections, set SSL_CERT_FILE to its certificate"
        return DownloadError(f"the certificate of {host} is not trusted: {reason.verify_message}", hint=hint)
    if isinstance(reason, TimeoutError):
        return PassingFailure(f"no answer from {host} in time", hint="check the network and run it again")
    text = getattr(reason, "strerror", None) or " ".join(str(reason).split()) or type(reason).__name__
    hint = "check the network, HF_ENDPOINT and HTTPS_PROXY; --backbone tiny needs none of them"
    return PassingFailure(f"cannot reach {host}: {text}", hint=hint)


def wait(hub: Hub, failures: int, error: PassingFailure) -> None:
    """Sleep before the next try: longer each time, and as long as the hub asks, within reason."""
    time.sleep(min(max(hub.first_wait_s * 2**failures, error.wait_s), _LONGEST_WAIT_S))


def host_of(url: str) -> str:
    """Return the part of an address that a message names."""
    return urlsplit(url).netloc.rpartition("@")[2]


class _AnyStatus(urllib.request.HTTPErrorProcessor):
    def http_response(
        self, request: urllib.request.Request, response: http.client.HTTPResponse
    ) -> http.client.HTTPResponse:
        return response

    https_response = http_response


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
