"""Hostile configurations and headers: little memory, little time, and only errors of textcap."""

import copy
import json
import math
import os
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, reject, settings
from transformers.audio_utils import mel_filter_bank

from reference_models import clap_audio_model
from test_adapter import FACTS
from test_model_folder import CONFIG, SIZES
from textcap.config import AudioConfig, AudioTowerConfig, ClapConfig, TextTowerConfig, from_dict
from textcap.errors import TextcapError
from textcap.files import parse_json, seal
from textcap.gap.adapter import LinearAdapter, load_adapter, save_adapter
from textcap.model_folder import load_model, save_model
from textcap.models.backbone import Backbone
from textcap.models.mapper import Mapper
from textcap.models.msclap import MsclapAudioEncoder
from textcap.training.state import TrainingProgress, load_state
from tiny_random import write_tiny_backbone
from work_folders import open_work

resource = pytest.importorskip("resource")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and a limit of the address space")

LIMIT_S = 5
LIMIT_BYTES = 1 << 30  # beyond what the process already uses
# Words that stand for what would be too long to show in a failure.
WORDS = {
    "DEEP": "[" * 100_000 + "]" * 100_000,
    "ARRAYS": "[" * 100_000,
    "OBJECTS": '{"a":' * 100_000,
    "LONG": "1" + "0" * 5000,
}
SETTINGS = {"captions": "ab" * 32, "training": {"seed": 3}}


@contextmanager
def limits() -> Iterator[None]:
    """Limit the address space and the time of a block."""

    def too_slow(number: int, frame: object) -> None:
        raise AssertionError(f"took more than {LIMIT_S} s")

    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    handler = signal.signal(signal.SIGALRM, too_slow)
    resource.setrlimit(resource.RLIMIT_AS, (used + LIMIT_BYTES, before[1]))
    signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # transformers warns of mel filters that are empty
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.signal(signal.SIGALRM, handler)


VALUES = st.one_of(
    st.sampled_from([None, True, 0, 1, 2, 3, 7, 64, -1, 1000, 10**6, 2**31, 2**63, 2**64, 10**40, -(10**40)]),
    st.sampled_from([0.0, -0.0, 1e-300, 0.5, 1.5, -1.0, 1e6, 1e300, float("nan"), float("inf")]),
    st.sampled_from(["", "x" * 1000, "\x00", "\udce9", "\u202e", "1", "F16", "I32", [], {}, [[]], {"": {}}, "DEEP"]),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers(-1, 9), max_size=4),
)
ACTIONS = st.sampled_from(["set", "set", "set", "delete", "add"])
CHANGES = st.lists(st.tuples(st.integers(0, 10**6), ACTIONS, VALUES), min_size=1, max_size=3)
TEXTS = st.one_of(
    st.sampled_from([b"ARRAYS", b"OBJECTS", b"LONG", b"\xff", b"", b"null", b"[]", b"NaN", b"1e999"]),
    st.binary(max_size=30),
    st.text('[]{}:,"0e+-.tn', max_size=30).map(str.encode),
)


def changed(document: Any, changes: list[tuple[int, str, Any]]) -> Any:
    """Return a copy of a JSON document with some of its values replaced, deleted or added."""
    document = copy.deepcopy(document)
    for number, action, value in changes:
        places = list(_places(document))
        parent, key = places[number % len(places)]
        value = copy.deepcopy(value)  # hypothesis gives the same object again
        if action == "delete":
            del parent[key]
        elif action == "add" and isinstance(parent, dict):
            parent[f"{key}x"] = value
        else:
            parent[key] = value
        if not document:
            break
    return document


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield value, key
        yield from _places(inner)


def dumped(document: Any) -> bytes:
    return expanded(json.dumps(document).replace('"DEEP"', "DEEP").encode())


def expanded(text: bytes) -> bytes:
    """Replace the words that stand for more."""
    for word, meaning in WORDS.items():
        text = text.replace(word.encode(), meaning.encode())
    return text


def sealed(values: Any) -> Any:
    """Return values with the SHA-256 that an attacker would compute."""
    rest = {key: value for key, value in values.items() if key != "sha256"}
    try:
        return seal(rest)
    except (TypeError, ValueError):
        return values


def never_more_than_an_error(read: Callable[[], object]) -> None:
    with limits(), suppress(TextcapError):
        read()


hostile = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


