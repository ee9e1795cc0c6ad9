"""Repositories of the hub as language models, CLAPs and model folders: what is fetched, what is refused, licences."""

import json
import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner, Result

from fake_hub import COMMIT, FakeHub, hub_at
from hub_models import save_clap, save_gpt2, save_language_model
from test_captioner import save_model_folder
from textcap.captioner import Captioner
from textcap.cli.app import app
from textcap.config import DecodingConfig
from textcap.errors import CheckpointError, DownloadError, InputError
from textcap.models.backbone import Backbone, BackboneNames
from textcap.models.language_model import open_language_model
from textcap.weights import cache_folder, ensure, fetch, model_folder, verify_cache
from textcap.weights.hub_cache import RepoCache
from textcap.weights.repository import find_repository, is_repository, licence_of
from tiny_random import tiny_captions

LATER = "b" * 40
LLAMA, CLAP, MODEL, GPT2 = "user/llama", "some-lab/clap", "user/captioner", "openai-community/gpt2"
CARD = b"---\nlicense: apache-2.0\ntags: [text]\n---\n# A model\nlicense: none of this\n"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two language models, one of them in shards, and a CLAP."""
    folder = tmp_path_factory.mktemp("models")
    save_language_model(folder / "llama", "llama", max_shard_size="20KB")
    save_language_model(folder / "qwen3", "qwen3")
    save_clap(folder / "clap")
    (folder / "llama" / "README.md").write_bytes(CARD)
    return folder


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, folders: Path) -> Iterator[FakeHub]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    # There are no certificates to check here, and to load them takes longer than everything else.
    monkeypatch.setattr("textcap.weights.hub.httpx2.Client", partial(httpx2.Client, verify=False))
    with FakeHub(cards={LLAMA: {"license": "apache-2.0"}}) as fake:
        fake.publish(LLAMA, folders / "llama")
        monkeypatch.setenv("HF_ENDPOINT", fake.url)
        yield fake


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def requested(fake: FakeHub) -> set[str]:
    """Return the names of the files that were asked for."""
    return {request.path.rsplit("/", 1)[1] for request in fake.requests if "/resolve/" in request.path}


# Fetching


def test_language_model_in_shards_is_fetched_without_code_and_then_used_offline(
    fake: FakeHub, folders: Path, request: pytest.FixtureRequest
) -> None:
    unwanted = [
        "modeling.py",
        "pytorch_model.bin",
        "model.gguf",
        "onnx/model.safetensors",
        "optimizer.pt",
        "a.model.py",
    ]
    for name in unwanted:
        fake.small[LLAMA, name] = b"not to be fetched"
    fetched = fetch([LLAMA], hub=hub_at(fake))
    names = {path.name for path in (folders / "llama").iterdir()} - {"generation_config.json"}
    assert {one.file.name for one in fetched} == requested(fake) == names
    assert sum(name.startswith("model-") for name in names) > 1
    assert {(one.commit, one.file.licence, one.downloaded) for one in fetched} == {(COMMIT, "apache-2.0", True)}

    request.getfixturevalue("no_network")
    folder = model_folder(LLAMA)
    assert folder == find_repository(LLAMA) == fetched[0].path.parent
    again = fetch([LLAMA])
    assert {one.path for one in again} == {one.path for one in fetched} and not any(one.downloaded for one in again)
    assert {one.file.licence for one in again} == {"apache-2.0"}
    ours, theirs = (open_language_model(LLAMA, path) for path in (folder, folders / "llama"))
    assert (ours.licence, ours.content_hash) == ("apache-2.0", theirs.content_hash)
    for name, tensor in theirs.load().state_dict().items():
        assert torch.equal(ours.load().state_dict()[name], tensor)


def test_bin_file_is_fetched_where_there_is_no_other(fake: FakeHub, folders: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(folders / "qwen3", tmp_path / "model")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    fake.publish("user/both", folder)
    (folder / "model.safetensors").unlink()
    fake.publish("user/bin", folder)
    for repo, weights in (("user/both", "model.safetensors"), ("user/bin", "pytorch_model.bin")):
        found = model_folder(repo)
        assert {path.name for path in found.iterdir() if path.suffix in (".bin", ".safetensors")} == {weights}
        open_language_model(repo, found).load()


def test_clap_is_fetched_with_its_preprocessor(fake: FakeHub, folders: Path) -> None:
    fake.publish(CLAP, folders / "clap")
    names = BackboneNames("tiny", CLAP, LLAMA)
    backbone = Backbone.load(names)
    assert backbone.names.absolute() == BackboneNames("tiny", CLAP, LLAMA)
    assert (backbone.clap.licence, backbone.language_model_half.licence) == ("unknown", "apache-2.0")
    backbone.text_encoder()
    backbone.audio_encoder()
    assert {"preprocessor_config.json", "vocab.json", "merges.txt"} <= requested(fake)


def test_revision_is_recorded_and_used_from_then_on(fake: FakeHub, folders: Path) -> None:
    hub = hub_at(fake)
    fetch([LLAMA], hub=hub)
    fake.other_commits["v1/x"] = LATER
    fake.publish(LLAMA, folders / "qwen3")
    fetched = fetch([LLAMA], revision="v1/x", hub=hub)
    assert {one.commit for one in fetched} == {LATER} and any(one.downloaded for one in fetched)
    cache = RepoCache(cache_folder(), LLAMA)
    references = [cache.reference(name) for name in ("main", "v1/x", RepoCache.OWN_REFERENCE)]
    assert references == [COMMIT, LATER, LATER]
    assert json.loads((model_folder(LLAMA) / "config.json").read_text())["model_type"] == "qwen3"
    fetch([LLAMA], revision={LLAMA: COMMIT}, hub=hub)
    assert model_folder(LLAMA).name == COMMIT
    with pytest.raises(DownloadError, match=f"HTTP 404 for {LLAMA}"):
        fetch([LLAMA], revision="v9", hub=hub)
    with pytest.raises(InputError, match="is not a valid revision"):
        fetch([LLAMA], revision="../main", hub=hub)


def test_interrupted_fetch_is_not_complete_and_continues(fake: FakeHub, request: pytest.FixtureRequest) -> None:
    config = fake.small.pop((LLAMA, "config.json"))
    with pytest.raises(DownloadError, match="user/llama has no config.json"):
        fetch([LLAMA], hub=hub_at(fake))
    fake.small[LLAMA, "config.json"] = config
    fake.get_statuses = [200, 200, 404]  # the list, and a first file
    with pytest.raises(DownloadError, match="HTTP 404"):
        fetch([LLAMA], hub=hub_at(fake))
    assert find_repository(LLAMA) is None
    assert [one.downloaded for one in fetch([LLAMA], hub=hub_at(fake))].count(False) == 1
    assert find_repository(LLAMA) is not None
    request.getfixturevalue("no_network")
    assert {one.state for one in verify_cache([LLAMA])} == {"right"}


def test_shard_that_is_missing_makes_a_repository_incomplete(fake: FakeHub) -> None:
    folder = fetch([LLAMA], hub=hub_at(fake))[0].path.parent
    next(folder.glob("model-*.safetensors")).unlink()
    assert find_repository(LLAMA) is None
    assert model_folder(LLAMA) == folder == find_repository(LLAMA)


def test_damaged_shard_is_downloaded_again(fake: FakeHub) -> None:
    path = next(one.path for one in fetch([LLAMA], hub=hub_at(fake)) if one.file.name.startswith("model-"))
    right = path.read_bytes()
    path.resolve().write_bytes(right[::-1])
    assert [one.file.name for one in verify_cache([LLAMA]) if one.state != "right"] == [path.name]
    assert [one.path for one in fetch([LLAMA], hub=hub_at(fake)) if one.downloaded] == [path]
    assert path.read_bytes() == right


def test_weights_that_msclap_uses_as_well_are_downloaded_once(fake: FakeHub, tmp_path: Path) -> None:
    fake.publish(GPT2, save_gpt2(tmp_path / "gpt2"))
    fake.large["microsoft/msclap", "clapcap_weights_2023.pth"] = b"weights"
    ensure("clapcap", hub=hub_at(fake))
    assert find_repository(GPT2) is None  # without its weights and config.json
    n_before = len(fake.requests)
    fetched = {one.file.name: one.downloaded for one in fetch([GPT2], hub=hub_at(fake))}
    assert fetched["model.safetensors"] and fetched["config.json"]
    assert not fetched["vocab.json"] and not fetched["merges.txt"]
    sent = [one.path for one in fake.requests[n_before:] if one.method == "GET"]
    assert not any(path.endswith(("vocab.json", "merges.txt")) for path in sent)


@pytest.mark.parametrize(("statuses", "where"), [("get_statuses", LLAMA), ("head_statuses", f"{LLAMA}/README.md")])
@pytest.mark.parametrize("status", [401, 403])
def test_gated_repository_is_told_in_one_line_with_its_address(
    fake: FakeHub, statuses: str, where: str, status: int
) -> None:
    setattr(fake, statuses, [status])
    result = run("fetch", LLAMA)
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert f"answered HTTP {status} for {where}" in line and "HF_TOKEN" in line
    assert f"accept its terms at {fake.url}/{LLAMA}" in line
    assert find_repository(LLAMA) is None


@pytest.mark.usefixtures("no_network")
def test_offline_says_how_to_fetch(monkeypatch: pytest.MonkeyPatch) -> None:
    for offline in (True, None):
        with pytest.raises(DownloadError, match=f"nothing is downloaded offline .run textcap fetch {LLAMA} with"):
            model_folder(LLAMA, offline=offline)
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DownloadError, match="the environment forbids downloads"):
        fetch([LLAMA])
    result = run("train", "captions.txt", "--language-model", LLAMA, "--backbone", "tiny", "--offline")
    assert result.exit_code == 1 and f"run textcap fetch {LLAMA}" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"<html>", "the description of user/llama cannot be read"),
        (b'{"siblings": [{"name": 1}]}', "the description of user/llama cannot be read"),
        (b'{"siblings": [{"rfilename": "README.md"}]}', "user/llama has no config.json"),
        (b'{"siblings": [{"rfilename": "config.json"}]}', "has no weights in safetensors, nor pytorch_model.bin"),
        (b" " * 10_000_001, "the description of user/llama is too long"),
    ],
)
def test_descriptions_that_cannot_be_used_are_told_in_one_line(
    fake: FakeHub, monkeypatch: pytest.MonkeyPatch, answer: bytes, problem: str
) -> None:
    monkeypatch.setattr("fake_hub.json.dumps", lambda values: answer.decode())
    with pytest.raises(DownloadError) as error:
        fetch([LLAMA], hub=hub_at(fake))
    assert problem in str(error.value) and "\n" not in str(error.value)


def test_names_that_lead_elsewhere_are_never_fetched(fake: FakeHub, folders: Path) -> None:
    for name in (
        "../model.safetensors",
        "/etc/x.model",
        "a/tokenizer.json",
        "..\\vocab.json",
        "tokenizer.json/../x.model",
    ):
        fake.small[LLAMA, name] = b"{}"
    fetched = fetch([LLAMA], hub=hub_at(fake))
    assert {one.path.parent.name for one in fetched} == {COMMIT}
    assert all("/" not in one.file.name and "\\" not in one.file.name for one in fetched)
    # Neither do those that an index gives.
    copy = shutil.copytree(folders / "llama", fetched[0].path.parent.with_name("copy"))
    outside = copy.parent / "model-outside.safetensors"
    outside.write_bytes(b"")
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": f"../{outside.name}"}}))
    (copy / "model.safetensors").unlink(missing_ok=True)
    with pytest.raises(CheckpointError, match=r"weight file outside of its folder: \.\./model-outside"):
        open_language_model("model", copy)


# Names


@pytest.mark.parametrize("name", ["user/name", "Qwen/Qwen3-0.6B", "a/b_c.d"])
def test_names_of_repositories(name: str) -> None:
    assert is_repository(name)


@pytest.mark.parametrize("name", ["", "a", "/a/b", "./a", "../a", "a/../b", "a/b/c", "a/..", "~/a", "a/b\n", "a b/c"])
def test_names_that_are_no_repositories(name: str) -> None:
    assert not is_repository(name)


def test_local_folder_goes_before_a_repository(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: None
) -> None:
    shutil.copytree(folders / "llama", tmp_path / LLAMA)
    monkeypatch.chdir(tmp_path)
    assert model_folder(LLAMA) == Path(LLAMA)
    names = BackboneNames("tiny", language_model=LLAMA)
    assert names.absolute().language_model == str(tmp_path / LLAMA)
    assert Backbone.load(names).config.language_model.width == 16


@pytest.mark.usefixtures("no_network")
def test_name_that_is_neither_is_refused() -> None:
    with pytest.raises(InputError, match="./llama is not a folder .name a folder, or a repository"):
        model_folder("./llama")
    result = run("fetch", "llama")
    assert result.exit_code == 2 and "or a repository such" in result.stderr


# Licences and cards


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: mit\n---\n", "mit"),
        ("---\r\ntags: []\r\nlicense: 'cc-by-4.0'  # a note\r\n---\r\n", "cc-by-4.0"),
        ('---\nlicense: "llama3.2"\n---\n', "llama3.2"),
        ("---\nlicense:\ntags: []\n---\n", "unknown"),
        ("---\nlicense:\n- mit\n---\n", "unknown"),
        ("---\ntags: []\n---\nlicense: mit\n", "unknown"),
        ("# A model\nlicense: mit\n", "unknown"),
        ("", "unknown"),
    ],
)
def test_licence_is_that_of_the_front_matter(tmp_path: Path, card: str, licence: str) -> None:
    assert licence_of(tmp_path) == "unknown"
    (tmp_path / "README.md").write_bytes(card.encode())
    assert licence_of(tmp_path) == licence


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ({"license": "mit"}, "mit"),
        ({"license": ["mit", "x"]}, "unknown"),
        ({}, "unknown"),
        (None, "unknown"),
        ([], "unknown"),
    ],
)
def test_licence_is_printed_as_the_hub_states_it(fake: FakeHub, card: Any, licence: str) -> None:
    fake.cards[LLAMA] = card
    result = run("fetch", LLAMA)
    assert result.exit_code == 0, result.stderr
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert {row[1] for row in rows} == {licence}
    assert {row[3] for row in rows} == {f"{LLAMA}@{COMMIT}"} and rows[-1][0] == "config.json"


def test_card_names_the_repositories_of_both_halves(fake: FakeHub, folders: Path, tmp_path: Path) -> None:
    fake.publish(CLAP, folders / "clap")
    card = (save_model_folder(tmp_path / "model", BackboneNames("tiny", CLAP, LLAMA)) / "README.md").read_text()
    head = card.split("---\n")[1].splitlines()
    assert head[:2] == ["library_name: textcap", "pipeline_tag: audio-to-text"]
    assert head[head.index("base_model:") + 1 :] == [f"- {CLAP}", f"- {LLAMA}"]
    assert r"| language model | user/llama, licence: apache\-2.0, content hash" in card
    assert r"| CLAP | some\-lab/clap, licence: unknown, content hash" in card

    names = BackboneNames("tiny", language_model=str(folders / "llama"))
    card = (save_model_folder(tmp_path / "other", names) / "README.md").read_text()
    assert "base_model" not in card and str(folders) not in card
    assert r"| language model | llama, licence: apache\-2.0" in card and "| CLAP | tiny, licence: MIT" in card


# Model folders


def test_model_folder_of_a_repository_captions_like_the_local_one(
    fake: FakeHub, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    local = save_model_folder(tmp_path / "model", BackboneNames("tiny", language_model=LLAMA))
    fake.publish(MODEL, local)
    fake.small[MODEL, "notes.txt"] = b"not to be fetched"
    sound = tmp_path / "a.wav"
    soundfile.write(sound, np.sin(np.arange(16000) * 0.3) * 0.3, 16000)
    decoding = DecodingConfig(max_tokens=8)
    results = []
    for name in (MODEL, str(local)):
        captioner = Captioner.load(name, device="cpu")
        assert captioner.name == name
        results += captioner.caption([sound], decoding=decoding)
    assert results[0] == results[1] and results[0].caption
    folder = find_repository(MODEL)
    assert folder is not None
    assert {path.name for path in folder.iterdir()} == {
        "README.md",
        "config.json",
        "mapper.safetensors",
        "metrics.jsonl",
    }

    request.getfixturevalue("no_network")
    result = run("caption", sound, "-m", MODEL, "--max-length", "8", "--device", "cpu")
    assert (result.exit_code, result.stdout) == (0, f"{sound}\t{results[0].caption}\n")
    assert f"model {MODEL}, backbone tiny with language model {LLAMA} on cpu" in result.stderr


def test_model_folder_of_a_repository_leads_to_no_place_on_this_machine(
    fake: FakeHub, backbone_folder: Path, tmp_path: Path
) -> None:
    local = save_model_folder(tmp_path / "model", BackboneNames(str(backbone_folder)))
    fake.publish(MODEL, local)
    with pytest.raises(CheckpointError, match=f"{MODEL} needs a folder of its author's machine"):
        Captioner.load(MODEL, device="cpu")


def test_training_on_a_repository_records_its_name(fake: FakeHub, backbone_folder: Path, tmp_path: Path) -> None:
    captions, model = tmp_path / "captions.txt", tmp_path / "model"
    captions.write_text("\n".join(tiny_captions(40)))
    quick = ["--epochs", "1", "--device", "cpu", "-q", "-o", model]
    result = run("train", captions, "--backbone", backbone_folder, "--language-model", LLAMA, *quick)
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{model}\n", "")
    values = json.loads((model / "config.json").read_text())
    assert values["backbone"] == {"backbone": str(backbone_folder), "clap": None, "language_model": LLAMA}
    assert (values["language_model_licence"], values["clap_licence"]) == ("apache-2.0", "")
    assert f"base_model:\n- {LLAMA}\n---" in (model / "README.md").read_text()
    shutil.rmtree(os.environ["TEXTCAP_CACHE"])
    captions.with_suffix(".wav").write_bytes(b"")
    result = run("caption", captions.with_suffix(".wav"), "-m", model, "--offline")
    assert result.exit_code == 1 and f"run textcap fetch {LLAMA}" in result.stderr
