"""What every test runs in: an empty cache, a clean environment, no network beyond loopback, fixed seeds."""

import ipaddress
import os
import random
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

OURS_TO_SET = ("TEXTCAP_", "HF_", "HUGGINGFACE_", "TRANSFORMERS_", "ACCELERATE_", "TYPER_", "_TYPER_")
# Each of these changes how a terminal program prints, or makes this process one of several.
OTHERS_TO_CLEAR = (
    "FORCE_COLOR",
    "PY_COLORS",
    "CLICOLOR_FORCE",
    "GITHUB_ACTIONS",
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
)
KEPT = "TEXTCAP_TEST_DATA"
SEED = 0

# A test may be slow on a busy machine: time decides nothing here.
hypothesis.settings.register_profile("textcap", deadline=None)
hypothesis.settings.load_profile("textcap")

_FOLDER = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    # Before collection: huggingface_hub reads its variables once, when the first test module imports it.
    folder = tempfile.mkdtemp(prefix="textcap-tests-")
    config.stash[_FOLDER] = folder
    for name in list(os.environ):
        if name != KEPT and (name.startswith(OURS_TO_SET) or name in OTHERS_TO_CLEAR):
            del os.environ[name]
    os.environ.update(NO_COLOR="1", COLUMNS="120", HF_HOME=f"{folder}/hf", TEXTCAP_CACHE=f"{folder}/cache")
    os.environ.setdefault("OMP_NUM_THREADS", "2")


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(config.stash[_FOLDER], ignore_errors=True)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("java") and shutil.which("java") is None:
        pytest.skip("needs a Java runtime")
    if item.get_closest_marker("gpu"):
        torch = pytest.importorskip("torch")
        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")


@pytest.fixture(autouse=True)
def _clean_environment(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test caches of its own, outside its `tmp_path`."""
    folder = tmp_path_factory.mktemp("caches")
    monkeypatch.setenv("TEXTCAP_CACHE", str(folder / "textcap"))
    monkeypatch.setenv("HF_HOME", str(folder / "hf"))


@pytest.fixture(autouse=True)
def _fixed_seeds() -> None:
    """Seed the global generators; a test that never imports torch does not pay for it here."""
    random.seed(SEED)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(SEED)


def _is_local(host: object) -> bool:
    name = host.decode() if isinstance(host, bytes) else str(host)
    if name in ("", "localhost", "None", socket.gethostname()):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


@pytest.fixture(autouse=True)
def _loopback_only(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test that reaches for anything but this machine, even where the code under test retries.

    Only this process is watched; tests marked `network` are let through.
    """
    if request.node.get_closest_marker("network"):
        yield
        return
    refused: list[str] = []

    def guard(host: object) -> None:
        if not _is_local(host):
            refused.append(str(host))
            raise ConnectionRefusedError(f"tests may not reach {host}")

    connect, connect_ex, getaddrinfo = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def guarded_connect(self: socket.socket, address: Any) -> None:
        guard(address[0] if isinstance(address, tuple) else "")
        connect(self, address)

    def guarded_connect_ex(self: socket.socket, address: Any) -> int:
        guard(address[0] if isinstance(address, tuple) else "")
        return connect_ex(self, address)

    def guarded_getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        guard(host)
        return getaddrinfo(host, *args, **kwargs)

    monkeypatch.setattr(socket.socket, "connect", guarded_connect)
    monkeypatch.setattr(socket.socket, "connect_ex", guarded_connect_ex)
    monkeypatch.setattr(socket, "getaddrinfo", guarded_getaddrinfo)
    yield
    if refused:
        pytest.fail(f"reached for {', '.join(sorted(set(refused)))}: tests stay on this machine")


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of test data that is not part of the project; the test is skipped where there is none."""
    folder = os.environ.get(KEPT)
    if not folder:
        pytest.skip(f"needs {KEPT}")
    if not Path(folder).is_dir():
        pytest.fail(f"{KEPT} is {folder}, which is no folder")
    return Path(folder)