@hostile
@given(text=TEXTS, changes=CHANGES)
def test_parse_json(text: bytes, changes: list[Any]) -> None:
    never_more_than_an_error(lambda: parse_json(expanded(text), "here"))
    never_more_than_an_error(lambda: parse_json(dumped(changed({"a": [1, {"b": 2}]}, changes)), "here"))


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder, an adapter, a work folder and a backbone folder."""
    folder = tmp_path_factory.mktemp("intact")
    save_model(folder / "model", CONFIG, Mapper(SIZES))
    save_adapter(folder / "h.safetensors", LinearAdapter(torch.eye(6), torch.zeros(6), FACTS))
    work = open_work(folder / "run", SETTINGS)
    work.save(TrainingProgress(step=3, metrics=({"epoch": 1},)), Mapper(SIZES).state_dict())
    work.close()
    write_tiny_backbone(folder / "backbone")
    return folder


@pytest.fixture
def place(intact: Path, tmp_path: Path) -> Path:
    shutil.copytree(intact, tmp_path / "place")
    return tmp_path / "place"


@hostile
@given(text=TEXTS, changes=CHANGES, resealed=st.booleans())
def test_configuration_of_a_model(place: Path, intact: Path, text: bytes, changes: list[Any], resealed: bool) -> None:
    values = changed(json.loads((intact / "model" / "config.json").read_text()), changes)
    if resealed and isinstance(values, dict):
        values = sealed(values)
    for content in (expanded(text), dumped(values)):
        (place / "model" / "config.json").write_bytes(content)
        never_more_than_an_error(lambda: load_model(place / "model"))


@hostile
@given(text=TEXTS, changes=CHANGES)
def test_settings_of_an_unfinished_run(place: Path, intact: Path, text: bytes, changes: list[Any]) -> None:
    path = place / "run.partial" / "settings.json"
    values = changed(json.loads((intact / "run.partial" / "settings.json").read_text()), changes)
    for content in (expanded(text), dumped(values), dumped(sealed(values) if isinstance(values, dict) else values)):
        path.write_bytes(content)
        never_more_than_an_error(lambda: open_work(place / "run", SETTINGS).close())
        never_more_than_an_error(lambda: load_state(place / "run.partial"))


def with_header(path: Path, header: bytes) -> None:
    content = path.read_bytes()
    n_bytes = int.from_bytes(content[:8], "little")
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + n_bytes :])


READERS: dict[str, Callable[[Path], object]] = {
    "model/mapper.safetensors": lambda place: load_model(place / "model"),
    "h.safetensors": lambda place: load_adapter(place / "h.safetensors"),
    "run.partial/state.safetensors": lambda place: load_state(place / "run.partial"),
    "backbone/language_model.safetensors": lambda place: Backbone.load(str(place / "backbone")).language_model(),
}


@pytest.mark.parametrize("name", READERS)
@hostile
@given(text=TEXTS, changes=CHANGES, resealed=st.booleans())
def test_header_of_a_safetensors_file(
    place: Path, intact: Path, name: str, text: bytes, changes: list[Any], resealed: bool
) -> None:
    content = (intact / name).read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    values = changed(header, changes)
    if resealed and isinstance(values, dict) and isinstance(values.get("__metadata__"), dict):
        values["__metadata__"] = sealed(values["__metadata__"])
    for new in (expanded(text), dumped(values)):
        shutil.copyfile(intact / name, place / name)
        with_header(place / name, new)
        never_more_than_an_error(lambda: READERS[name](place))


@hostile
@given(text=TEXTS, changes=CHANGES)
def test_facts_of_an_adapter(place: Path, intact: Path, text: bytes, changes: list[Any]) -> None:
    path = place / "h.safetensors"
    content = (intact / "h.safetensors").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    for facts in (expanded(text).decode(errors="replace"), dumped(changed(vars(FACTS), changes)).decode()):
        metadata = sealed({**header["__metadata__"], "facts": facts})
        shutil.copyfile(intact / "h.safetensors", path)
        with_header(path, json.dumps({**header, "__metadata__": metadata}).encode())
        never_more_than_an_error(lambda: load_adapter(path))


@settings(hostile, max_examples=200)
@given(text=TEXTS, changes=CHANGES)
def test_configuration_of_a_backbone(place: Path, intact: Path, text: bytes, changes: list[Any]) -> None:
    values = changed(json.loads((intact / "backbone" / "config.json").read_text()), changes)

    def use() -> None:
        backbone = Backbone.load(str(place / "backbone"))
        backbone.language_model()
        encoder = backbone.audio_encoder()
        encoder(torch.zeros(1, backbone.config.clap.audio.window_samples))
        backbone.text_encoder().encode(["a dog barks"])

    for content in (expanded(text), dumped(values)):
        (place / "backbone" / "config.json").write_bytes(content)
        never_more_than_an_error(use)


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("language_model", {"n_layers": 1_000_000}),
        ("language_model", {"n_layers": 128, "width": 65536, "n_heads": 1}),
        ("mapper", {"n_layers": 1_000_000}),
        ("clap.audio", {"window_s": 1e300}),
        ("clap.audio", {"sample_rate_hz": 1}),
        ("clap.audio", {"hop_s": 1e-4}),
        ("clap.audio", {"stft_hop_samples": 1}),
        ("clap.audio", {"stft_hop_samples": 10**9}),
        ("clap.audio", {"n_fft": 2**30}),
        ("clap.audio_tower", {"depths": [10**6, 1]}),
        ("clap.text_tower", {"n_positions": 2**30}),
    ],
)
def test_impossible_sizes_of_a_backbone_are_one_line(place: Path, part: str, change: dict[str, Any]) -> None:
    path = place / "backbone" / "config.json"
    values = json.loads(path.read_text())
    inner = values
    for name in part.split("."):
        inner = inner[name]
    inner.update(change)
    path.write_text(json.dumps(values))
    with limits(), pytest.raises(TextcapError) as caught:
        backbone = Backbone.load(str(place / "backbone"))
        (backbone.language_model if part == "language_model" else backbone.audio_encoder)()
    assert "\n" not in str(caught.value) and str(place / "backbone") in str(caught.value)


SMALL = st.integers(1, 4)
AUDIO = st.fixed_dictionaries(
    {
        "sample_rate_hz": st.sampled_from([100, 1000, 8000]),
        "window_s": st.sampled_from([0.02, 0.1]),
        "hop_s": st.sampled_from([0.01, 0.02]),
        "n_fft": st.sampled_from([1, 2, 3, 16, 63]),
        "stft_hop_samples": st.sampled_from([1, 7, 80]),
        "n_mels": st.sampled_from([1, 2, 3, 6, 8, 16]),
        "mel_rate_hz": st.just(8000),
        "mel_min_hz": st.sampled_from([0.0, 50.0]),
        "mel_max_hz": st.sampled_from([51.0, 4000.0]),
        "padding": st.sampled_from(["repeat", "repeatpad"]),
    }
)


@st.composite
def claps(draw: st.DrawFn) -> ClapConfig:
    """Draw odd values for small audio towers, and keep those that a configuration accepts."""
    n_stages, folds, patch, window = draw(st.integers(1, 3)), draw(SMALL), draw(SMALL), draw(SMALL)
    try:
        audio = from_dict(AudioConfig, draw(AUDIO))
        multiples = [audio.n_mels * folds, patch * 2 ** (n_stages - 1) * window, patch]
        tower = AudioTowerConfig(
            spec_size=math.lcm(*multiples[: draw(st.integers(1, 3))]) * draw(SMALL),
            patch_size=patch,
            patch_width=draw(st.sampled_from([1, 2, 4, 6])),
            depths=tuple(draw(st.integers(1, 2)) for _ in range(n_stages)),
            n_heads=tuple(draw(st.integers(1, 2)) for _ in range(n_stages)),
            attention_window=window,
        )
        text = TextTowerConfig(n_layers=1, width=2, n_heads=1, n_positions=4, vocab_size=8, max_tokens=4)
        config = ClapConfig(audio, tower, text, embedding_width=draw(SMALL))
    except TextcapError:
        reject()
    assume(tower.spec_size <= 64)
    return config


@settings(hostile, max_examples=20, suppress_health_check=list(HealthCheck))
@given(config=claps())
def test_every_audio_tower_that_is_accepted_gives_what_transformers_gives(config: ClapConfig) -> None:
    def use() -> None:
        torch.manual_seed(0)
        encoder = MsclapAudioEncoder(config).eval()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some filters are narrower than a bin
            mel = mel_filter_bank(
                config.audio.n_fft // 2 + 1,
                config.audio.n_mels,
                config.audio.mel_min_hz,
                config.audio.mel_max_hz,
                config.audio.mel_rate_hz,
                norm="slaney",
                mel_scale="slaney",
            )
        np.testing.assert_allclose(encoder.front_end.mel, mel, rtol=1e-6, atol=1e-12)
        tensors = {
            name: tensor + 0.3 * torch.randn(tensor.shape) for name, tensor in encoder.tower.state_dict().items()
        }
        tensors["bn0.running_var"] = torch.rand(config.audio.n_mels) + 0.5
        encoder.tower.load_state_dict(tensors)
        log_mel = encoder.front_end(torch.randn(3, config.audio.window_samples))
        theirs = clap_audio_model(config, tensors)(input_features=log_mel).pooler_output
        torch.testing.assert_close(encoder.tower(log_mel), theirs, rtol=1e-4, atol=1e-4)
        assert encoder.embed_log_mel(log_mel).shape == (3, config.embedding_width)

    with torch.inference_mode():
        never_more_than_an_error(use)


@pytest.mark.slow
@settings(hostile, max_examples=3000)
@given(changes=CHANGES)
def test_many_configurations_of_a_model(place: Path, intact: Path, changes: list[Any]) -> None:
    values = changed(json.loads((intact / "model" / "config.json").read_text()), changes)
    (place / "model" / "config.json").write_bytes(dumped(sealed(values) if isinstance(values, dict) else values))
    never_more_than_an_error(lambda: load_model(place / "model"))
